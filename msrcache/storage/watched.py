"""A driver that notes each of its calls, with a deadline for each: what a check of a store is made with.

Rules:
1. A call that nobody waits for any more (deadline, cancellation) goes on, and `settled` waits for it: only then can
   what it wrote be removed.
2. What is noted is operation, seconds and failure; never a byte.
Not here: retries, the breaker, metrics (`calls`): a check wants to see the store as it is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from msrcache.oci.ranges import Span
from msrcache.storage.driver import Content, Driver, ObjectInfo, SpoolFile, Writer
from msrcache.storage.errors import StorageError, Unavailable, from_os_error
from msrcache.telemetry.clock import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it ended."""

    operation: str
    seconds: float
    error: StorageError | None = None


@dataclass(slots=True)
class Ledger:
    """The calls of several drivers."""

    clock: Clock
    deadline: float
    calls: list[Call] = field(default_factory=list)
    pending: set[asyncio.Task[Any]] = field(default_factory=set)

    async def noted(self, driver: str, operation: str, key: str, call: Coroutine[Any, Any, T]) -> T:
        """The call's result. Raises StorageError; Unavailable after the deadline."""
        started = self.clock.monotonic()
        task = asyncio.create_task(call)
        self.pending.add(task)
        task.add_done_callback(self._done)
        failure: StorageError | None = None
        try:
            async with asyncio.timeout(self.deadline):
                return await asyncio.shield(task)
        except TimeoutError as error:
            text = f"{operation} was not done within {self.deadline:g} s"
            failure = Unavailable(driver, key, None, text)
            raise failure from error
        except OSError as error:
            failure = from_os_error(driver, key, error)
            raise failure from error
        except StorageError as error:
            failure = error
            raise
        finally:
            self.calls.append(Call(operation, self.clock.monotonic() - started, failure))

    async def settled(self, patience: float) -> None:
        """Wait for what is still under way, so long; then leave it."""
        pending = set(self.pending)
        if pending:
            _, late = await asyncio.wait(pending, timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self.pending.discard(task)
        if not task.cancelled():
            task.exception()  # it was told to whoever still waited


class Watched:
    """Implements Driver over a driver."""

    def __init__(self, inner: Driver, ledger: Ledger) -> None:
        self.inner = inner
        self.name = inner.name
        self.create_is_exclusive = inner.create_is_exclusive
        self._ledger = ledger

    def __repr__(self) -> str:
        return f"<Watched {self.inner!r} [{len(self._ledger.calls)} calls]>"

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        return await self._noted("stat", key, self.inner.stat(key))

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[Content]:
        """As Driver."""
        async with AsyncExitStack() as stack:
            entering = stack.enter_async_context(self.inner.open(key, span))
            yield await self._noted("open", key, entering)

    async def put(self, key: str, data: bytes) -> None:
        """As Driver."""
        await self._noted("put", key, self.inner.put(key, data))

    async def create(self, key: str, data: bytes) -> bool:
        """As Driver."""
        return await self._noted("create", key, self.inner.create(key, data))

    def writer(self, key: str) -> "WatchedWriter":
        """As Driver."""
        return WatchedWriter(self.inner.writer(key), key, self._noted)

    async def delete(self, *keys: str) -> None:
        """As Driver."""
        await self._noted("delete", keys[0] if keys else "", self.inner.delete(*keys))

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """As Driver; at once."""
        for item in await self._noted("list", prefix, self._all(prefix)):
            yield item

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """As Driver."""
        return await self._noted("presign", key, self.inner.presign(key, ttl, endpoint=endpoint))

    async def sweep(self, older_than: float) -> int:
        """As Driver."""
        return await self._noted("sweep", "", self.inner.sweep(older_than))

    async def close(self) -> None:
        """As Driver."""
        await self.inner.close()

    async def _all(self, prefix: str) -> Sequence[tuple[str, ObjectInfo]]:
        return [item async for item in self.inner.list(prefix)]

    async def _noted(self, operation: str, key: str, call: Coroutine[Any, Any, T]) -> T:
        return await self._ledger.noted(self.name, operation, key, call)


class WatchedWriter:
    """Implements Writer over a driver's."""

    def __init__(self, inner: Writer, key: str, noted: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._inner = inner
        self._key = key
        self._noted = noted

    async def __aenter__(self) -> Self:
        await self._noted("writer", self._key, self._inner.__aenter__())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._noted("abort", self._key, self._inner.__aexit__(kind, error, trace))

    async def write(self, source: SpoolFile, span: Span) -> None:
        """As Writer."""
        await self._noted("write", self._key, self._inner.write(source, span))

    async def commit(self) -> ObjectInfo:
        """As Writer."""
        info: ObjectInfo = await self._noted("commit", self._key, self._inner.commit())
        return info

    async def abort(self) -> None:
        """As Writer."""
        await self._noted("abort", self._key, self._inner.abort())
