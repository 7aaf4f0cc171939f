"""Files staged and published inside one file system: the blocking half of the filesystem driver.

Rules:
1. An object is written to a file of its own below the staging folder, made durable, then published by rename
   (replaces) or link (only where nothing stands). A reader sees nothing or all of it.
2. A staged file is locked (flock) while its writer lives. What is not locked was left by a dead writer.
3. After publishing, the folder is made durable, and each folder that was made for it.
4. Folders that became empty go with their last object, so a publisher makes them again until it is faster.
5. Files are closed before they are removed: an NFS client would rename an open one and remove it later.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msrcache.oci.ranges import Span
from msrcache.storage.lookups import Lookups

STAGING: Final = "msrcache/staging"
"""Below the root; no key lies there."""

TRIES: Final = 100
"""How often a folder that others remove is made again."""

PIECE: Final = 8 << 20
"""Bytes per call when data is copied inside the kernel; 1/8 of it where it goes through memory."""

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_NO_COPY: Final = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF}
)


@dataclass(frozen=True, slots=True)
class Staged:
    """A staged file of ours, locked."""

    fd: int
    path: Path


class Staging:
    """Stages and publishes files below one root. `link` is a seam: tests lose its reply."""

    def __init__(self, root: Path, lookups: Lookups | None = None) -> None:
        self.root = root
        self.folder = root / STAGING
        self._lookups = lookups or Lookups(root)
        self._token = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._umask = _umask()
        self.link = os.link

    def __repr__(self) -> str:
        return f"<Staging {self.folder}>"

    def name(self) -> Path:
        """A name that no other replica uses."""
        return self.folder / f"{self._token}-{next(self._numbers)}"

    def device(self) -> int:
        """The file system that objects stand in; makes the staging folder."""
        try:
            return self.folder.stat().st_dev
        except FileNotFoundError:
            self._make_folders(self.folder)
            return self.folder.stat().st_dev

    @contextlib.contextmanager
    def staged(self) -> Iterator[Staged]:
        """A new staged file, gone when the context is left unless it was renamed."""
        staged = self.open()
        try:
            yield staged
        finally:
            discard(staged)

    def open(self) -> Staged:
        """A new staged file. A sweep may take the name between its making and its lock: then another."""
        for _ in range(TRIES):
            path = self.name()
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except OSError as error:
                _only_gone(error)
                self._make_folders(self.folder)
                continue
            if _lock(fd) and os.fstat(fd).st_nlink:
                return Staged(fd, path)
            os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))

    def write(self, staged: Staged, data: bytes) -> None:
        """Write all of it and make it durable."""
        view = memoryview(data)
        while view:
            view = view[os.write(staged.fd, view) :]
        os.fsync(staged.fd)

    def replace(self, staged: Path, target: Path) -> None:
        """Publish by rename."""
        made = self._publish(target, lambda: staged.replace(target))
        # Two names of one file: rename(2) then does nothing and leaves both.
        staged.unlink(missing_ok=True)
        _persist(target, made)

    def create(self, staged: Staged, target: Path) -> bool:
        """Publish where nothing stands; whether it was done.

        A file server may have made the link and lost its reply, or answer a repeated request with EEXIST: the
        count of names tells.
        """
        try:
            made = self._publish(target, lambda: self.link(staged.path, target))
        except OSError as error:
            if _names(staged.path) < 2:
                if error.errno != errno.EEXIST:
                    raise
                if target.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target)) from error
                return False
            made = []
        _persist(target, made)
        return True

    def adopt(self, fd: int, path: Path, target: Path) -> bool:
        """Publish the whole file `path`, open as `fd`, by linking it: no byte is copied.

        False where that cannot be: the file was renamed or removed, or the file system takes no second name.
        """
        staged = self.name()
        os.fsync(fd)
        try:
            self.link(path, staged)
        except OSError:
            return False
        try:
            if not os.path.samestat(staged.stat(), os.fstat(fd)):
                return False
            # Docker Registry, maybe of another account, is to read what we wrote as if it were its own.
            os.fchmod(fd, 0o666 & ~self._umask)
            self.replace(staged, target)
        finally:
            staged.unlink(missing_ok=True)
        return True

    def remove(self, target: Path) -> None:
        """Remove an object if it is there, and the folders that this empties."""
        try:
            self._lookups.at(target, Path.unlink)
        except (FileNotFoundError, NotADirectoryError):
            return
        except (IsADirectoryError, PermissionError):
            if target.is_dir():
                return  # no object
            raise
        for folder in target.parents:
            if folder == self.root:
                return
            try:
                folder.rmdir()
            except OSError:
                return  # somebody else's objects, or somebody else was faster

    def sweep(self, older_than: float) -> int:
        """Remove staged files that nobody holds; ages by the file system's own clock."""
        if not self.folder.is_dir():
            return 0
        with self.staged() as own:
            now = os.fstat(own.fd).st_mtime
            with os.scandir(self.folder) as entries:
                names = [Path(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False)]
            return sum(_remove_dead(path, before=now - older_than) for path in names if path != own.path)

    def _publish(self, target: Path, publish: Callable[[], object]) -> list[Path]:
        """The folders that were made for it."""
        made: list[Path] = []
        for _ in range(TRIES):
            try:
                publish()
            except OSError as error:
                _only_gone(error)
                made += self._make_folders(target.parent)
            else:
                return made
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target))

    def _make_folders(self, folder: Path) -> list[Path]:
        above = (folder, *folder.parents)
        missing: list[Path] = []
        try:
            missing += itertools.takewhile(lambda path: not path.exists(), above)
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # also when it was there and then was not
            if any(path.exists() and not path.is_dir() for path in above):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
        except OSError as error:
            _only_gone(
                error
            )  # another replica may remove a parent that is empty for now: the caller tries again
        return missing


