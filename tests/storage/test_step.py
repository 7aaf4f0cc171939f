"""A step of a listing is its iterator's own, with or without waiting."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from msrcache.storage.step import Step


async def _page(waiting: asyncio.Event) -> AsyncIterator[int]:
    yield 1
    yield 2
    await waiting.wait()
    await asyncio.sleep(0)
    yield 3
    raise OSError(5, "EIO")


async def test_what_is_at_hand_is_not_waited_for() -> None:
    """The rest is, to the same items and the same errors."""
    waiting = asyncio.Event()
    items = _page(waiting)
    for number in (1, 2):
        step = Step(items)
        assert step.begin()
        assert step.item == number
    step = Step(items)
    assert not step.begin()
    asyncio.get_running_loop().call_soon(waiting.set)
    assert await step == 3
    step = Step(items)
    assert not step.begin()
    with pytest.raises(OSError, match="EIO"):
        await step


async def test_the_end_is_told_where_it_is_awaited() -> None:
    """Also the end that came after waiting."""

    async def ends(*pauses: float) -> AsyncIterator[float]:
        for pause in pauses:
            await asyncio.sleep(pause)
        for nothing in tuple[float, ...]():
            yield nothing

    for items in (ends(), ends(0.0)):
        step = Step(items)
        assert not step.begin()
        with pytest.raises(StopAsyncIteration):
            await step


async def test_a_deadline_ends_it() -> None:
    """The iterator is told, and may clean up."""
    seen: list[str] = []

    async def hangs() -> AsyncIterator[int]:
        try:
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            raise
        yield 0

    step = Step(hangs())
    assert not step.begin()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await step
    assert seen == ["cancelled"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_passes_through() -> None:
    """Of the task that waits, and it may be survived by the iterator."""

    async def stubborn() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield 7

    async def waits() -> int:
        step = Step(stubborn())
        assert not step.begin()
        return await step

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == 7
