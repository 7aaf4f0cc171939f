"""The tail: nobody gets a byte too early, everybody is told how it ended."""

import asyncio

import pytest

from msrcache.cache.tail import Spilled, Tail
from msrcache.oci.digest import Hasher
from msrcache.oci.errors import UpstreamUnavailable
from msrcache.oci.ranges import Span

WHOLE = Span(0, 100)


@pytest.mark.parametrize(
    ("span", "written", "early", "verified", "stop"),
    [
        (WHOLE, 0, False, False, 0),
        (WHOLE, 60, False, False, 60),
        (WHOLE, 100, False, False, 99),
        (WHOLE, 100, True, False, 99),
        (WHOLE, 100, False, True, 100),
        (Span(10, 20), 100, False, False, 19),
        (Span(10, 20), 100, True, False, 20),
        (Span(10, 20), 15, True, False, 15),
        (Span(10, 20), 100, False, True, 20),
        (Span(90, 100), 100, True, False, 99),
    ],
)
def test_how_far_a_span_may_be_read(
    span: Span,
    written: int,
    early: bool,  # noqa: FBT001
    verified: bool,  # noqa: FBT001
    stop: int,
) -> None:
    """The last byte of a span is held back until verification; with early only of spans to the blob's end."""
    tail = Tail(3, 100, early=early)
    tail.advance(written)
    if verified:
        tail.verify()
    assert tail.readable(span) == stop


async def test_every_reader_is_woken_by_every_step() -> None:
    """A thousand readers that wait all go on with the next bytes."""
    tail = Tail(3, 100)
    waiting = [asyncio.create_task(tail.available(0, WHOLE)) for _ in range(1000)]
    await asyncio.wait(waiting, timeout=0)
    tail.advance(7)
    assert set(await asyncio.gather(*waiting)) == {7}


async def test_a_reader_does_not_wait_for_what_is_there() -> None:
    """Bytes below the mark are given at once."""
    tail = Tail(3, 100)
    tail.advance(50)
    assert await tail.available(10, WHOLE) == 50


async def test_the_last_byte_comes_with_verification() -> None:
    """Who has read all but the last byte waits for the verdict."""
    tail = Tail(3, 100)
    tail.advance(100)
    waiting = asyncio.create_task(tail.available(99, WHOLE))
    settled = asyncio.create_task(tail.settled())
    await asyncio.wait({waiting, settled}, timeout=0)
    assert not waiting.done()
    tail.verify()
    assert await waiting == 100
    await settled


async def test_a_broken_fill_cuts_at_once() -> None:
    """Wrong bytes or an upstream that is away: readers get no more of what is in the file."""
    tail = Tail(3, 100)
    waiting = asyncio.create_task(tail.available(0, WHOLE))
    await asyncio.wait({waiting}, timeout=0)
    tail.end(UpstreamUnavailable("gone"))
    for asked in (waiting, tail.available(0, WHOLE), tail.settled()):
        with pytest.raises(UpstreamUnavailable, match="gone"):
            await asked
    tail.advance(50)
    with pytest.raises(UpstreamUnavailable):
        await tail.available(0, WHOLE)


async def test_a_spilled_tail_is_read_to_its_end_first() -> None:
    """What is written is right: readers take it, then are told to go on by themselves."""
    tail = Tail(3, 100)
    tail.advance(50)
    tail.end(Spilled(50, Hasher(), OSError(28, "full")))
    assert await tail.available(0, WHOLE) == 50
    with pytest.raises(Spilled) as told:
        await tail.available(50, WHOLE)
    assert told.value.written == 50
    with pytest.raises(Spilled):
        await tail.settled()


async def test_a_spill_after_the_last_byte_gives_all_but_that_byte() -> None:
    """All came, the verdict did not: the last byte stays held back, and the reader is told where it stands."""
    tail = Tail(3, 100)
    tail.advance(100)
    tail.end(Spilled(100, Hasher(), OSError(5, "EIO")))
    assert await tail.available(0, WHOLE) == 99
    with pytest.raises(Spilled) as told:
        await tail.available(99, WHOLE)
    assert told.value.written == tail.size


async def test_the_first_ending_counts() -> None:
    """A verified tail cannot be broken any more, and a broken one stays as it broke."""
    tail, broken = Tail(3, 100), Tail(3, 100)
    tail.advance(100)
    tail.verify()
    tail.end(UpstreamUnavailable("late"))
    assert await tail.available(0, WHOLE) == 100
    broken.end(UpstreamUnavailable("first"))
    broken.end(Spilled(0, Hasher(), OSError(5, "second")))
    with pytest.raises(UpstreamUnavailable, match="first"):
        await broken.settled()


async def test_one_error_for_many_readers_does_not_grow() -> None:
    """The traceback of the shared error holds the last reader's frames only."""
    tail = Tail(3, 100)
    tail.end(error := UpstreamUnavailable("gone"))
    depths = set()
    for _ in range(20):
        with pytest.raises(UpstreamUnavailable):
            await tail.settled()
        depths.add(_depth(error))
    assert len(depths) == 1


def _depth(error: BaseException) -> int:
    depth, trace = 0, error.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    return depth
