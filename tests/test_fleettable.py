"""What `msrcache status` says, from what /debug/fleet shows."""

from dataclasses import replace

import pytest

from msrcache.cache.fleetview import ALIVE, SILENT, row, shown
from msrcache.cache.record import ReplicaRecord
from msrcache.fleettable import lines, rows_of, size, span, trouble

A = ReplicaRecord(
    replica="node-a-1",
    version="0.1.0",
    address="10.0.0.1:5005",
    uptime=11520.0,
    figures={"pulls": 1204.0, "hits": 1180.0, "bytes": 12.3e9, "upstream_bytes": 240e6, "lag": 0.003},
)
B = replace(A, replica="node-b-2", address="10.0.0.2:5005", figures={})
C = replace(A, replica="node-c-3", address="10.0.0.3:5005", figures={"pulls": 10.0, "hits": 0.0})


def said(*replicas: tuple[ReplicaRecord, str]) -> list[str]:
    """The lines of a fleet."""
    return list(
        lines(
            rows_of(
                shown([row(*one, seen=1.0, silence=723.0) for one in replicas], seen_by="", heartbeat=5.0)
            )
        )
    )


def wrong(*replicas: tuple[ReplicaRecord, str]) -> bool:
    """Whether it deserves a look."""
    return trouble(
        rows_of(shown([row(*one, seen=1.0, silence=723.0) for one in replicas], seen_by="", heartbeat=5.0))
    )


def test_a_fleet_that_is_well() -> None:
    """A row each, a line of sums, and nothing else."""
    told = said((A, ALIVE), (B, ALIVE))
    assert [line.split() for line in told[:3]] == [
        ["replica", "state", "version", "up", "pulls", "hits", "sent", "fetched", "fills", "lag", "peers"],
        [
            "node-a-1",
            "ready",
            "0.1.0",
            "3h12m",
            "1,204",
            "98%",
            "12.3",
            "GB",
            "240",
            "MB",
            "0",
            "3",
            "ms",
            "1",
            "of",
            "1",
        ],
        ["node-b-2", "ready", "0.1.0", "3h12m", "0", "-", "0", "B", "0", "B", "0", "-", "1", "of", "1"],
    ]
    assert told[3:] == ["", "2 alive, 0 silent, 98% of 1,204 pulls were hits"]
    assert not wrong((A, ALIVE), (B, ALIVE))


def test_what_deserves_a_look_is_said_in_words() -> None:
    """Silent, degraded, unreached, violations, versions: each names the replica, and what to do where that is known."""
    sick = replace(
        B,
        version="0.2.0",
        state="draining",
        degraded={"store": "/srv: it is read-only"},
        unreached={"node-a-1": "the connection is refused", "node-c-3": "it is dead anyway"},
        figures={"violations": 2.0},
    )
    told = "\n".join(said((A, ALIVE), (sick, ALIVE), (C, SILENT)))
    assert "node-c-3 is silent for 12m03s at least: its heartbeat stopped without a goodbye" in told
    assert "node-b-2: store: /srv: it is read-only" in told
    assert "node-b-2 missed 2 times what another had just stored" in told
    assert "node-b-2 cannot reach node-a-1: the connection is refused" in told
    assert "cache.peer.addr" in told
    assert "it is dead anyway" not in told
    assert "2 versions run side by side: 0.1.0, 0.2.0" in told
    assert "draining, degraded" in told
    assert "0 of 1" in told
    assert wrong((A, ALIVE), (C, SILENT))


def test_without_peer_ports() -> None:
    """Said once, with the key that is missing; a single replica needs none."""
    mute = replace(A, address="")
    assert not wrong((mute, ALIVE))
    told = said((mute, ALIVE), (replace(B, address=""), ALIVE))
    assert told[-1].startswith("without a peer port: node-a-1, node-b-2. A peer port needs http.secret")
    assert told[1].split()[-1] == "none"


def test_fills_under_way_are_listed() -> None:
    """With what is there of how much, and who reads it."""
    fill = {
        "digest": "sha256:" + "ab" * 32,
        "repository": "team/app",
        "written": 400_000_000,
        "size": 1e9,
        "readers": 3,
        "seconds": 12,
    }
    more = {"digest": "sha256:cd", "repository": "team/b", "written": 5, "size": None}
    told = said((replace(A, fills=(fill, more)), ALIVE))
    assert told[-2:] == [
        "node-a-1 fills team/app sha256:abababababab: 40% of 1.0 GB, 3 readers, 12s",
        "node-a-1 fills team/b sha256:cd: 5 B, 0 readers, 0s",
    ]


def test_nobody_there() -> None:
    """Says what that can mean."""
    assert said() == ["no replica shows itself in this store: none runs, or cache.heartbeat is 0s"]
    assert wrong()


def test_another_versions_view_is_shown_as_far_as_it_is_understood() -> None:
    """Strange rows are left out, unknown fields ignored."""
    told = {
        "v": 9,
        "replicas": [1, {}, {"replica": 1}, {"replica": "x", "life": "asleep", "silence": "long", "new": 1}],
    }
    (only,) = rows_of(told)
    assert (only.record.replica, only.life, only.silence) == ("x", "asleep", 0.0)
    assert rows_of({"replicas": 7}) == rows_of({}) == []
    assert list(lines([only]))[1].split()[:3] == ["x", "ready", "?"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (11520, "3h12m"), (1e6, "11d13h")],
)
def test_durations(seconds: float, text: str) -> None:
    """Two units at most."""
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12.3e9, "12.3 GB"), (4e17, "400 PB")]
)
def test_sizes(count: float, text: str) -> None:
    """Three digits."""
    assert size(count) == text
