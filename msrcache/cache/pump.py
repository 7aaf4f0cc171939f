"""The pump: an upstream body into a spool file, written and hashed in threads, about a mebibyte at a time.

Two sides share a short queue, so the network is read while the disk is written. A batch leaves when it is full or
``LINGER`` after its first byte, the first of all at once: large batches cost few thread switches, a reader's first
byte waits for nothing.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TypeVar

from msrcache.cache.spool import Spool
from msrcache.cache.tail import Tail
from msrcache.oci.digest import Hasher
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Chunk, FileSpan

MIB = 1 << 20
BATCH = MIB
QUEUED = 2 * MIB
LINGER = 0.002
REHASHED = 4 * MIB


T = TypeVar("T")


class WriteFailed(Exception):
    """The spool's disk refused the bytes; ``__cause__`` is the OSError."""


class Pump:
    """Moves one body into one file; used once."""

    def __init__(self, spool: Spool, tail: Tail, hasher: Hasher) -> None:
        self._spool = spool
        self._tail = tail
        self._hasher = hasher
        self._batch: list[bytes | memoryview] = []
        self._queued = 0
        self._ended = False
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._linger: asyncio.TimerHandle | None = None

    async def rehash(self, length: int) -> None:
        """Hash what a dead process left in the file, letting readers have it as it is hashed."""
        for start in range(0, length, REHASHED):
            span = Span(start, min(length, start + REHASHED))
            try:
                await self._spool.run(partial(_hash_file, self._tail.fd, span, self._hasher))
            finally:
                # Also when this fails or is cancelled: a spilled reader's hasher must stand where the file does.
                self._tail.advance(self._hasher.size)

    async def run(self, body: AsyncIterator[Chunk]) -> None:
        """All of the body into the file. Raises what the body raised, or WriteFailed.

        What came before the error is in the file when this returns.
        """
        writing = asyncio.create_task(self._write_batches())
        try:
            async for chunk in body:
                assert not isinstance(chunk, FileSpan), "an upstream sends bytes, not files"
                self._add(chunk)
                if self._tail.written + self._queued > self._tail.size:
                    break  # more than was announced: the digest cannot be right, and the disk is not endless
                if not self._room.is_set():
                    await _first(self._room, writing)
                if writing.done():
                    break
        finally:
            self._ended = True
            self._full.set()
            # A cancelled fill must not leave a thread writing to a descriptor that is about to be closed.
            await finish(writing)
            writing.exception()  # looked at, also where the body's own error is what is raised
        writing.result()

    def _add(self, chunk: bytes | memoryview) -> None:
        self._batch.append(chunk)
        self._queued += len(chunk)
        if self._queued >= BATCH or self._tail.written == 0:
            self._full.set()  # the first bytes wait for nothing: somebody wants to see them
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER, self._full.set)
        if self._queued >= QUEUED or self._tail.written == 0:
            self._room.clear()

    async def _write_batches(self) -> None:
        while True:
            await self._full.wait()
            batch, count = self._take()
            if not batch:
                return
            offset = self._tail.written
            try:
                await self._spool.run(partial(_write, self._tail.fd, batch, offset, self._hasher))
            except OSError as error:
                raise WriteFailed(f"spool {self._spool.path}: {error.strerror}") from error
            self._spool.wrote(count)
            self._tail.advance(offset + count)
            self._room.set()

    def _take(self) -> tuple[list[bytes | memoryview], int]:
        batch, count = self._batch, self._queued
        self._batch, self._queued = [], 0
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self._ended:
            self._full.clear()
        return batch, count


async def _first(event: asyncio.Event, other: "asyncio.Task[None]") -> None:
    """Wait for whichever comes first; a failed writer makes no room."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting, other}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def finish(task: "asyncio.Task[T]") -> None:
    """Wait for the task whatever happens to the one who waits; its result is not looked at."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()
        raise asyncio.CancelledError


def _write(fd: int, batch: Sequence[bytes | memoryview], offset: int, hasher: Hasher) -> None:
    """All of the batch at the offset, then hashed: on an error the hasher still stands where the file did."""
    buffers = [memoryview(chunk) for chunk in batch]
    while buffers:
        written = os.pwritev(fd, buffers[:1024], offset)
        offset += written
        buffers = _rest(buffers, written)
    for chunk in batch:
        hasher.update(chunk)


def _rest(buffers: list[memoryview], written: int) -> list[memoryview]:
    for index, buffer in enumerate(buffers):
        if written < len(buffer):
            return [buffer[written:], *buffers[index + 1 :]]
        written -= len(buffer)
    return []


def _hash_file(fd: int, span: Span, hasher: Hasher) -> None:
    offset = span.start
    while offset < span.stop:
        data = os.pread(fd, min(MIB, span.stop - offset), offset)
        if not data:
            raise OSError(f"the file ends at byte {offset}, {span.stop} were there")
        hasher.update(data)
        offset += len(data)
