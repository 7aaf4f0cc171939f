"""An arrival on its way through the lease: does what `leaserules` says, and tells it what was seen.

A request to the store that nobody waits for any more (patience, cancellation) goes on, and is awaited before the end
of the arrival is written: what it made must not be overlooked.
Not here: the register (`rungs`), and who else arrives (`leasing`).
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from msrcache.cache.lease import Fetch, Follow, Found, Turn
from msrcache.cache.leasebeat import PER_LIFE, Beat, Sleep, Watch, both, read_both
from msrcache.cache.leaserecord import LeaseRecord, decoded, rung_of
from msrcache.cache.leaserules import (
    FIRST,
    TURNS,
    Act,
    End,
    Last,
    Own,
    Rung,
    Seen,
    Step,
    after,
    ended,
    ending,
)
from msrcache.cache.rungs import Rungs
from msrcache.config.cache import LeaseSection
from msrcache.oci.peers import Holder, NotFollowed, Sign
from msrcache.storage.errors import Denied, LeftAlone, NoSpace, ReadOnly, StorageError, Unusable
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

FIRST_WAIT: Final = 0.05
"""Seconds before a holder that can't be followed is looked at again; each wait doubles, up to the pause of a beat."""

DOUBT_WAIT: Final = 0.5
"""Seconds between two refused connections that together say that a holder is gone."""

