"""Records of replicas: of this version, of one before and of one to come."""

import json

import pytest

from msrcache.cache.record import FILLS, ReplicaRecord, parse_record

WHOLE = ReplicaRecord(
    replica="a-1",
    beat=7,
    version="1.2.3",
    address="10.0.0.1:5002",
    state="draining",
    started=1_700_000_000.0,
    uptime=3.5,
    fills=({"digest": "sha256:ab", "written": 3},),
    figures={"pulls": 2.0},
    degraded={"store": "away"},
    unreached={"b-2": "refused"},
)


def test_what_is_written_is_read() -> None:
    """Field by field; version 1 says so."""
    assert parse_record("a-1", WHOLE.encode()) == WHOLE
    assert json.loads(WHOLE.encode())["v"] == 1


def test_a_later_versions_record_is_understood_as_far_as_possible() -> None:
    """Unknown fields are ignored, strange ones have their defaults, and its beat is still a beat."""
    told = {
        **WHOLE.told(),
        "v": 9,
        "colour": "blue",
        "fills": {"one": 1},
        "uptime": "long",
        "figures": {"pulls": 2, "new": [1]},
    }
    read = parse_record("a-1", json.dumps(told).encode())
    assert read is not None
    assert (read.v, read.beat, read.address, read.state) == (9, 7, "10.0.0.1:5002", "draining")
    assert (read.fills, read.uptime, read.figures) == ((), 0.0, {"pulls": 2})


def test_an_earlier_versions_record_may_lack_fields() -> None:
    """They have their defaults."""
    assert parse_record("a-1", b'{"v": 1, "beat": 3}') == ReplicaRecord(replica="a-1", beat=3)
    assert parse_record("a-1", b"{}") == ReplicaRecord(replica="a-1")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"1", b"\xff\xfe", b'{"v": 1', b"null"])
def test_what_is_no_record_is_none(data: bytes) -> None:
    """Nothing is guessed of it."""
    assert parse_record("a-1", data) is None


def test_the_name_is_the_keys() -> None:
    """A record cannot speak for another replica."""
    read = parse_record("b-2", WHOLE.encode())
    assert read is not None
    assert read.replica == "b-2"


def test_a_record_stays_small() -> None:
    """However many fills are under way."""
    many = ReplicaRecord(replica="a", fills=tuple({"digest": f"sha256:{n}"} for n in range(1000)))
    told = many.told()["fills"]
    assert isinstance(told, list)
    assert len(told) == FILLS
