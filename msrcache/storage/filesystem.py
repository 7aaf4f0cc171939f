"""The filesystem driver: objects are files below a folder that all replicas share (or one replica has alone).

    storage:
      filesystem:
        rootdirectory: /var/lib/registry   # one file system, local or NFS
        maxthreads: 100                    # disk calls at once; below 25 becomes 25, as in Docker Registry
        nfs: auto                          # true, false, or auto: the mount's type says it

The layout is the keys' own, so Docker Registry reads what is written here and the other way round.
All disk work runs in threads of its own, at most `maxthreads`: a disk that hangs takes these, not the loop.
On NFS what the kernel says of names is doubted (`lookups`), and what a client renames instead of removing while
it is open (.nfs…) is no object.
Not here: the threads (`disk`), how files are staged and published (`staging`, `filewriter`), deadlines and
retries (`store`).
"""

import itertools
import os
import stat as modes
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from msrcache.oci.ranges import Span
from msrcache.storage.disk import Disk
from msrcache.storage.driver import REPLACED, FileContent, ObjectInfo
from msrcache.storage.errors import NotFound, RangeNotSatisfiable
from msrcache.storage.filewriter import FileWriter
from msrcache.storage.lookups import GONE, SILLY, Lookups
from msrcache.storage.parameters import Parameters
from msrcache.storage.situation import situation
from msrcache.storage.staging import STAGING, Staging

DEFAULT_ROOT: Final = "/var/lib/registry"
DEFAULT_THREADS: Final = 100
FEWEST_THREADS: Final = 25

BATCH: Final = 512
"""Objects per step of a listing."""

_OURS: Final = frozenset({STAGING, "msrcache/spool"})
"""Folders below the root that hold no objects."""


def make(parameters: Mapping[str, object]) -> "Filesystem":
    """The driver for these parameters. Raises ParameterError."""
    given = Parameters("filesystem", parameters)
    root = given.text("rootdirectory", DEFAULT_ROOT)
    threads = given.whole("maxthreads", DEFAULT_THREADS)
    told = given.text("nfs", "auto").lower()
    nfs = None if told == "auto" else given.flag("nfs", default=False)
    given.done()
    if not root.startswith("/"):
        raise given.wrong("rootdirectory", "should be an absolute path")
    return Filesystem(Path(root), threads=max(FEWEST_THREADS, threads), nfs=nfs)


