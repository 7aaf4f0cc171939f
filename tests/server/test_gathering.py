"""server.gathering: the metrics of all workers, whoever of them answers."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from msrcache.server import gathering
from msrcache.server.gathering import Gathering
from msrcache.server.seat import hear
from msrcache.telemetry.merging import plain, snapshot
from msrcache.telemetry.metrics import Metrics

FULL = "msrcache_spool_full_total"


@dataclass(frozen=True, slots=True)
class Crew:
    """A gathering of workers 1 and 2, of which the test plays both."""

    gathering: Gathering
    lines: dict[int, socket.socket]

    def says(self, pid: int, count: int) -> None:
        """The worker answers: its spool was full so many times."""
        metrics = Metrics()
        metrics.spool_full_total.inc(count)
        metrics.workers.set(1)
        self.gathering.told(pid, plain(snapshot(metrics.registry)))

    def heard(self, pid: int) -> list[str]:
        """What the worker is told: kinds, and of metrics the count."""
        found: list[str] = []
        while True:
            try:
                message = hear(self.lines[pid])
            except BlockingIOError:
                return found
            assert message is not None
            kind, told = message
            lines = str(told).splitlines()
            found += [line for line in lines if line.startswith(f"{FULL} ")] if kind == "metrics" else [kind]


@pytest.fixture
def crew() -> Iterator[Crew]:
    """Two workers that serve."""
    made, lines, ours = Gathering(), {}, []
    for pid in (1, 2):
        mine, lines[pid] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (mine, lines[pid]):
            end.settimeout(0)
        ours.append(mine)
        made.joined(pid, mine)
    yield Crew(made, lines)
    for end in (*ours, *lines.values()):
        end.close()


def test_all_are_asked_and_the_sum_goes_to_who_asked(crew: Crew) -> None:
    """Also to those who asked meanwhile, with one question to each."""
    crew.gathering.ask(1)
    crew.gathering.ask(2)
    crew.says(1, 3)
    assert crew.gathering.until is not None
    crew.says(2, 4)
    assert crew.heard(1) == ["snapshot?", f"{FULL} 7.0"]
    assert crew.heard(2) == ["snapshot?", f"{FULL} 7.0"]


def test_one_that_says_nothing_counts_as_last_time(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum does not fall because somebody is stopped."""
    crew.gathering.ask(1)
    crew.says(1, 3)
    crew.says(2, 4)
    monkeypatch.setattr(gathering, "WITHIN", 1e9)
    crew.gathering.ask(1)
    crew.says(1, 5)
    monkeypatch.setattr(time, "monotonic", lambda: 1e12)
    crew.gathering.look()
    assert crew.heard(1) == ["snapshot?", f"{FULL} 7.0", "snapshot?", f"{FULL} 9.0"]


def test_what_an_ended_one_had_counted_stays(crew: Crew) -> None:
    """Nobody waits for it any more, and nothing is lost of what it had said."""
    crew.gathering.ask(1)
    crew.says(1, 3)
    crew.says(2, 4)
    crew.gathering.ask(1)
    crew.says(1, 3)
    crew.gathering.left(2)
    assert crew.gathering.until is None
    assert crew.heard(1)[-1] == f"{FULL} 7.0"


def test_the_supervisors_own_are_part_of_it(crew: Crew) -> None:
    """It counts the restarts."""
    crew.gathering.left(2)
    crew.gathering.metrics.spool_full_total.inc()
    crew.gathering.ask(1)
    crew.says(1, 1)
    assert crew.heard(1)[-1] == f"{FULL} 2.0"


def test_who_asked_and_is_gone_is_told_nothing(crew: Crew) -> None:
    """The round goes on for the others."""
    crew.gathering.ask(2)
    crew.gathering.ask(1)
    crew.gathering.left(2)
    crew.says(1, 1)
    assert crew.heard(1)[-1] == f"{FULL} 1.0"
    assert crew.heard(2) == ["snapshot?"]
