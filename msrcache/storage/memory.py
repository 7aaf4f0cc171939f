"""The memory driver: objects in this process, for tests and for trying the cache out.

    storage:
      inmemory: {}

Two instances over one Contents are two replicas over one store. A Faults, given by a test, stands before and after
each call: it may raise, wait for a barrier, or count.
"""

import asyncio
import itertools
import os
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

from msrcache.oci.ranges import Span
from msrcache.storage.driver import ObjectInfo, SpoolFile, StreamContent
from msrcache.storage.errors import NotFound, RangeNotSatisfiable, StorageError, from_os_error
from msrcache.storage.parameters import Parameters

CHUNK: Final = 64 * 1024

NAME: Final = "inmemory"


def make(parameters: Mapping[str, object]) -> "Memory":
    """The driver. Raises ParameterError: it takes none."""
    Parameters(NAME, parameters).done()
    return Memory()


class Faults(Protocol):
    """What a test does to the calls of a driver. `operation` is the method's name; write, commit and read too."""

    async def before(self, operation: str, key: str) -> None:
        """Before it takes effect: what is raised here did not happen."""
        ...

    async def after(self, operation: str, key: str) -> None:
        """After it took effect: what is raised here is a lost reply."""
        ...


class _NoFaults:
    async def before(self, operation: str, key: str) -> None: ...

    async def after(self, operation: str, key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    info: ObjectInfo


@dataclass(slots=True)
class Contents:
    """What several instances share. Time stamps count the changes, so order shows and no test waits for a clock."""

    objects: dict[str, _Object] = field(default_factory=dict)
    staged: dict[float, bool] = field(default_factory=dict)
    """What writers hold, by number; whether the writer lives."""
    listed: dict[str, _Object] | None = None
    """What list sees instead, while it lags."""
    checksums: bool = False
    """Whether a checksum of each object is told, as some services do."""
    numbers: Iterator[float] = field(default_factory=itertools.count)
    """Where the time stamps come from; no two are equal."""

    def lag(self) -> None:
        """From now on list sees what is here now."""
        self.listed = dict(self.objects)

    def catch_up(self) -> None:
        """list sees everything again."""
        self.listed = None

    def store(self, key: str, data: bytes) -> ObjectInfo:
        """Put it there, whole."""
        number = next(self.numbers)
        checksum = f"crc32:{zlib.crc32(data):08x}" if self.checksums else None
        info = ObjectInfo(len(data), float(number), etag=f"{number}", checksum=checksum)
        self.objects[key] = _Object(data, info)
        return info


class Memory:
    """Implements Driver over Contents."""

    def __init__(self, contents: Contents | None = None, *, faults: Faults | None = None) -> None:
        self.name = NAME
        self.create_is_exclusive = True
        self.contents = contents or Contents()
        self.faults: Faults = faults or _NoFaults()

    def __repr__(self) -> str:
        return f"<Memory [{len(self.contents.objects)} objects]>"

    def twin(self) -> "Memory":
        """As Twin."""
        return Memory(self.contents, faults=self.faults)

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        await self.faults.before("stat", key)
        info = self._find(key).info
        await self.faults.after("stat", key)
        return info

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[StreamContent]:
        """As Driver; the content is a stream."""
        await self.faults.before("open", key)
        found = self._find(key)
        if span is None:
            span = Span.whole(found.info.size)
        elif span.start >= found.info.size:
            raise RangeNotSatisfiable(self.name, key, size=found.info.size)
        span = Span(span.start, min(span.stop, found.info.size))
        await self.faults.after("open", key)
        async with aclosing(self._chunks(key, found.data, span)) as chunks:
            yield StreamContent(found.info, span, chunks)

    async def put(self, key: str, data: bytes) -> None:
        """As Driver."""
        await self.faults.before("put", key)
        self.contents.store(key, data)
        await self.faults.after("put", key)

    async def create(self, key: str, data: bytes) -> bool:
        """As Driver."""
        await self.faults.before("create", key)
        made = key not in self.contents.objects
        if made:
            self.contents.store(key, data)
        await self.faults.after("create", key)
        return made

    def writer(self, key: str) -> "MemoryWriter":
        """As Driver."""
        return MemoryWriter(self, key)

    async def delete(self, *keys: str) -> None:
        """As Driver."""
        for key in keys:
            await self.faults.before("delete", key)
            self.contents.objects.pop(key, None)
            await self.faults.after("delete", key)

    async def delete_version(self, key: str, info: ObjectInfo) -> None:
        """As Versioned."""
        await self.faults.before("delete", key)
        found = self.contents.objects.get(key)
        if found is not None and found.info.etag == info.etag:
            del self.contents.objects[key]
        await self.faults.after("delete", key)

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """As Driver; lags while Contents does."""
        await self.faults.before("list", prefix)
        objects = self.contents.objects if self.contents.listed is None else self.contents.listed
        below = f"{prefix}/" if prefix else ""
        for key, found in list(objects.items()):
            if key.startswith(below):
                yield key, found.info
        await self.faults.after("list", prefix)

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """None."""
        del key, ttl, endpoint
        return None

    async def sweep(self, older_than: float) -> int:
        """As Driver; whatever is staged here has just been."""
        await self.faults.before("sweep", "")
        if older_than > 0:
            return 0
        dead = [number for number, living in self.contents.staged.items() if not living]
        for number in dead:
            del self.contents.staged[number]
        return len(dead)

    async def close(self) -> None:
        """As Driver."""

    def _find(self, key: str) -> _Object:
        try:
            return self.contents.objects[key]
        except KeyError as error:
            raise NotFound(self.name, key) from error

    async def _chunks(self, key: str, data: bytes, span: Span) -> AsyncGenerator[bytes, None]:
        for start in range(span.start, span.stop, CHUNK):
            await self.faults.before("read", key)
            yield data[start : min(span.stop, start + CHUNK)]
            await self.faults.after("read", key)


class MemoryWriter:
    """Implements Writer."""

    def __init__(self, driver: Memory, key: str) -> None:
        self._driver = driver
        self._key = key
        self._data = bytearray()
        self._number: float | None = None
        self._ended = False

    def __repr__(self) -> str:
        return f"<MemoryWriter {len(self._data)} bytes to {self._key}>"

    async def __aenter__(self) -> Self:
        await self._driver.faults.before("writer", self._key)
        self._number = next(self._driver.contents.numbers)
        self._driver.contents.staged[self._number] = True
        await self._driver.faults.after("writer", self._key)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.abort()

    async def write(self, source: SpoolFile, span: Span) -> None:
        """As Writer."""
        self._still_open()
        if span.start != len(self._data):
            raise StorageError(NAME, self._key, None, "spans must follow each other in one file")
        await self._driver.faults.before("write", self._key)
        fd = os.dup(source.fd)
        try:
            data = await asyncio.to_thread(_read, fd, span)
        except OSError as error:
            raise from_os_error(NAME, self._key, error, writing=True) from error
        finally:
            os.close(fd)
        self._data += data
        await self._driver.faults.after("write", self._key)

    async def commit(self) -> ObjectInfo:
        """As Writer."""
        self._still_open()
        await self._driver.faults.before("commit", self._key)
        info = self._driver.contents.store(self._key, bytes(self._data))
        self._end()
        await self._driver.faults.after("commit", self._key)
        return info

    async def abort(self) -> None:
        """As Writer."""
        self._end()

    def die(self) -> None:
        """As if the process had been killed: what is staged stays."""
        if self._number is not None:
            self._driver.contents.staged[self._number] = False
        self._ended = True

    def _still_open(self) -> None:
        if self._ended:
            raise StorageError(NAME, self._key, None, "the writer has ended")

    def _end(self) -> None:
        if not self._ended and self._number is not None:
            self._driver.contents.staged.pop(self._number, None)
        self._ended = True


def _read(fd: int, span: Span) -> bytes:
    data = os.pread(fd, span.size, span.start)
    while len(data) < span.size:
        more = os.pread(fd, span.size - len(data), span.start + len(data))
        if not more:
            raise OSError(
                5, f"the spool file ends at byte {span.start + len(data)}, {span.stop} were promised"
            )
        data += more
    return data
