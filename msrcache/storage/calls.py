"""One call to a driver: its deadline, its retries, its metrics, and what is remembered of its failure.

Rules:
1. Every call has a deadline. What timed out is not tried again: a store that hangs must cost a pull seconds, not
   minutes.
2. Calls that may be repeated are tried again after Unavailable, with full jitter, and at once after Stale.
3. The last failure of each kind (reading, writing) is the store's trouble until the next success that proves that
   kind, at most for TROUBLE seconds. That something is not there is no failure. Letting go of a writer, or deleting
   what is not there, succeeds on a full or read-only disk too, and proves nothing.
4. While the store is left alone (`breaker`) a call is refused at once. What is under way goes on: the rest of a body
   is read, and a writer is let go of.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from msrcache.storage.breaker import PROOFS, WRITES
from msrcache.storage.errors import (
    LeftAlone,
    NotFound,
    RangeNotSatisfiable,
    Stale,
    StorageError,
    Unavailable,
    from_os_error,
)
from msrcache.storage.guard import Guard
from msrcache.storage.step import Step
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics

T = TypeVar("T")

TROUBLE: Final = 30.0
"""Seconds for which a failure is told."""

_GOES_ON: Final = frozenset({"abort", "read"})
"""The operations that end what was begun: they are never refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds for one call."""

    ask: float = 10.0
    """stat, open, one step of a listing."""
    change: float = 30.0
    """put, create, delete."""
    stall: float = 60.0
    """One pause of a body, one piece given to a writer."""
    commit: float = 300.0
    """The commit of a writer."""
    sweep: float = 600.0
    """All of a sweep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a call that may be repeated is made, and the longest first and last wait between, in seconds."""

    attempts: int = 3
    base: float = 0.1
    cap: float = 2.0

    def wait(self, attempt: int, error: StorageError) -> float:
        """Seconds before the attempt after this one: full jitter, or what the service asked for up to the cap."""
        if isinstance(error, Stale):
            return 0.0
        asked = error.retry_after if isinstance(error, Unavailable) else None
        if asked is not None:
            return min(self.cap, asked)
        return random.uniform(0.0, min(self.cap, self.base * 2.0 ** (attempt - 1)))


class TimedOut(Unavailable):
    """The deadline passed; the call may still take effect."""

    result = "timeout"


class Calls:
    """Makes the calls of one store."""

    def __init__(
        self, driver: str, *, metrics: Metrics, clock: Clock, retries: Retries, guard: Guard | None = None
    ) -> None:
        """Without a guard no call is refused."""
        self._driver = driver
        self._guard = guard
        self._metrics = metrics
        self._clock = clock
        self._retries = retries
        self._failures: dict[bool, tuple[float, StorageError]] = {}

    def __repr__(self) -> str:
        return f"<Calls {self._driver} {self.trouble() or 'well'}>"

    async def once(self, operation: str, key: str, call: Callable[[], Awaitable[T]], *, deadline: float) -> T:
        """One attempt. Raises StorageError; the deadline becomes TimedOut."""
        self._check(operation, key)
        return await self.attempt(operation, key, call, deadline=deadline)

    async def attempt(
        self, operation: str, key: str, call: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        """As once, whether the store is left alone or not."""
        started = self._clock.monotonic()
        try:
            async with self._failing(operation, key, deadline=deadline):
                result = await call()
        finally:
            self._metrics.storage_seconds.labels(operation).observe(self._clock.monotonic() - started)
        self._worked(operation)
        return result

    async def repeatedly(
        self, operation: str, key: str, call: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        """Attempts until one succeeds or says something that trying again does not change."""
        attempt = 1
        while True:
            try:
                return await self.once(operation, key, call, deadline=deadline)
            except (TimedOut, LeftAlone):
                raise
            except (Unavailable, Stale) as error:
                if not await self.another(attempt, error):
                    raise
                attempt += 1

    async def another(self, attempt: int, error: StorageError) -> bool:
        """Wait before another attempt; False when there have been enough."""
        if attempt >= self._retries.attempts:
            return False
        await asyncio.sleep(self._retries.wait(attempt, error))
        return True

    async def each(
        self, operation: str, key: str, items: AsyncIterator[T], *, deadline: float
    ) -> AsyncGenerator[T, None]:
        """The items of a listing or a body, one call in all; the deadline holds for each pause."""
        self._check(operation, key)
        started = self._clock.monotonic()
        try:
            while True:
                step = Step(items) if operation == "list" else None
                if step is not None and step.begin():
                    yield step.item
                    continue
                async with self._failing(operation, key, deadline=deadline):
                    try:
                        item = await (anext(items) if step is None else step)
                    except StopAsyncIteration:
                        break
                yield item
            self._worked(operation)
        finally:
            self._metrics.storage_seconds.labels(operation).observe(self._clock.monotonic() - started)
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    def moved(self, direction: str, count: int) -> None:
        """Count bytes: `read` or `written`."""
        self._metrics.storage_bytes_total.labels(direction).inc(count)

    def reading_failed(self) -> bool:
        """Whether a reading call failed in the last TROUBLE seconds, and none has succeeded since."""
        failed = self._failures.get(False)
        return failed is not None and self._clock.monotonic() - failed[0] < TROUBLE

    def trouble(self) -> str | None:
        """The newest failure that still counts, in words."""
        now = self._clock.monotonic()
        recent = [(at, error) for at, error in self._failures.values() if now - at < TROUBLE]
        return str(max(recent, key=lambda item: item[0])[1]) if recent else None

    @asynccontextmanager
    async def _failing(self, operation: str, key: str, *, deadline: float) -> AsyncIterator[None]:
        """Count and remember what fails within; the kernel's errors and the deadline become StorageErrors."""
        try:
            async with asyncio.timeout(deadline):
                yield
        except TimeoutError as error:
            text = f"{operation} was not done within {deadline:g} s"
            raise self._failed(operation, TimedOut(self._driver, key, None, text)) from error
        except OSError as error:
            failure = from_os_error(self._driver, key, error, writing=operation in WRITES)
            raise self._failed(operation, failure) from error
        except StorageError as error:
            self._failed(operation, error)
            raise

    def _check(self, operation: str, key: str) -> None:
        if self._guard is not None and operation not in _GOES_ON:
            self._guard.check(operation, key)

    def _worked(self, operation: str) -> None:
        if self._guard is not None:
            self._guard.note(operation, None)
        self._metrics.storage_calls_total.labels(operation, "ok").inc()
        if operation in PROOFS or operation not in WRITES:
            self._failures.pop(operation in WRITES, None)

    def _failed(self, operation: str, error: StorageError) -> StorageError:
        if self._guard is not None:
            self._guard.note(operation, error)
        self._metrics.storage_calls_total.labels(operation, error.result).inc()
        if isinstance(error, NotFound | RangeNotSatisfiable):
            self._failures.pop(operation in WRITES, None)
        else:
            self._failures[operation in WRITES] = (self._clock.monotonic(), error)
        return error
