"""The hot tier's folder: its blocking half. Everything here runs in threads of the tier's own.

    <path>/<n>/lock                  held (flock) by the one process that uses <n>
    <path>/<n>/<algorithm>-<hex>     a blob, whole
    <path>/<n>/<token>.incoming      one on its way in; whatever a dead process left of these is removed

Rules:
1. Processes share a path, never a subfolder: the first whose lock is free is taken, with what a former process left
   in it. So no process can change what another serves.
2. A blob appears by rename, whole. It is never written again.
3. What was found after a start is a name and a size, not yet a blob: it is hashed first (`verified`).
"""

import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from msrcache.oci.digest import Digest, Hasher
from msrcache.oci.errors import RegistryError
from msrcache.oci.ranges import Span
from msrcache.storage.staging import copy

SUBFOLDERS: Final = 256
INCOMING: Final = ".incoming"
LOCK: Final = "lock"
PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Stamp:
    """By which a file is known to be the one that was verified."""

    inode: int
    size: int
    changed: int


@dataclass(frozen=True, slots=True)
class Found:
    """A file that lay there at the start, unverified."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Opened:
    """An open blob."""

    fd: int
    stamp: Stamp

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


@dataclass(slots=True)
class Growing:
    """A file on its way in, and the hash of what is in it."""

    fd: int
    path: Path
    hasher: Hasher

    def append(self, chunks: Sequence[bytes]) -> None:
        """Write and hash the next bytes."""
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(self.fd, view) :]
            self.hasher.update(chunk)

    def discard(self) -> None:
        """Remove it, where it still has its first name, and let go of it."""
        try:
            self.path.unlink(missing_ok=True)
        finally:
            os.close(self.fd)


@dataclass(slots=True)
class LocalFolder:
    """One process's part of the tier's path."""

    path: Path
    own: Path | None = None
    _lock: int = -1
    _closing: bool = field(default=False)

    def claim(self) -> list[Found]:
        """Take a subfolder; what lies in it, longest unused first."""
        self.release()
        for number in range(SUBFOLDERS):
            folder = self.path / str(number)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (lock := _locked(folder)) is not None:
                self._lock, self.own = lock, folder
                return _take_stock(folder)
        raise OSError(errno.EBUSY, f"all {SUBFOLDERS} subfolders are used by other processes")

    def ours(self) -> bool:
        """Whether the subfolder is still the one that was claimed, and can be written. Raises OSError."""
        if self.own is None or self._lock < 0:
            return False
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._lock), (self.own / LOCK).stat()):
                self.begin("sha256").discard()
                return True
        return False

    def open(self, digest: Digest) -> Opened:
        """A blob for its readers, noted as used now."""
        fd = os.open(self._file(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            with suppress(OSError):  # only the order after a restart depends on it
                os.utime(fd, ns=(time.time_ns(), status.st_mtime_ns))
            return Opened(fd, _stamp(status))
        except BaseException:
            os.close(fd)
            raise

    def verified(self, digest: Digest) -> Stamp | None:
        """The stamp of a blob whose bytes were just found to be right; None where they are not."""
        fd = os.open(self._file(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            stamp = _stamp(os.fstat(fd))
            hashing = hashlib.new(digest.algorithm, usedforsecurity=False)
            offset = 0
            while data := os.pread(fd, PIECE, offset):
                if self._closing:
                    raise OSError(errno.ECANCELED, "the tier is being closed")
                hashing.update(data)
                offset += len(data)
            return stamp if hashing.hexdigest() == digest.hex and stamp == _stamp(os.fstat(fd)) else None
        finally:
            os.close(fd)

    def begin(self, algorithm: str) -> Growing:
        """A file to write a blob into."""
        path = self._folder() / f"{secrets.token_hex(8)}{INCOMING}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return Growing(os.open(path, flags, 0o600), path, Hasher(algorithm))

    def publish(self, growing: Growing, digest: Digest) -> Stamp:
        """Give a whole and verified file the blob's name."""
        growing.path.replace(self._file(digest))
        return _stamp(os.fstat(growing.fd))

    def adopt(self, digest: Digest, source: int, path: Path, size: int) -> Stamp:
        """Take a verified file, open as `source` and maybe still named `path`: a second name where that can be, else
        a copy.
        """
        target = self._folder() / f"{secrets.token_hex(8)}{INCOMING}"
        try:
            if not _linked(source, path, target):
                _copied(source, target, size)
            stamp = _stamp(target.stat())
            target.replace(self._file(digest))
            return stamp
        finally:
            target.unlink(missing_ok=True)

    def remove(self, digest: Digest) -> None:
        """Remove a blob; its readers keep it until they are done."""
        self._file(digest).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Empty the subfolders that no process uses any more; how many files went."""
        swept = 0
        for folder in sorted(self.path.iterdir()):
            if folder == self.own or not folder.name.isdigit() or (lock := _locked(folder)) is None:
                continue
            try:
                for file in folder.iterdir():
                    if file.name != LOCK:
                        file.unlink(missing_ok=True)
                        swept += 1
            finally:
                os.close(lock)
        return swept

    def release(self) -> None:
        """Let another process have the subfolder; what lies there stays."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock, self.own = -1, None

    def stop(self) -> None:
        """End what takes long."""
        self._closing = True

    def _folder(self) -> Path:
        if self.own is None:
            raise OSError(errno.ENOTCONN, "no subfolder is claimed")
        return self.own

    def _file(self, digest: Digest) -> Path:
        return self._folder() / f"{digest.algorithm}-{digest.hex}"


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None where another process does."""
    fd = os.open(folder / LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd


def _take_stock(folder: Path) -> list[Found]:
    found: list[tuple[int, Found]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            digest = _digest_of(entry.name)
            if entry.name.endswith(INCOMING):
                Path(entry.path).unlink(missing_ok=True)
            elif digest is not None and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                found.append((max(status.st_atime_ns, status.st_mtime_ns), Found(digest, status.st_size)))
    return [item for _, item in sorted(found, key=lambda pair: pair[0])]


def _digest_of(name: str) -> Digest | None:
    try:
        return Digest(*name.split("-", 1)) if "-" in name else None
    except RegistryError:
        return None


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def _linked(source: int, path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except OSError:
        return False  # another file system, or the name has gone
    if os.path.samestat(target.stat(), os.fstat(source)):
        return True
    target.unlink()
    return False


def _copied(source: int, target: Path, size: int) -> None:
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        copy(source, Span.whole(size), fd, 0)
    finally:
        os.close(fd)
