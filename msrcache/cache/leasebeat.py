"""Signs of life in a lease's record: giving them as its holder, watching them as who waits for it.

Rules (protocols, section 3):
1. A holder reads its rung and looks at the one above before each beat; where the rung is not its own any more, or one
   stands above, the lease is lost and it beats no more.
2. A beat that the store did not take is skipped; the next comes soon.
3. Stopping interrupts no request: a beat that came late would put a rung back that was deleted (a ghost).
4. Who watches compares no clocks: the same nonce and beat must have stood at two readings, the time to live apart on
   its own monotonic clock.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from msrcache.cache.leaserecord import LeaseRecord, decoded, rung_of
from msrcache.cache.leaserules import lost
from msrcache.cache.pump import finish
from msrcache.cache.rungs import Rungs
from msrcache.storage.errors import StorageError

A = TypeVar("A")
B = TypeVar("B")

Sleep = Callable[[float], Awaitable[object]]

PER_LIFE: Final = 4
"""Beats in a time to live, and looks at them."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A holder as it was seen: unchanged from when to when, in monotonic seconds of the observer."""

    nonce: str = ""
    beat: int = 0
    since: float = 0.0
    until: float = 0.0

    @property
    def unchanged(self) -> float:
        """Seconds for which it is known to have shown no sign of life."""
        return self.until - self.since

    def saw(self, record: LeaseRecord, *, asked: float, answered: float) -> "Watch":
        """After another reading (pure). What was read stood at some moment between question and answer."""
        if (record.nonce, record.beat) == (self.nonce, self.beat):
            return replace(self, until=max(self.until, asked))
        return Watch(record.nonce, record.beat, answered, answered)

    def missed(self, *, asked: float) -> "Watch":
        """After a reading that showed nothing of the holder (pure): no sign of life either."""
        return replace(self, until=max(self.until, asked))


async def read_both(rungs: Rungs, lease: str, n: int) -> tuple[LeaseRecord | None, bool]:
    """The rung, and whether one stands above it, asked at once. Raises StorageError."""
    data, above = await both(rungs.read(lease, n), rungs.exists(lease, n + 1))
    return None if data is None else decoded(data), above


async def both(one: Awaitable[A], other: Awaitable[B]) -> tuple[A, B]:
    """Two questions at once; an error of one waits for the other."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second


class Beat:
    """The beat of a rung that is held, from `start` to `stop`."""

    def __init__(
        self, rungs: Rungs, lease: str, n: int, record: LeaseRecord, *, ttl: float, sleep: Sleep
    ) -> None:
        self._rungs = rungs
        self._lease = lease
        self._n = n
        self._record = record
        self._pause = ttl / PER_LIFE
        self._sleep = sleep
        self._resting = False
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()
        """Set when somebody else holds the lease."""

    def __repr__(self) -> str:
        return f"<Beat {self._lease}/{self._n}{' lost' if self.lost.is_set() else ''}>"

    def start(self) -> None:
        """Begin to beat."""
        self._task = asyncio.create_task(self._run(), name=f"beat {self._lease}/{self._n}")

    async def stop(self) -> None:
        """Beat no more; returns when no request is under way."""
        self._stopping = True
        if self._task is not None:
            if self._resting:
                self._task.cancel()
            await finish(self._task)
            if not self._task.cancelled():
                self._task.result()

    async def _run(self) -> None:
        beat = 0
        while not self._stopping:
            self._resting = True
            await self._sleep(self._pause)
            self._resting = False
            beat += 1
            with suppress(StorageError):
                if not await self._beaten(beat):
                    self.lost.set()
                    return

    async def _beaten(self, beat: int) -> bool:
        """Whether the lease is still held; then a beat was written."""
        record, above = await read_both(self._rungs, self._lease, self._n)
        if lost(rung_of(record, self._record.nonce), above=above):
            return False
        if not self._stopping:
            await self._rungs.put(self._lease, self._n, self._record.beaten(beat).encoded())
        return True