def copy(source: int, span: Span, target: int, at: int) -> None:
    """Copy a span of one file to `at` in another without bringing it into memory where the kernel can.

    Raises OSError(EIO) when the source is shorter than promised.
    """
    offset, shift = span.start, at - span.start
    ways = [_copy_in_kernel, _send, _read_and_write]
    while offset < span.stop:
        try:
            done = ways[0](source, target, offset, shift, span.stop - offset)
        except OSError as error:
            if error.errno not in _NO_COPY or len(ways) == 1:
                raise
            del ways[0]
            continue
        if not done:
            raise OSError(errno.EIO, f"the spool file ends at byte {offset}, {span.stop} were promised")
        offset += done


def discard(staged: Staged) -> None:
    """Let go of a staged file, and remove it if it is still there (a sweep may have been faster)."""
    try:
        os.close(staged.fd)
    finally:
        staged.path.unlink(missing_ok=True)


def persist_folder(folder: Path) -> None:
    """Make a folder's entries durable; one that has vanished has none."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems have no such call for folders
            raise
    finally:
        os.close(fd)


def _only_gone(error: OSError) -> None:
    """Raise what says anything else than that a folder is gone (ESTALE: others made it anew)."""
    if error.errno not in {errno.ENOENT, errno.ESTALE}:
        raise error


def _persist(target: Path, made: list[Path]) -> None:
    persist_folder(target.parent)
    for folder in made:
        persist_folder(folder.parent)


def _names(path: Path) -> int:
    """How many names a file has. By opening it: what was known of it before may be older than the last link."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(fd).st_nlink
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Whether the file is ours now. Where a file system has no locks, age alone decides."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def _remove_dead(path: Path, *, before: float) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False  # gone, or another account's
    try:
        status = os.fstat(fd)
        if status.st_mtime > before or not _lock(fd):
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    finally:
        os.close(fd)
    return True


def _copy_in_kernel(source: int, target: int, offset: int, shift: int, left: int) -> int:
    return os.copy_file_range(source, target, min(left, PIECE), offset, offset + shift)


def _send(source: int, target: int, offset: int, shift: int, left: int) -> int:
    os.lseek(target, offset + shift, os.SEEK_SET)
    return os.sendfile(target, source, offset, min(left, PIECE))


def _read_and_write(source: int, target: int, offset: int, shift: int, left: int) -> int:
    return os.pwrite(target, os.pread(source, min(left, PIECE // 8), offset), offset + shift)


def _umask() -> int:
    """The process's umask; asking for it with umask(2) would change it for every thread meanwhile."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022
