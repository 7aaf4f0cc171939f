"""Bytes and file spans to one client: what stands below an answer's body.

Plain connections: os.sendfile on the transport's own socket. The transport's buffer is empty whenever we
send past it: a small piece goes the ordinary way first (it takes the headers along) and again whenever the
socket is full, and the drain after it means empty, because the high-water mark is 1. Rejected: sendfile on
a duplicate of the descriptor (abort() cuts nothing while it is open).
Under TLS, and where a file system refuses sendfile: a piece is read and written, small to a slow client
because what waits for it is memory, large to a fast one because each costs a call.

The loop never waits for a disk: a span's next window is asked for with RWF_NOWAIT, and read by a thread
where the page cache has it not (or the file system cannot tell). Files of the second kind, as those of a file
server, have threads of their own: one that hangs keeps these, and what waits for it longer than PATIENCE is cut.
Not here: headers, ranges, what happens to an answer that fails (deliver).
"""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from aiohttp.http import StreamWriter

from msrcache.oci.registry import FileSpan

T = TypeVar("T")

KIB: Final = 1024
SMALL: Final = 4 * KIB
WINDOW: Final = 2048 * KIB
CALLS_BEFORE_YIELD: Final = 2
SLOW_PIECE: Final = 64 * KIB
FAST_PIECE: Final = 256 * KIB
FAST: Final = 0.05
"""Seconds within which a fast client takes a piece."""
PROVEN: Final = 8 * 1024 * KIB
"""Bytes that it takes so before it is given large pieces: the kernel's buffers alone swallow 4 MiB at once."""
PATIENCE: Final = 30.0
"""Seconds that a window may take to be read."""
REFUSED: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class ReadFailed(Exception):
    """A file span could not be read: the cause is the OSError."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Gone(Exception):
    """The client has left."""


class Stalled(Exception):
    """The client has taken nothing for as long as one may."""


class Reader:
    """Reads files in bounded pools of threads where reading could wait for a disk. One for a server."""

    def __init__(self, threads: int = 8) -> None:
        self._seeing = ThreadPoolExecutor(threads, thread_name_prefix="msrcache-read")
        self._blind = ThreadPoolExecutor(threads, thread_name_prefix="msrcache-read-blind")
        self._scratch = threading.local()

    def close(self) -> None:
        for pool in (self._seeing, self._blind):
            pool.shutdown(wait=False, cancel_futures=True)

    async def warm(self, fd: int, offset: int, size: int, *, seeing: bool = True) -> None:
        """Have the span read into the page cache. Raises OSError."""
        await self._run(seeing, lambda: self._read_away(fd, offset, size))

    async def read(self, fd: int, offset: int, size: int, *, seeing: bool = True) -> bytes:
        """The span's bytes (fewer at the end of the file). Raises OSError."""
        return await self._run(seeing, lambda: os.pread(fd, size, offset))

    async def _run(self, seeing: bool, work: Callable[[], T]) -> T:  # noqa: FBT001
        pool = self._seeing if seeing else self._blind
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.get_running_loop().run_in_executor(pool, work)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, "the disk or the file server does not answer") from None

    def _read_away(self, fd: int, offset: int, size: int) -> None:
        scratch: memoryview | None = getattr(self._scratch, "buffer", None)
        if scratch is None:
            scratch = self._scratch.buffer = memoryview(bytearray(WINDOW))
        end = offset + size
        while offset < end:
            count = os.preadv(fd, [scratch[: end - offset]], offset)
            if count == 0:
                return  # sendfile finds the end of the file too, and tells it
            offset += count


