"""Disk calls in threads: who leaves loses nothing, what hangs takes a thread and no more."""

import asyncio
import errno
import threading

import pytest

from msrcache.storage import disk as module
from msrcache.storage.disk import Disk
from msrcache.storage.errors import NoSpace, NotFound, Unavailable


def fail(number: int) -> None:
    """As the kernel does."""
    raise OSError(number, "-")


async def test_work_runs_off_the_loop() -> None:
    """In a thread of the disk's own."""
    disk = Disk("d", threads=2)
    assert (await disk.run("k", lambda: threading.current_thread().name)).startswith("d_")
    await disk.close()


async def test_the_kernels_errors_become_the_contracts() -> None:
    """A missing name is NotFound when reading, and a failure when writing."""
    disk = Disk("d", threads=2)
    with pytest.raises(NotFound):
        await disk.run("k", lambda: fail(errno.ENOENT))
    with pytest.raises(Unavailable):
        await disk.run("k", lambda: fail(errno.ENOENT), writing=True)
    with pytest.raises(NoSpace):
        await disk.run("k", lambda: fail(errno.ENOSPC), writing=True)
    await disk.close()


async def test_what_nobody_waits_for_is_disposed_of() -> None:
    """A cancelled caller gets no result, so the result gets its end."""
    disk = Disk("d", threads=2)
    started, go, disposed = threading.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> str:
        started.set()
        go.wait()
        return "a descriptor"

    def dispose(result: str) -> None:
        assert result == "a descriptor"
        loop.call_soon_threadsafe(disposed.set)

    task = asyncio.create_task(disk.run("k", work, dispose=dispose))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not disposed.is_set()
    go.set()
    await disposed.wait()
    await disk.close()


async def test_what_failed_or_never_began_needs_no_disposal() -> None:
    """Queued work of a cancelled caller never runs; work that fails brings nothing."""
    disk = Disk("d", threads=1)
    go = threading.Event()
    hung = asyncio.create_task(disk.run("k", go.wait))
    failing = asyncio.create_task(disk.run("k", lambda: fail(errno.EIO), dispose=pytest.fail))
    queued = asyncio.create_task(disk.run("k", lambda: pytest.fail("it ran"), dispose=pytest.fail))
    await asyncio.sleep(0)
    queued.cancel()
    go.set()
    with pytest.raises(Unavailable):
        await failing
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert await hung
    await disk.close()


async def test_a_hung_call_stops_neither_the_loop_nor_other_calls() -> None:
    """Its caller's deadline ends the wait; other threads go on."""
    disk = Disk("d", threads=2)
    go = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await disk.run("k", go.wait)
    assert await disk.run("k", lambda: 7) == 7
    go.set()
    await disk.close()


async def test_a_line_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """While all threads hang, callers who gave up stand in line; beyond its end nobody waits, until it moves."""
    monkeypatch.setattr(module, "LINE", 3)
    disk = Disk("d", threads=1)
    go, started = threading.Event(), threading.Event()

    def hang() -> bool:
        started.set()
        return go.wait()

    hung = asyncio.create_task(disk.run("k", hang))
    await asyncio.to_thread(started.wait)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await disk.run("k", lambda: pytest.fail("nobody wanted it any more"))
    with pytest.raises(Unavailable, match="3 calls wait for it"):
        await disk.run("k", lambda: 7)
    letting_go = disk.submit(lambda: "what must be done is")
    go.set()
    assert await hung
    assert await asyncio.wrap_future(letting_go) == "what must be done is"
    assert await disk.run("k", lambda: 7) == 7
    await disk.close()


async def test_tidying_waits_for_what_uses_the_same() -> None:
    """And is done though whoever asked for it has gone."""
    disk = Disk("d", threads=2)
    go, order = threading.Event(), list[str]()

    def use() -> None:
        go.wait()
        order.append("used")

    job = disk.submit(use)
    task = disk.tidy(lambda: order.append("tidied"), after=job)
    await asyncio.sleep(0)
    assert order == []
    go.set()
    await task
    assert order == ["used", "tidied"]
    await disk.close()


async def test_close_leaves_behind_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the patient time only, twice is once, and late work still runs."""
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    disk = Disk("d", threads=2)
    go = threading.Event()
    job = disk.submit(go.wait)
    await disk.close()
    await disk.close()
    assert not job.done()
    assert disk.submit(lambda: 7).result() == 7
    assert isinstance(disk.submit(lambda: fail(errno.EIO)).exception(), OSError)
    async with asyncio.timeout(20):
        while repr(disk) != "<Disk d [1 calls]>":  # a result is there before its call is struck off
            await asyncio.sleep(0)
    go.set()
    assert await asyncio.wrap_future(job)
