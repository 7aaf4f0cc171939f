"""Spans of a spool file, read piece by piece for sending: from the page cache on the loop, else in a few threads.

At most PIECE bytes of a part are in memory. Not here: what is sent where (`parts`).
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from msrcache.oci.ranges import Span

T = TypeVar("T")

PIECE: Final = 64 << 10
"""Bytes that are read at once."""

PAUSE: Final = 16
"""Pieces from the page cache after which the loop gets its turn."""


class Hash(Protocol):
    """As hashlib's."""

    def update(self, data: memoryview, /) -> None: ...


class Reading:
    """The reads of one writer in its driver's threads, which must end before the descriptor is closed."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._jobs: set[Future[Any]] = set()

    def __repr__(self) -> str:
        return f"<Reading [{len(self._jobs)} reads]>"

    async def run(self, work: Callable[[], T]) -> T:
        """In a thread. A caller that is cancelled leaves it behind."""
        job = self._pool.submit(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return await asyncio.wrap_future(job)

    async def ended(self) -> None:
        """Returns when no thread reads any more."""
        while jobs := [asyncio.wrap_future(job) for job in tuple(self._jobs)]:
            await asyncio.wait(jobs)
            for job in jobs:
                if not job.cancelled():
                    job.exception()  # told to whoever asked for the read


class Part:
    """Bytes `span` of a spool file, read as often as wanted."""

    def __init__(self, span: Span, fd: int, reading: Reading) -> None:
        self.span = span
        self._fd = fd
        self._reading = reading

    def __repr__(self) -> str:
        return f"<Part {self.span}>"

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.span.size

    def other(self, span: Span) -> "Part":
        """Other bytes of the same file."""
        return Part(span, self._fd, self._reading)

    async def __aiter__(self) -> AsyncIterator[bytearray]:
        """The bytes in pieces. Raises OSError, also where the file ends before the span."""
        for number, start in enumerate(range(self.span.start, self.span.stop, PIECE), 1):
            piece = Span(start, min(self.span.stop, start + PIECE))
            data = _from_page_cache(self._fd, piece)
            if data is None:
                data = await self._reading.run(partial(_read, self._fd, piece))
            elif number % PAUSE == 0:
                await asyncio.sleep(0)
            yield data

    async def hashed(self, *hashes: Hash) -> None:
        """Give all bytes to these, in a thread. Raises OSError."""
        await self._reading.run(partial(_hash, self._fd, self.span, hashes))


def _from_page_cache(fd: int, span: Span) -> bytearray | None:
    """The bytes, if that takes no disk."""
    data = bytearray(span.size)
    # EAGAIN, EOPNOTSUPP: a thread finds out whether it is more than that.
    with suppress(OSError):
        if os.preadv(fd, [data], span.start, os.RWF_NOWAIT) == span.size:
            return data
    return None


def _read(fd: int, span: Span) -> bytearray:
    data = bytearray(span.size)
    _fill(fd, memoryview(data), span.start)
    return data


def _hash(fd: int, span: Span, hashes: Sequence[Hash]) -> None:
    buffer = memoryview(bytearray(min(PIECE, span.size)))
    for start in range(span.start, span.stop, PIECE):
        piece = buffer[: min(PIECE, span.stop - start)]
        _fill(fd, piece, start)
        for hasher in hashes:
            hasher.update(piece)


def _fill(fd: int, buffer: memoryview, offset: int) -> None:
    filled = 0
    while filled < len(buffer):
        count = os.preadv(fd, [buffer[filled:]], offset + filled)
        if not count:
            raise OSError(errno.EIO, f"the spool file ends at byte {offset + filled}")
        filled += count
