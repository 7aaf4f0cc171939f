"""The pump: all of a body into a file, hashed, and no further than was announced."""

import asyncio
import errno
import os
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from msrcache.cache import pump as module
from msrcache.cache.pump import Pump, WriteFailed, finish
from msrcache.cache.spool import Spool, SpooledFile
from msrcache.cache.tail import Tail
from msrcache.oci.digest import Digest, Hasher
from msrcache.oci.errors import UpstreamUnavailable
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Chunk

DATA = random.Random(4).randbytes(3_000_000)
DIGEST = Digest.of(DATA)


@dataclass(slots=True)
class Stage:
    """A pump over one file of a spool."""

    spool: Spool
    file: SpooledFile
    tail: Tail
    hasher: Hasher
    pump: Pump

    def written(self) -> bytes:
        """What is in the file."""
        return os.pread(self.file.fd, 1 << 24, 0)


@asynccontextmanager
async def _stage(path: Path, *, size: int = len(DATA), there: bytes = b"") -> AsyncIterator[Stage]:
    spool = Spool(path)
    await spool.start()
    file = await spool.open(DIGEST)
    os.pwrite(file.fd, there, 0)
    tail, hasher = Tail(file.fd, size), Hasher()
    try:
        yield Stage(spool, file, tail, hasher, Pump(spool, tail, hasher))
    finally:
        await spool.release(file)
        await spool.close()


async def _body(data: bytes, *, chunk: int, error: Exception | None = None) -> AsyncIterator[Chunk]:
    for start in range(0, len(data), chunk):
        yield data[start : start + chunk]
    if error is not None:
        raise error


@pytest.mark.parametrize("chunk", [700, 64 * 1024, 2_000_000, 10_000_000])
async def test_all_of_a_body_is_written_and_hashed(tmp_path: Path, chunk: int) -> None:
    """Whatever the size of the pieces that come."""
    async with _stage(tmp_path) as stage:
        await stage.pump.run(_body(DATA, chunk=chunk))
        assert stage.tail.written == len(DATA)
        assert stage.written() == DATA
        stage.hasher.verify(DIGEST, len(DATA))


async def test_short_writes_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes a part of what it was given is given the rest."""
    real = os.pwritev

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        return real(fd, [buffers[0][:1000]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    async with _stage(tmp_path, size=100_000) as stage:
        await stage.pump.run(_body(DATA[:100_000], chunk=7_777))
        assert stage.written() == DATA[:100_000]


async def test_what_came_before_an_outage_is_in_the_file(tmp_path: Path) -> None:
    """The body's error is raised, and everything before it can be continued."""
    async with _stage(tmp_path) as stage:
        with pytest.raises(UpstreamUnavailable):
            await stage.pump.run(_body(DATA[:500_000], chunk=9_999, error=UpstreamUnavailable("gone")))
        assert stage.tail.written == stage.hasher.size == 500_000
        assert stage.written() == DATA[:500_000]


async def test_a_body_that_never_ends_is_cut(tmp_path: Path) -> None:
    """More than was announced is read by no more than one piece, and the digest tells."""
    given = 0

    async def endless() -> AsyncIterator[Chunk]:
        nonlocal given
        while True:
            given += 10_000
            yield b"\0" * 10_000

    async with _stage(tmp_path, size=1_000_000) as stage:
        await stage.pump.run(endless())
        assert given == 1_010_000
        assert stage.hasher.size == 1_010_000
        assert os.fstat(stage.file.fd).st_size == 1_010_000


async def test_a_disk_that_refuses_ends_the_pump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WriteFailed says where; what was hashed is what was written; an upstream that waits holds nobody."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    async with _stage(tmp_path) as stage:
        with pytest.raises(WriteFailed, match="No space left") as told:
            await stage.pump.run(_body(DATA * 4, chunk=500_000))
        assert isinstance(told.value.__cause__, OSError)
        assert stage.tail.written == stage.hasher.size == 0


async def test_a_cancelled_pump_leaves_no_thread_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run() ends after its last write has: the descriptor may be closed then."""
    started, go_on, real = threading.Event(), threading.Event(), module._write

    def slow(fd: int, batch: list[bytes], offset: int, hasher: Hasher) -> None:
        started.set()
        go_on.wait(10)
        real(fd, batch, offset, hasher)

    monkeypatch.setattr(module, "_write", slow)
    async with _stage(tmp_path) as stage:
        task = asyncio.create_task(stage.pump.run(_body(DATA, chunk=100_000)))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        await asyncio.wait({task}, timeout=0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stage.tail.written == stage.hasher.size == len(stage.written())
        assert stage.written() == DATA[: stage.tail.written]


async def test_what_was_there_is_hashed_before_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leftover's bytes become readable piece by piece, and the rest is written behind them."""
    monkeypatch.setattr(module, "REHASHED", 300_000)
    async with _stage(tmp_path, there=DATA[:1_000_000]) as stage:
        await stage.pump.rehash(1_000_000)
        assert stage.tail.written == stage.hasher.size == 1_000_000
        await stage.pump.run(_body(DATA[1_000_000:], chunk=100_000))
        assert stage.written() == DATA
        stage.hasher.verify(DIGEST, len(DATA))


async def test_a_failed_rehash_leaves_the_hasher_where_the_tail_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is shorter than was thought: readers go on from exactly what was hashed."""
    monkeypatch.setattr(module, "REHASHED", 300_000)
    async with _stage(tmp_path, there=DATA[:500_000]) as stage:
        with pytest.raises(OSError, match="ends at byte 500000"):
            await stage.pump.rehash(1_000_000)
        assert stage.tail.written == stage.hasher.size == 500_000
        assert stage.hasher.digest() == Digest.of(DATA[:500_000])


async def test_a_cancelled_rehash_leaves_the_hasher_where_the_tail_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread hashes its piece to the end before the cancellation is felt: both stand behind that piece."""
    started, go_on, real = threading.Event(), threading.Event(), module._hash_file

    def slow(fd: int, span: Span, hasher: Hasher) -> None:
        started.set()
        go_on.wait(10)
        real(fd, span, hasher)

    monkeypatch.setattr(module, "REHASHED", 300_000)
    monkeypatch.setattr(module, "_hash_file", slow)
    async with _stage(tmp_path, there=DATA) as stage:
        task = asyncio.create_task(stage.pump.rehash(len(DATA)))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        await asyncio.wait({task}, timeout=0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stage.tail.written == stage.hasher.size == 300_000


async def test_finish_waits_through_cancellations() -> None:
    """However often the waiter is cancelled, it ends after the task, and as cancelled."""
    end = asyncio.Event()

    async def work() -> None:
        await end.wait()

    task = asyncio.create_task(work())
    waiter = asyncio.create_task(finish(task))
    for _ in range(3):
        await asyncio.wait({waiter}, timeout=0)
        waiter.cancel()
    await asyncio.wait({waiter}, timeout=0)
    assert not waiter.done()
    end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert task.done()
    assert not task.cancelled()
