"""The store's two breakers at work: calls are let through or refused, a sick store is probed, a well one is back.

Rules are those of `breaker`; here is the I/O of them: one task for each open breaker waits and probes until an answer
closes it. What changes is logged once, and shown by storage_breaker_open.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

from msrcache.storage.breaker import (
    Breaker,
    BreakerSettings,
    Side,
    ended,
    may_go,
    probed,
    side_of,
    verdict_of,
    wait_of,
)
from msrcache.storage.errors import LeftAlone, StorageError
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

Probe = Callable[[], Awaitable[object]]

log = get_logger(__name__)


class Guard:
    """Stands before the calls of one store."""

    def __init__(
        self,
        driver: str,
        settings: BreakerSettings,
        *,
        metrics: Metrics,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`sleep` is what the probing waits with."""
        self._driver = driver
        self._settings = settings
        self._metrics = metrics
        self._sleep = sleep
        self._breakers = dict.fromkeys(Side, Breaker())
        self._probes: Mapping[Side, Probe] = {}
        self._last: dict[Side, StorageError] = {}
        self._healing: dict[Side, asyncio.Task[None]] = {}
        for side in Side:
            metrics.storage_breaker_open.labels(side.value).set(0)

    def __repr__(self) -> str:
        left = [side.value for side, breaker in self._breakers.items() if breaker.is_open]
        return f"<Guard {self._driver} {' and '.join(left) or 'nothing'} left alone>"

    def probe_with(self, probes: Mapping[Side, Probe]) -> None:
        """How to find out that it is back: each ends well, or raises as a call does."""
        self._probes = probes

    def leaves_alone(self, side: Side) -> bool:
        """Whether no call of this side goes out."""
        return self._breakers[side].is_open

    def check(self, operation: str, key: str) -> None:
        """Returns where the call may go out, raises LeftAlone where not."""
        reading, writing = self._breakers[Side.READING], self._breakers[Side.WRITING]
        if may_go(operation, reading=reading, writing=writing):
            return
        self._metrics.storage_calls_total.labels(operation, LeftAlone.result).inc()
        raise LeftAlone(self._driver, key, None, self.trouble() or "the store is left alone")

    def note(self, operation: str, error: StorageError | None) -> None:
        """Take the end of a call."""
        side = side_of(operation)
        if error is not None:
            self._last[side] = error
        verdict = verdict_of(operation, error)
        self._enter(side, ended(self._breakers[side], verdict, self._settings))

    def trouble(self) -> str | None:
        """Why the store is left alone, in words; None where it is not."""
        for side, breaker in self._breakers.items():
            if breaker.is_open:
                done = "asked" if side is Side.READING else "written"
                return f"the store is not {done} until a probe succeeds: {self._said(side)}"
        return None

    async def close(self) -> None:
        """Probe no more."""
        tasks = list(self._healing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _enter(self, side: Side, state: Breaker) -> None:
        was, self._breakers[side] = self._breakers[side], state
        if was.is_open == state.is_open:
            return
        self._metrics.storage_breaker_open.labels(side.value).set(int(state.is_open))
        if not state.is_open:
            log.warning("store answers again", driver=self._driver, side=side.value)
            return
        log.error("store left alone", driver=self._driver, side=side.value, error=self._said(side))
        if side in self._probes and side not in self._healing:
            self._healing[side] = asyncio.create_task(self._heal(side), name=f"probe {side.value}")

    async def _heal(self, side: Side) -> None:
        try:
            while self._breakers[side].is_open:
                # Jitter: the replicas of a fleet must not come back to a sick store all at once.
                wait = wait_of(self._breakers[side], self._settings)
                await self._sleep(random.uniform(wait / 2, wait))
                if self._breakers[side].is_open:  # an answer may have come late
                    await self._probe(side)
        finally:
            del self._healing[side]

    async def _probe(self, side: Side) -> None:
        failure: StorageError | None = None
        try:
            await self._probes[side]()
        except StorageError as error:
            failure = error
        verdict = verdict_of("put" if side is Side.WRITING else "stat", failure)
        self._enter(side, probed(self._breakers[side], verdict))

    def _said(self, side: Side) -> str:
        last = self._last.get(side)
        return str(last) if last is not None else "it failed"
