"""A driver over the memory driver that does everything right: saboteurs override one thing of it.

Each saboteur is named for the clause that has to notice it. It gets what its store's instances share, because
replicas can be wrong together.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from msrcache.oci.ranges import Span
from msrcache.storage.driver import Content, ObjectInfo, SpoolFile, Writer
from msrcache.storage.memory import Memory
from tests.contract.harness import MemoryHarness


class Honest:
    """Passes every call on."""

    def __init__(self, inner: Memory, shared: dict[str, Any]) -> None:
        self.inner = inner
        self.shared = shared
        self.name = inner.name
        self.create_is_exclusive = True

    async def stat(self, key: str) -> ObjectInfo:
        return await self.inner.stat(key)

    def open(self, key: str, span: Span | None = None) -> AbstractAsyncContextManager[Content]:
        return self.inner.open(key, span)

    async def put(self, key: str, data: bytes) -> None:
        await self.inner.put(key, data)

    async def create(self, key: str, data: bytes) -> bool:
        return await self.inner.create(key, data)

    def writer(self, key: str) -> Writer:
        return self.inner.writer(key)

    async def delete(self, *keys: str) -> None:
        await self.inner.delete(*keys)

    def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        return self.inner.list(prefix)

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        return await self.inner.presign(key, ttl, endpoint=endpoint)

    async def sweep(self, older_than: float) -> int:
        return await self.inner.sweep(older_than)

    async def close(self) -> None:
        await self.inner.close()

    def holds(self, key: str) -> bool:
        """Whether something stands there."""
        return key in self.inner.contents.objects

    def bytes_of(self, key: str) -> bytes:
        """What stands there; nothing where nothing does."""
        found = self.inner.contents.objects.get(key)
        return b"" if found is None else found.data


class HonestWriter:
    """Passes every call on to a memory writer."""

    def __init__(self, driver: Honest, key: str) -> None:
        self.driver = driver
        self.key = key
        self.inner = driver.inner.writer(key)

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.inner.__aexit__(kind, error, trace)

    async def write(self, source: SpoolFile, span: Span) -> None:
        await self.inner.write(source, span)

    async def commit(self) -> ObjectInfo:
        return await self.inner.commit()

    async def abort(self) -> None:
        await self.inner.abort()


class SabotagedHarness(MemoryHarness):
    """A store whose every instance has the same saboteur in it."""

    def __init__(self, saboteur: type[Honest]) -> None:
        super().__init__()
        self._saboteur = saboteur
        self._shared: dict[str, Any] = {}

    def driver(self) -> Honest:
        """As Harness."""
        return self._saboteur(Memory(self.contents), self._shared)


SABOTEURS: dict[str, type[Honest]] = {}
"""By the clause that has to notice them."""

S = TypeVar("S", bound=type[Honest])
W = TypeVar("W", bound=type[HonestWriter])


def noticed_by(clause: str) -> Callable[[S], S]:
    """Register a saboteur."""

    def register(saboteur: S) -> S:
        assert clause not in SABOTEURS, f"{clause} has its saboteur"
        SABOTEURS[clause] = saboteur
        return saboteur

    return register


def writer_noticed_by(clause: str) -> Callable[[W], W]:
    """Register a saboteur that spoils the writer alone."""

    def register(writer: W) -> W:
        class Spoiled(Honest):
            def writer(self, key: str) -> Writer:
                return writer(self, key)

        noticed_by(clause)(Spoiled)
        return writer

    return register