class Sender:
    """Sends one answer's body. `sent` counts what the connection has taken; `finish` is due in every case."""

    def __init__(
        self, writer: StreamWriter, transport: asyncio.Transport, *, reader: Reader, stall: float
    ) -> None:
        self.sent = 0
        self._writer = writer
        self._transport = transport
        self._reader = reader
        self._stall = stall
        self._piece = SLOW_PIECE
        self._run = 0
        self._seeing = True
        self._byte = [bytearray(1)]
        self._loop = asyncio.get_running_loop()
        self._waiting: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        sock = transport.get_extra_info("socket")
        self._direct = sock is not None and transport.get_extra_info("sslcontext") is None
        self._socket = sock.fileno() if self._direct else -1
        # 1 and not 0, with which the drain under TLS would never end.
        transport.set_write_buffer_limits(high=1)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """While this context is open, a client that takes nothing for the stall time ends it with Stalled.

        One timer an answer, not one a write: those were a third of what a full socket cost.
        """
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._watch(scope)
                yield
        except TimeoutError:
            if scope.expired():
                raise Stalled from None
            raise

    def _watch(self, scope: asyncio.Timeout) -> None:
        now = self._loop.time()
        due = (now if self._waiting is None else self._waiting) + self._stall
        if due <= now:
            scope.reschedule(now)
        else:
            self._timer = self._loop.call_at(due, self._watch, scope)

    def finish(self) -> None:
        """Leave the connection as it was, for its next request."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._transport.is_closing():
            self._transport.set_write_buffer_limits()

    async def send(self, data: bytes | memoryview) -> None:
        """Send bytes. Raises Gone or Stalled."""
        view = memoryview(data)
        # Under TLS what waits is copied, so a slow client has small pieces; else it waits in the memory that it is in.
        size = len(view) if self._direct else self._piece
        while view:
            sent = await self._write(view[: size or self._piece])
            view = view[sent:]

    async def send_file(self, span: FileSpan) -> None:
        """Send the span of a file. Raises Gone or Stalled for the client, ReadFailed for the file."""
        offset = span.start
        if self._direct:
            offset = await self._sendfile(span)
        while offset < span.stop:
            size = min(self._piece, span.stop - offset)
            # No name for the piece here: a frame that waits would keep it beside its encrypted copy.
            offset += await self._write(await self._read(span.fd, offset, size))

    async def _sendfile(self, span: FileSpan) -> int:
        """Send past the transport; returns where it ended: before the end where sendfile is refused."""
        offset, calls, full = span.start, 0, False
        while self._direct and offset < span.stop:
            if full or self._transport.get_write_buffer_size():
                size = min(SMALL, span.stop - offset)
                offset += await self._write(await self._read(span.fd, offset, size))
                full = False
                continue
            stop = min(offset + WINDOW, span.stop)
            if not self._there(span.fd, stop):
                await self._warm(span.fd, offset, stop)
            count = self._splice(span.fd, offset, stop - offset)
            full = count < stop - offset
            offset += count
            calls += 1
            if calls % CALLS_BEFORE_YIELD == 0:
                await asyncio.sleep(0)
        return offset

    def _splice(self, fd: int, offset: int, size: int) -> int:
        """One sendfile: how much the socket took, 0 when it is full (or sendfile refused: _direct)."""
        self._look()
        try:
            count = os.sendfile(self._socket, fd, offset, size)
        except BlockingIOError:
            return 0
        except OSError as cause:
            if cause.errno in REFUSED:
                self._direct = False
                return 0
            raise _blamed(cause) from cause
        if count == 0:
            raise ReadFailed(OSError(errno.EIO, "the file is shorter than it was"))
        self.sent += count
        return count

    def _look(self) -> None:
        if self._transport.is_closing():
            raise Gone

    def _there(self, fd: int, stop: int) -> bool:
        """Whether the window up to `stop` can be read without a disk; its last byte speaks for it."""
        return self._peek(fd, self._byte, stop - 1) > 0

    def _peek(self, fd: int, into: list[bytearray], offset: int) -> int:
        """How much of it the page cache gave at once; 0 where a thread must read, which also finds the end."""
        if not self._seeing:
            return 0
        try:
            return os.preadv(fd, into, offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return 0
        except OSError as cause:
            if cause.errno not in REFUSED:
                raise ReadFailed(cause) from cause
            self._seeing = False
            return 0

    async def _warm(self, fd: int, offset: int, stop: int) -> None:
        try:
            await self._reader.warm(fd, offset, stop - offset, seeing=self._seeing)
        except OSError as cause:
            raise ReadFailed(cause) from cause

    async def _read(self, fd: int, offset: int, size: int) -> bytes | bytearray:
        """Bytes of the file: from the page cache at once, else by a thread. Never empty."""
        found = bytearray(size if self._seeing else 0)
        if count := self._peek(fd, [found], offset):
            return found if count == size else found[:count]
        try:
            data = await self._reader.read(fd, offset, size, seeing=self._seeing)
        except OSError as cause:
            raise ReadFailed(cause) from cause
        if not data:
            raise ReadFailed(OSError(errno.EIO, "the file is shorter than it was"))
        return data

    async def _write(self, data: bytes | bytearray | memoryview) -> int:
        """The ordinary way; returns the size when the transport holds nothing of it any more."""
        self._look()
        size = len(data)
        self._waiting = begun = self._loop.time()
        try:
            await self._writer.write(data, drain=False)
            del data
            if self._transport.get_write_buffer_size():
                await self._emptied()
        except ConnectionError:
            raise Gone from None
        finally:
            self._waiting = None
        self._look()
        self._pace(size, self._loop.time() - begun)
        self.sent += size
        return size

    def _pace(self, size: int, taken: float) -> None:
        if taken > FAST:
            self._run, self._piece = 0, SLOW_PIECE
            return
        self._run += size
        if self._run > PROVEN:
            self._piece = FAST_PIECE

    async def _emptied(self) -> None:
        await self._writer.drain()
        pause = 0.0
        while self._direct and self._transport.get_write_buffer_size():
            # uvloop sends at the end of its turn; a rest of one byte is below the mark: wait for it.
            self._look()
            await asyncio.sleep(pause)
            await self._writer.drain()
            pause = 0.01


def _blamed(cause: OSError) -> Exception:
    """sendfile has two ends: errors of the socket are the client's, all others the file's."""
    if isinstance(cause, ConnectionError) or cause.errno in (
        errno.EPIPE,
        errno.ENOTCONN,
        errno.EBADF,
        errno.ETIMEDOUT,
    ):
        return Gone()
    return ReadFailed(cause)
