"""Where a store is put to the proof: two drivers on it, a folder of keys that is emptied at the end, and what shows.

`here` writes and `there` reads, over other connections or on another machine, so whatever is proved is proved between
replicas. Keys are noted before anything is written to them: whatever happens meanwhile, `clean` knows them.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from msrcache.oci.ranges import Span
from msrcache.storage.driver import Content, Driver, FileContent, ObjectInfo, SpoolFile
from msrcache.storage.errors import NotFound, StorageError, Unavailable
from msrcache.storage.watched import Ledger
from msrcache.telemetry.clock import Clock

PATIENCE: Final = 15.0
"""Seconds that cleaning waits for calls under way, at most one deadline."""

OLD: Final = 24 * 3600.0
"""Seconds after which nobody is at a probe any more."""


class Broken(Exception):
    """The store does not keep the promise; the text says what it did instead."""


class NotPromised(Exception):
    """The driver does not claim it; the text says why."""


class Stage:
    """One store under proof."""

    def __init__(
        self, here: Driver, there: Driver, *, prefix: str, ledger: Ledger, near: Driver | None = None
    ) -> None:
        """Whatever is written stands below `prefix`. `near` is another connection of this machine, where `there` is on
        another one.
        """
        self.here = here
        self.there = there
        self.near = near or there
        self.prefix = prefix
        self.ledger = ledger
        self._keys: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<Stage {self.prefix} [{len(self._keys)} keys]>"

    @property
    def clock(self) -> Clock:
        """This machine's."""
        return self.ledger.clock

    def key(self, name: str) -> str:
        """A key to write to."""
        key = f"{self.prefix}/{name}"
        self._keys[key] = None
        return key

    def beside(self, name: str) -> str:
        """A key to ask for or to delete, where nothing is written."""
        return f"{self.prefix}/{name}"

    async def write(self, driver: Driver, key: str, data: bytes) -> None:
        """Write an object with a writer, in three spans."""
        async with spooled(data) as file, driver.writer(key) as writer:
            for span in thirds(len(data)):
                await writer.write(file, span)
            await writer.commit()

    async def read(self, driver: Driver, key: str, span: Span | None = None) -> bytes:
        """What open() gives. Broken where it is not as long as it says."""
        async with driver.open(key, span) as content:
            data = await self.rest(content)
        if len(data) != content.span.size:
            raise Broken(f"open announced {content.span.size} bytes and brought {len(data)}")
        return data

    async def rest(self, content: Content) -> bytes:
        """The bytes of an open object."""
        async with asyncio.timeout(self.ledger.deadline):
            return await whole_of(content)

    async def shows(self, driver: Driver, key: str, data: bytes, *, after: str) -> None:
        """Broken where the driver does not show just these bytes there."""
        try:
            size = (await driver.stat(key)).size
            found = await self.read(driver, key)
        except NotFound:
            raise Broken(f"after {after} the object was not there") from None
        if size != len(data) or len(found) != len(data):
            raise Broken(f"after {after} of {len(data)} bytes, stat told {size} and open gave {len(found)}")
        if found != data:
            raise Broken(f"after {after} open gave other bytes than were written")

    async def misses(self, driver: Driver, key: str, *, what: str) -> None:
        """Broken where something is found. Opens first: the refusal of a HEAD has no body that could tell why."""
        for found_by in ("open", "stat"):
            with suppress(NotFound):
                if found_by == "stat":
                    await driver.stat(key)
                else:
                    await self.read(driver, key)
                raise Broken(f"{found_by} found {what}")

    async def clean(self) -> Sequence[str]:
        """Remove everything, and what a killed probe left more than OLD ago by the store's own stamps; the keys of
        ours that could not be removed. Never raises StorageError.
        """
        await self.ledger.settled(min(PATIENCE, self.ledger.deadline))
        before = await self._listed()
        await self._remove(list(self._keys))
        stray = [key for key in before if self._ours(key) and key not in self._keys]
        newest = max((info.modified for key, info in before.items() if self._ours(key)), default=0.0)
        old = [key for key, info in before.items() if not self._ours(key) and info.modified < newest - OLD]
        await self._remove([*stray, *old])
        return tuple(key for key in await self._listed() if self._ours(key))

    def _ours(self, key: str) -> bool:
        return key.startswith(f"{self.prefix}/")

    async def _remove(self, keys: Sequence[str]) -> None:
        """At once, or one by one where that is refused; a store that does not answer is not asked for each."""
        if not keys:
            return
        try:
            await self.here.delete(*keys)
        except Unavailable:
            return
        except StorageError:
            for key in keys:
                with suppress(StorageError):
                    await self.here.delete(key)

    async def _listed(self) -> Mapping[str, ObjectInfo]:
        """What all probes have in the store, as far as it tells."""
        with suppress(StorageError):
            return {key: info async for key, info in self.here.list(self.prefix.rpartition("/")[0])}
        return {}


async def whole_of(content: Content) -> bytes:
    """The bytes of a small open object."""
    if isinstance(content, FileContent):
        return await asyncio.to_thread(os.pread, content.fd, content.span.size, content.span.start)
    return b"".join([chunk async for chunk in content.chunks])


@asynccontextmanager
async def spooled(data: bytes) -> AsyncIterator[SpoolFile]:
    """A file of these bytes for a writer; in memory, so the loop waits for no disk."""
    fd = os.memfd_create("msrcache-probe", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield SpoolFile(fd, Path(f"/proc/{os.getpid()}/fd/{fd}"))
    finally:
        os.close(fd)


def thirds(size: int) -> list[Span]:
    """Three spans that follow each other (pure)."""
    edges = [size * number // 3 for number in range(4)]
    return [Span(edges[number], edges[number + 1]) for number in range(3)]