class Filesystem:
    """Implements Driver over a folder."""

    def __init__(self, root: Path, *, threads: int = DEFAULT_THREADS, nfs: bool | None = None) -> None:
        """`nfs`: whether the folder is on a file server; None finds out."""
        self.name = "filesystem"
        self.create_is_exclusive = True
        self.root = root
        self.lookups = Lookups(root, nfs=nfs)
        self._staging = Staging(root, self.lookups)
        self._disk = Disk("filesystem", threads=threads)

    def __repr__(self) -> str:
        return f"<Filesystem {self.root} {self._disk!r}>"

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        return await self._disk.run(key, lambda: self._stat(key))

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[FileContent]:
        """As Driver; the content is always a file."""
        content = await self._disk.run(key, lambda: self._open(key, span), dispose=_close)
        try:
            yield content
        finally:
            # Nobody waits for this close, so nobody's cancellation can lose it.
            self._disk.submit(lambda: _close(content))

    async def put(self, key: str, data: bytes) -> None:
        """As Driver."""

        def work() -> None:
            with self._staging.staged() as staged:
                self._staging.write(staged, data)
                self._staging.replace(staged.path, self.path(key))

        await self._disk.run(key, work, writing=True)

    async def create(self, key: str, data: bytes) -> bool:
        """As Driver; settled by the count of names where the file server's reply was lost."""

        def work() -> bool:
            with self._staging.staged() as staged:
                self._staging.write(staged, data)
                return self._staging.create(staged, self.path(key))

        return await self._disk.run(key, work, writing=True)

    def writer(self, key: str) -> "FileWriter":
        """As Driver."""
        return FileWriter(self._disk, self._staging, key)

    async def delete(self, *keys: str) -> None:
        """As Driver."""
        for key in keys:
            await self._disk.run(key, partial(self._staging.remove, self.path(key)), writing=True)

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """As Driver; objects that vanish meanwhile are left out."""
        prefix = prefix.strip("/")
        walk = _walk(self.path(prefix), prefix)
        last = False
        while not last:
            batch, last = await self._disk.run(prefix, lambda: _batch(walk))
            for item in batch:
                yield item

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """None: files have no URL."""
        del key, ttl, endpoint
        return None

    async def sweep(self, older_than: float) -> int:
        """As Driver; a writer of any process that shares the file locks lives."""
        return await self._disk.run(STAGING, lambda: self._staging.sweep(older_than), writing=True)

    async def close(self) -> None:
        """As Driver. Waits some seconds for what the disk is doing."""
        await self._disk.close()

    async def situation(self) -> Sequence[str]:
        """As Situated: what the mount promises."""
        return await self._disk.run("", lambda: situation(self.root))

    def path(self, key: str) -> Path:
        """Where the object stands."""
        return self.root / key

    def _stat(self, key: str) -> ObjectInfo:
        return _info(self.lookups.at(self.path(key), Path.stat, presence=True), key, self.name)

    def _open(self, key: str, span: Span | None) -> FileContent:
        fd, status = self._newest(self.path(key))
        try:
            info = _info(status, key, self.name)
            if span is None:
                return FileContent(info, Span.whole(info.size), fd)
            if span.start >= info.size:
                raise RangeNotSatisfiable(self.name, key, size=info.size)
            return FileContent(info, Span(span.start, min(span.stop, info.size)), fd)
        except BaseException:
            os.close(fd)
            raise

    def _newest(self, path: Path) -> tuple[int, os.stat_result]:
        """The file that stands there, open; not the one before, which somebody may still read (`lookups`)."""
        fd, status = self.lookups.at(path, _open_to_read)
        if status.st_size > REPLACED or not self.lookups.remembers_presence:
            return fd, status
        try:
            if os.path.samestat(status, self.lookups.at(path, Path.stat, presence=True)):
                return fd, status
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return self.lookups.at(path, _open_to_read)


def _walk(top: Path, prefix: str) -> Iterator[list[tuple[str, ObjectInfo]]]:
    """The objects of one folder after the other; no folder stays open between two steps."""
    folders = [(top, prefix)]
    while folders:
        folder, key = folders.pop()
        found: list[tuple[str, ObjectInfo]] = []
        for entry in _entries(folder):
            below = f"{key}/{entry.name}" if key else entry.name
            try:
                if not entry.is_dir(follow_symlinks=False):
                    found += _objects(entry, below)
                elif below not in _OURS:
                    folders.append((Path(entry.path), below))
            except OSError as error:
                if error.errno not in GONE:  # deleted since the folder was read
                    raise
        yield found


def _objects(entry: os.DirEntry[str], key: str) -> Iterator[tuple[str, ObjectInfo]]:
    """The object that an entry is, if it is one."""
    status = entry.stat()
    if modes.S_ISREG(status.st_mode) and not SILLY.fullmatch(entry.name):
        yield key, ObjectInfo(status.st_size, status.st_mtime)


def _batch(walk: Iterator[list[tuple[str, ObjectInfo]]]) -> tuple[list[tuple[str, ObjectInfo]], bool]:
    """Some objects, and whether they are the last: one step for a thread, whatever the shape of the tree."""
    batch: list[tuple[str, ObjectInfo]] = []
    for found in itertools.islice(walk, BATCH):
        batch += found
        if len(batch) >= BATCH:
            return batch, False
    found_more = next(walk, None)
    return (batch, True) if found_more is None else (batch + found_more, False)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        if error.errno not in GONE:
            raise
        return []


def _open_to_read(path: Path) -> tuple[int, os.stat_result]:
    # O_NONBLOCK: opening a FIFO that somebody put there must not hang a thread.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return fd, os.fstat(fd)
    except BaseException:
        os.close(fd)
        raise


def _info(status: os.stat_result, key: str, driver: str) -> ObjectInfo:
    if not modes.S_ISREG(status.st_mode):
        raise NotFound(driver, key, None, "no file stands there")
    return ObjectInfo(status.st_size, status.st_mtime)


def _close(content: FileContent) -> None:
    os.close(content.fd)
