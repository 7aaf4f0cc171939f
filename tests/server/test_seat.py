"""server.seat: what a worker and its supervisor say to each other."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from msrcache.oci.errors import Unavailable
from msrcache.server import seat as module
from msrcache.server.seat import Seat, hear, say
from msrcache.telemetry.metrics import Metrics

Pair = tuple[Seat, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Seat 1 of 2, and the supervisor's end of its line."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.settimeout(0)
    yield Seat(theirs, 1, 2), ours
    ours.close()
    theirs.close()


async def heard(line: socket.socket) -> object:
    """The next message to the supervisor."""
    async with asyncio.timeout(20):
        while True:
            try:
                return hear(line)
            except BlockingIOError:
                await asyncio.sleep(0)


async def test_a_worker_says_how_it_stands(pair: Pair) -> None:
    """Ready, or why never."""
    seat, line = pair
    seat.ready()
    seat.cannot("no such file")
    assert await heard(line) == ("ready", None)
    assert await heard(line) == ("cannot", "no such file")


async def test_a_worker_hears_and_answers(pair: Pair) -> None:
    """Its metrics when it is asked; hurry; that the other side is gone, once."""
    seat, line = pair
    told: asyncio.Queue[str] = asyncio.Queue()
    words = {word: lambda word=word: told.put_nowait(word) for word in ("hurry", "gone")}
    seat.listen(Metrics().registry, told=words)
    say(line, "snapshot?")
    answer = await heard(line)
    assert isinstance(answer, tuple)
    assert answer[0] == "snapshot"
    say(line, "alive?")
    assert await heard(line) == ("alive", None)
    say(line, "of a later version")
    say(line, "hurry")
    line.close()
    async with asyncio.timeout(20):
        assert [await told.get(), await told.get()] == ["hurry", "gone"]


async def test_the_metrics_of_all(pair: Pair) -> None:
    """Two questions at once are one; a supervisor that says nothing is told in an error, and asked again next time."""
    seat, line = pair
    seat.listen(Metrics().registry, told={})
    asking = [asyncio.create_task(seat.metrics()) for _ in range(2)]
    assert await heard(line) == ("metrics?", None)
    say(line, "metrics", "a 1\n")
    assert await asyncio.gather(*asking) == [b"a 1\n", b"a 1\n"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PATIENCE", 0.01)
        with pytest.raises(Unavailable, match="supervisor"):
            await seat.metrics()
    assert await heard(line) == ("metrics?", None)
    again = asyncio.create_task(seat.metrics())
    assert await heard(line) == ("metrics?", None)
    say(line, "metrics", "a 2\n")
    assert await again == b"a 2\n"


async def test_a_worker_knows_how_many_serve(pair: Pair) -> None:
    """While some are missing, in words."""
    seat, line = pair
    seat.listen(Metrics().registry, told={"gone": lambda: None})
    assert seat.trouble() is None
    said = [
        (
            {"ready": 1, "why": ": worker 2 ended with signal 9"},
            "1 of 2 workers serve: worker 2 ended with signal 9",
        ),
        ({"ready": 2, "why": ""}, None),
    ]
    for crew, trouble in said:
        say(line, "crew", crew)
        async with asyncio.timeout(20):
            while seat.trouble() != trouble:
                await asyncio.sleep(0)


def test_nobody_waits_for_who_does_not_read(pair: Pair) -> None:
    """A full line loses messages, whole ones; one that is closed loses all."""
    seat, line = pair
    sent = 0
    while say(line, "crew", {"ready": sent}):
        sent += 1
    assert sent > 10
    line.close()
    seat.ready()
    assert not say(line, "crew", {})
