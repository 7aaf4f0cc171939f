"""The spool: local files that fills grow in, bounded in size.

Not a cache: a file leaves with its last reader. What a killed process left behind is kept for a day and continued
by the next fill of the same digest, which hashes what lies there before it trusts a byte of it.

Rules:
1. Space is reserved from the blob's size before the first byte; a reservation ends when the file is closed.
2. A file is named after its digest and locked (flock) while its process lives: an unlocked one is a leftover. Several
   processes may share the folder: whoever has the lock of a leftover continues or removes it, nobody else does.
3. Readers hold the descriptor, so the name may go at any time (the store may have linked it into place).
4. All disk work runs in the spool's own threads, never on the loop.
"""

import asyncio
import fcntl
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from msrcache.oci.digest import Digest
from msrcache.oci.errors import RegistryError
from msrcache.oci.registry import FileSpan
from msrcache.telemetry.logs import get_logger

SUFFIX = ".spool"
LEFTOVER_AGE = 24 * 3600.0
"""Seconds after which what a dead process left is dropped instead of continued."""

READ = 1 << 20
NICER = 5
"""How much lower than the loop's the priority of the spool's threads is."""

T = TypeVar("T")

log = get_logger(__name__)


class SpoolFull(Exception):
    """There is no room for a file of this size: the pull is passed through instead. `missing` bytes would make it."""

    def __init__(self, text: str, *, missing: int = 0) -> None:
        super().__init__(text)
        self.missing = missing


@dataclass(slots=True)
class SpooledFile:
    """One growing file, open until it is released.

    ``length`` bytes of it were there when it was opened (a leftover's), unverified; ``written`` are right as far as
    the fill knows; ``keep`` says that they are worth continuing later.
    """

    fd: int
    path: Path
    digest: Digest
    length: int = 0
    reserved: int = 0
    written: int = 0
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that a dead process left."""

    path: Path
    length: int


class Spool:
    """A bounded folder of growing files."""

    def __init__(self, path: Path, *, size: int = 0, threads: int = 0, sharers: int = 1) -> None:
        """``size`` in bytes; 0: what the disk has free, less a tenth, for all ``sharers`` of the folder together.
        ``threads``; 0: by the cores.
        """
        self.path = path
        self.used = 0
        self._sharers = max(1, sharers)
        self._unwritten = 0
        self._size = size
        # More of them than cores would wait for each other, some with the interpreter in hand, and the loop with them.
        threads = threads or min(8, max(2, len(os.sched_getaffinity(0))))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="spool", initializer=_yield_to_the_loop)
        self._leftovers: dict[Digest, Leftover] = {}

    def __repr__(self) -> str:
        return f"<Spool {self.used} bytes reserved [{len(self._leftovers)} leftovers]>"

    async def run(self, work: Callable[[], T]) -> T:
        """Run disk work in the spool's threads. A cancelled caller waits for it: it is using a descriptor or a hasher
        that the caller is about to give up.
        """
        working = asyncio.get_running_loop().run_in_executor(self._pool, work)
        cancelled: asyncio.CancelledError | None = None
        while not working.done():
            try:
                await asyncio.wait({working})
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            working.exception()
            raise cancelled
        return working.result()

    async def start(self) -> None:
        """Make the folder and take stock of what dead processes left. Raises OSError when it cannot be written."""
        self._leftovers = await self.run(lambda: _take_stock(self.path))

    async def open(self, digest: Digest) -> SpooledFile:
        """A file for this digest: a leftover to be continued, or a new one. Raises OSError, SpoolFull (ENOSPC)."""
        leftover = self._leftovers.pop(digest, None)
        # A cancelled wait must not lose the descriptor that the thread is about to open.
        opening = asyncio.ensure_future(self.run(lambda: _open(self.path, digest, leftover)))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_unclaimed)
            raise

    def _close_unclaimed(self, opening: "asyncio.Future[SpooledFile]") -> None:
        if opening.cancelled() or opening.exception() is not None:
            return
        try:
            self._pool.submit(_remove, opening.result())
        except (
            RuntimeError
        ):  # closed meanwhile: there is no thread left, and no pull that could be kept waiting
            _remove(opening.result())

    async def reserve(self, file: SpooledFile, size: int) -> None:
        """Set aside room for the whole file. Raises SpoolFull with what is missing."""
        # What other fills have reserved and not yet written is not free, though the disk says so.
        free = await self.run(lambda: _free(self.path))
        if self._size and self.used + size > self._size:
            raise SpoolFull(
                f"spool {self.path}: {size} bytes wanted, {self._size - self.used} left of cache.spool.size",
                missing=self.used + size - self._size,
            )
        room = int(free * 0.9) // self._sharers - self._unwritten
        if size - file.length > room:
            raise SpoolFull(
                f"spool {self.path}: {size} bytes wanted, the disk has {free} free{self._for_all}",
                missing=size - file.length - room,
            )
        self.used += size
        self._unwritten += size - file.length
        file.reserved = size

    @property
    def _for_all(self) -> str:
        return f" for {self._sharers} workers" if self._sharers > 1 else ""

    def wrote(self, count: int) -> None:
        """``count`` reserved bytes have reached the disk: they now count as used there."""
        self._unwritten -= count

    async def release(self, file: SpooledFile) -> None:
        """Close the file, and remove it unless it is to be kept. Nobody may be reading it."""
        self.used -= file.reserved
        if file.reserved:
            self._unwritten -= max(0, file.reserved - max(file.written, file.length))
        keep = file.keep and file.written > 0
        if keep:
            self._leftovers[file.digest] = Leftover(file.path, file.written)
        try:
            await asyncio.shield(self.run(partial(_close, file, keep=keep)))
        except OSError as error:  # nobody's pull fails because its spool file could not be removed
            log.warning("spool file not removed", path=str(file.path), error=str(error))

    async def read(self, part: FileSpan) -> AsyncIterator[bytes]:
        """The bytes of a part of an open file, for those who cannot use sendfile. Raises OSError."""
        offset = part.start
        while offset < part.stop:
            count = min(READ, part.stop - offset)
            data = await self.run(partial(os.pread, part.fd, count, offset))
            if not data:
                raise OSError(f"the file ends at byte {offset}, {part.stop} were there")
            offset += len(data)
            yield data

    async def close(self) -> None:
        """End the threads once what they are doing is done."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)


