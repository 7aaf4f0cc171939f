"""server.watching: who hangs is noticed, by questions and not by time."""

import socket
import time
from collections.abc import Iterator

import pytest

from msrcache.server.seat import hear
from msrcache.server.watching import EVERY, PATIENCE, Watch

Pair = tuple[Watch, socket.socket]


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A watch over worker 7, and that worker's end; it is always time."""
    clock = iter(range(0, 100 * int(EVERY), int(EVERY)))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.settimeout(0)
    watch = Watch()
    watch.joined(7, ours)
    yield watch, theirs
    ours.close()
    theirs.close()


def test_who_answers_is_never_taken_for_hanging(pair: Pair) -> None:
    """Each question is asked, and each answer counts."""
    watch, line = pair
    for _ in range(3 * PATIENCE):
        assert watch.hanging() == []
        assert hear(line) == ("alive?", None)
        watch.answered(7)


def test_who_says_nothing_many_times_hangs(pair: Pair) -> None:
    """Not before; and one late answer begins it anew."""
    watch, _ = pair
    for _ in range(PATIENCE):
        assert watch.hanging() == []
    watch.answered(7)
    for _ in range(PATIENCE):
        assert watch.hanging() == []
    assert watch.hanging() == [7]


def test_who_has_left_is_not_asked(pair: Pair) -> None:
    """Nor told of again."""
    watch, line = pair
    watch.left(7)
    for _ in range(2 * PATIENCE):
        assert watch.hanging() == []
    with pytest.raises(BlockingIOError):
        hear(line)


def test_nothing_is_asked_before_it_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is looked."""
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    watch = Watch()
    assert watch.until == 100.0 + EVERY
    assert [watch.hanging() for _ in range(2 * PATIENCE)] == [[]] * 2 * PATIENCE
