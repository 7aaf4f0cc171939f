"""What the clauses need of a driver under test: new instances on one store, and what a killed writer leaves.

A harness stands for one store. Every call of `driver` gives a new instance, as another replica would have it.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from msrcache.oci.ranges import Span
from msrcache.storage.driver import Content, Driver, FileContent, ObjectInfo, SpoolFile
from msrcache.storage.filesystem import BATCH, Filesystem
from msrcache.storage.memory import Contents, Memory, MemoryWriter
from msrcache.storage.staging import STAGING


class Harness(Protocol):
    """One store to test drivers on."""

    part: int
    """Bytes that the driver's writer sends at once; 0 where it sends none apart."""
    presigns: bool
    """Whether the driver has URLs."""
    page: int
    """Objects that the driver gets in one answer at most when it lists."""

    def driver(self) -> Driver:
        """A new instance."""
        ...

    async def leave_dead_writer(self, key: str) -> None:
        """Leave what a writer that was killed leaves."""
        ...

    async def leftovers(self) -> int:
        """How many things stand in the store that are no objects: what writers hold, living or dead."""
        ...


class MemoryHarness:
    """A store in memory."""

    part = 64 * 1024
    presigns = False
    page = 1000

    def __init__(self) -> None:
        self.contents = Contents()

    def driver(self) -> Driver:
        """As Harness."""
        return Memory(self.contents)

    async def leave_dead_writer(self, key: str) -> None:
        """As Harness."""
        writer = MemoryWriter(Memory(self.contents), key)
        await writer.__aenter__()
        writer.die()

    async def leftovers(self) -> int:
        """As Harness."""
        return len(self.contents.staged)


class FolderHarness:
    """A store in a folder."""

    part = 64 * 1024
    presigns = False
    page = BATCH

    def __init__(self, root: Path) -> None:
        self.root = root

    def driver(self) -> Driver:
        """As Harness."""
        return Filesystem(self.root, threads=8)

    async def leave_dead_writer(self, key: str) -> None:
        """A staged file that no process has locked."""
        folder = self.root / STAGING
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "of-a-dead-writer").write_bytes(key.encode())

    async def leftovers(self) -> int:
        """As Harness."""
        folder = self.root / STAGING
        return len(list(folder.iterdir())) if folder.is_dir() else 0


class Spooler:
    """Makes spool files, with the bytes in them or growing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[SpoolFile] = []

    def __call__(self, data: bytes = b"") -> SpoolFile:
        """A new spool file with these bytes."""
        path = self._folder / f"{len(self._files)}.spool"
        file = SpoolFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), path)
        self._files.append(file)
        self.grow(file, data)
        return file

    def grow(self, file: SpoolFile, data: bytes) -> None:
        """More bytes at its end."""
        os.pwrite(file.fd, data, os.fstat(file.fd).st_size)

    def drop(self, file: SpoolFile) -> None:
        """As the spool does when nobody needs the file any more."""
        self._files.remove(file)
        file.path.unlink()
        os.close(file.fd)

    def close(self) -> None:
        """Drop all."""
        for file in tuple(self._files):
            self.drop(file)


async def read(driver: Driver, key: str, span: Span | None = None) -> bytes:
    """What open() gives, whole, whichever kind of content it is."""
    async with driver.open(key, span) as content:
        return await rest(content)


async def rest(content: Content) -> bytes:
    """The bytes of an open object."""
    if isinstance(content, FileContent):
        data = await asyncio.to_thread(os.pread, content.fd, content.span.size, content.span.start)
    else:
        data = b"".join([chunk async for chunk in content.chunks])
    assert len(data) == content.span.size, "the content is not as long as its span says"
    return data


async def write(driver: Driver, key: str, file: SpoolFile, *, spans: int = 1) -> ObjectInfo:
    """Write a spool file whole, in so many spans."""
    size = os.fstat(file.fd).st_size
    edges = [size * number // spans for number in range(spans + 1)]
    async with driver.writer(key) as writer:
        for start, stop in itertools.pairwise(edges):
            await writer.write(file, Span(start, stop))
        return await writer.commit()


async def keys(items: AsyncIterator[tuple[str, ObjectInfo]]) -> list[str]:
    """The keys of a listing, in order."""
    return sorted([key async for key, _ in items])


def pattern(size: int, *, seed: int = 0) -> bytes:
    """Bytes in which every position is known: no two parts of it look alike."""
    block = b"".join((number * 2654435761 + seed & 0xFFFFFFFF).to_bytes(4, "big") for number in range(1024))
    line = b"".join(block[:-8] + number.to_bytes(8, "big") for number in range(size // len(block) + 1))
    return line[:size]