def _yield_to_the_loop() -> None:
    """Where cores are few, a thread that hashes must not be what a reader's next byte waits for.

    Linux takes a thread's id here, and lets everybody be nicer.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICER)


def _take_stock(path: Path) -> dict[Digest, Leftover]:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f".probe-{secrets.token_hex(4)}"
    probe.touch(mode=0o600)
    probe.unlink()
    found: dict[Digest, Leftover] = {}
    for entry in path.glob(f"*{SUFFIX}"):
        digest = _digest_of(entry)
        if digest is None or (fd := _locked(entry)) is None:
            continue
        try:
            status = os.fstat(fd)
            # Linked: the store has it under its own name, and a writer would change the store's object.
            shared = status.st_nlink > 1
            if (
                digest in found
                or shared
                or not status.st_size
                or time.time() - status.st_mtime > LEFTOVER_AGE
            ):
                entry.unlink(missing_ok=True)
            elif status.st_nlink:  # else another process took stock too
                found[digest] = Leftover(entry, status.st_size)
        finally:
            os.close(fd)
    return found


def _digest_of(path: Path) -> Digest | None:
    try:
        algorithm, _, rest = path.name.partition("-")
        return Digest.parse(f"{algorithm}:{rest.split('.')[0]}")
    except RegistryError:
        return None


def _locked(path: Path) -> int | None:
    """A descriptor that shares the file's lock; None where a process that lives has it, or the file is not ours.

    Shared, because workers take stock at once: one must not look to the other like a fill that lives.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None  # gone, or another account's: not ours to judge
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _open(folder: Path, digest: Digest, leftover: Leftover | None) -> SpooledFile:
    if leftover is not None:
        reopened = _reopen(digest, leftover)
        if reopened is not None:
            return reopened
    while True:
        path = folder / f"{digest.algorithm}-{digest.hex}.{secrets.token_hex(4)}{SUFFIX}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        file = SpooledFile(fd, path, digest)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return file
        except OSError:
            _remove(file)
            raise
        os.close(fd)  # taken for an empty leftover by a process that just started, before it was locked


def _reopen(digest: Digest, leftover: Leftover) -> SpooledFile | None:
    try:
        fd = os.open(leftover.path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        if status.st_nlink != 1:  # the store has linked it: to shorten it would shorten the store's object
            _remove(SpooledFile(fd, leftover.path, digest))
            return None
        # One byte less, so that there is always a byte to ask for and "bytes=n-" is never past the end.
        os.ftruncate(fd, max(0, min(leftover.length, status.st_size) - 1))
        return SpooledFile(fd, leftover.path, digest, length=os.fstat(fd).st_size)
    except OSError:
        os.close(fd)  # another process was faster
        return None


def _close(file: SpooledFile, *, keep: bool) -> None:
    if keep:
        os.close(file.fd)
    else:
        _remove(file)


def _remove(file: SpooledFile) -> None:
    try:
        file.path.unlink(missing_ok=True)
    finally:
        os.close(file.fd)


def _free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