NOT_DONE: Final = (Denied, LeftAlone, NoSpace, ReadOnly, Unusable)
"""A store that says so has done nothing, and would say so again."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Seconds, but for the bytes of the threshold."""

    ttl: float = 10.0
    patience: float = 2.0
    threshold: int = 1 << 20

    @classmethod
    def of(cls, section: LeaseSection) -> "LeaseSettings":
        """As they are configured."""
        return cls(ttl=section.ttl, patience=section.patience, threshold=section.threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every arrival of a process needs."""

    settings: LeaseSettings
    metrics: Metrics
    clock: Clock
    sleep: Sleep
    alive: Callable[[LeaseRecord], bool]
    """Whether a record that this process wrote is of an arrival that is still under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """One lease: its register, the same for beats, and the look at what it is about."""

    lease: str
    rungs: Rungs
    beating: Rungs
    present: Callable[[], Awaitable[bool]]


class Climber:
    """Implements Arrival. Its end is `end`, to be awaited when nobody asks for turns any more."""

    def __init__(
        self, ladder: Ladder, record: LeaseRecord, tools: Tools, *, watch: Watch | None = None
    ) -> None:
        """`record` is what it writes; `watch` what was seen before of who holds the lease."""
        self.record = record
        self.watch = watch or Watch()
        self.step: Step | None = None
        self.beat: Beat | None = None
        self._ladder = ladder
        self._tools = tools
        self._stored = False
        self._sign: Sign = Sign.BROKEN
        self._holder: Holder | None = None
        self._waits = 0
        self._deadline = 0.0
        self._failures = 0
        self._trouble = "slow"
        self._under_way: set[asyncio.Task[Seen]] = set()

    def __repr__(self) -> str:
        return f"<Climber {self._ladder.lease} {self.step}>"

    @property
    def begun(self) -> bool:
        """Whether it may have written anything."""
        return self.step is not None

    async def turn(self) -> Turn:
        """As Arrival."""
        step = self.step or FIRST
        if step.act is Act.FOLLOW:
            step = after(step, Seen(sign=self._sign))
        step = await self._climbed(step)
        while step.act is Act.FOLLOW and (self._holder is None or not self.record.address):
            step = await self._climbed(after(step, Seen()))  # nobody can follow it: look again, after a while
        return self._told(step)

    async def claim(self) -> bool:
        """Whether it holds the lease, without waiting for whoever holds it now."""
        step = await self._climbed(FIRST)
        if step.act is not Act.FETCH or step.own is not Own.HELD:
            return False
        self._hold(step)
        return True

    def failed(self, error: NotFollowed) -> None:
        """As Arrival."""
        self._sign = error.sign

    async def dead(self) -> None:
        """As Arrival."""
        ttl, lease = self._tools.settings.ttl, self._ladder.lease
        while self.watch.unchanged < ttl:
            await self._tools.sleep(ttl / PER_LIFE)
            asked = self._tools.clock.monotonic()
            try:
                data = await self._ladder.rungs.read(lease, self._n)
            except StorageError:
                continue  # nobody looked: nothing is known
            record = None if data is None else decoded(data)
            if record is None or record.nonce != self.watch.nonce:
                self.watch = self.watch.missed(asked=asked)
            else:
                self.watch = self.watch.saw(record, asked=asked, answered=self._tools.clock.monotonic())

    def stored(self) -> None:
        """As Arrival."""
        self._stored = True

    @property
    def _n(self) -> int:
        return self.step.n if self.step is not None else 0

    def _renew(self) -> None:
        self._deadline = self._tools.clock.monotonic() + self._tools.settings.patience

    # What is done, and what it showed.

    async def _climbed(self, step: Step) -> Step:
        """Where it stands when there is something to be told."""
        self._renew()
        self.step = step
        while step.act not in TURNS:
            seen = await self._seen(step)
            before, self.step = step, after(step, seen)
            step = self.step
            if before.act is Act.READ and step.act is Act.CREATE and seen.nonce:
                self._succeeds(seen)
        return step

    def _succeeds(self, seen: Seen) -> None:
        reason = "expired" if seen.expired else "gone"
        self._tools.metrics.lease_successions_total.labels(reason).inc()
        log.warning("holder of a lease is gone, succeeding it", lease=self._ladder.lease, reason=reason)

    async def _seen(self, step: Step) -> Seen:
        if step.act is Act.WAIT:
            await self._wait(step)
            return Seen()
        return await self._answer(step)

    async def _wait(self, step: Step) -> None:
        settings = self._tools.settings
        pause = min(FIRST_WAIT * 2**self._waits, settings.ttl / PER_LIFE)
        self._waits = min(self._waits + 1, 10)
        await self._tools.sleep(max(pause, DOUBT_WAIT) if step.doubts else pause)
        self._renew()

    async def _answer(self, step: Step) -> Seen:
        """What the store says, within the patience of this turn."""
        while (left := self._deadline - self._tools.clock.monotonic()) > 0:
            task = asyncio.create_task(self._asked(step))
            self._under_way.add(task)
            task.add_done_callback(self._over)
            await asyncio.wait({task}, timeout=left)
            if not task.done():
                self._trouble, self._deadline = "slow", -math.inf
                return Seen(failed=True)
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, StorageError):
                raise error
            if (seen := await self._refused(step, error)) is not None:
                return seen
        return Seen(failed=True, refused=True)

    async def _refused(self, step: Step, error: StorageError) -> Seen | None:
        """What an error shows; None: it is worth another try."""
        for_good = isinstance(error, NOT_DONE)
        self._trouble = error.result if for_good else "failed"
        if for_good:
            return Seen(failed=True, refused=True)
        self._failures += 1
        await self._tools.sleep(FIRST_WAIT * 2 ** min(self._failures, 6))
        return Seen(failed=True) if step.act is Act.CREATE else None

    def _over(self, task: "asyncio.Task[Seen]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # it was told to whoever still waited

    async def _asked(self, step: Step) -> Seen:
        ladder, n = self._ladder, step.n
        match step.act:
            case Act.CREATE:
                return Seen(made=await ladder.rungs.create(ladder.lease, n, self.record.encoded()))
            case Act.PROVE:
                blob, above = await both(ladder.present(), ladder.rungs.exists(ladder.lease, n + 1))
                return Seen(blob=blob, above=above)
            case Act.RELEASE:
                await self._release(n)
                return Seen()
            case Act.CLEAR:
                await self._clear(step.top, step.floor)
                return Seen()
            case Act.READ:
                return await self._read(n)
        return Seen(blob=await ladder.present())

    async def _read(self, n: int) -> Seen:
        clock = self._tools.clock
        asked = clock.monotonic()
        record, above = await read_both(self._ladder.rungs, self._ladder.lease, n)
        rung = rung_of(record, self.record.nonce)
        if record is None or rung not in (Rung.HELD, Rung.NEWER):
            return Seen(rung=rung, above=above)
        if record.nonce != self.watch.nonce:
            self._waits = 0
        self.watch = self.watch.saw(record, asked=asked, answered=clock.monotonic())
        expired = self.watch.unchanged >= self._tools.settings.ttl or self._is_ghost(record)
        address = record.address
        self._holder = Holder(record.replica, record.nonce, address) if address else None
        return Seen(rung=rung, above=above, nonce=record.nonce, expired=expired)

    def _is_ghost(self, record: LeaseRecord) -> bool:
        """A record that this very process wrote, of an arrival that has ended here."""
        return record.replica == self.record.replica and not self._tools.alive(record)

    async def _release(self, n: int) -> None:
        data = LeaseRecord(replica=self.record.replica, nonce=self.record.nonce, released=True).encoded()
        await self._ladder.rungs.put(self._ladder.lease, n, data)

    async def _clear(self, top: int, floor: int) -> None:
        """From the top down, so that nobody finds a rung above a hole."""
        if top >= floor:
            await self._ladder.rungs.delete(self._ladder.lease, *range(top, floor - 1, -1))

    # What the fill is told.

    def _told(self, step: Step) -> Turn:
        metrics = self._tools.metrics
        metrics.lease_turns_total.labels(step.act.value).inc()
        if step.act is Act.FOUND:
            return Found()
        if step.act is Act.FOLLOW:
            assert self._holder is not None
            self._sign = Sign.BROKEN  # unless told otherwise
            return Follow(self._holder)
        if step.own is Own.HELD:
            self._hold(step)
        else:
            metrics.lease_skipped_total.labels(self._trouble).inc()
            log.warning("filling without the lease", lease=self._ladder.lease, reason=self._trouble)
        return Fetch()

    def _hold(self, step: Step) -> None:
        ladder, tools = self._ladder, self._tools
        self.beat = Beat(
            ladder.beating, ladder.lease, step.n, self.record, ttl=tools.settings.ttl, sleep=tools.sleep
        )
        self.beat.start()
        tools.metrics.leases_held.inc()

    # The end.

    async def end(self) -> None:
        """End what it wrote. Raises StorageError where the store did not take it for a time to live."""
        lost = await self._stop_beating()
        if self._under_way:
            await asyncio.wait(set(self._under_way))
        if self.step is None:
            return
        end = ending(self.step, well=self._stored, lost=lost)
        self._deadline = self._tools.clock.monotonic() + self._tools.settings.ttl
        while end.last is not Last.DONE:
            end = ended(end, await self._ended(end))

    async def _stop_beating(self) -> bool:
        """Whether the lease had been lost."""
        if self.beat is None:
            return False
        await self.beat.stop()
        metrics, lost = self._tools.metrics, self.beat.lost.is_set()
        metrics.leases_held.dec()
        metrics.leases_lost_total.inc(lost)
        return lost

    async def _ended(self, end: End) -> Seen:
        wait = FIRST_WAIT
        while True:
            try:
                return await self._end_step(end)
            except NOT_DONE:
                raise
            except StorageError:
                if self._tools.clock.monotonic() + wait > self._deadline:
                    raise
            await self._tools.sleep(wait)
            wait *= 2

    async def _end_step(self, end: End) -> Seen:
        ladder = self._ladder
        match end.last:
            case Last.CHECK:
                data = await ladder.rungs.read(ladder.lease, end.n)
                record = None if data is None else decoded(data)
                return Seen(rung=rung_of(record, self.record.nonce))
            case Last.RELEASE:
                await self._release(end.n)
            case Last.LOOK:
                return Seen(blob=await ladder.present())
            case Last.CLEAR:
                await self._clear(end.n, end.floor)
        return Seen()
