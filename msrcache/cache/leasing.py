"""Leases of a fleet: what `leaserules` decides, done on a register of rungs.

An arrival asks nothing before its first turn, and gives up on a store that does not answer after `patience`: then the
fill goes on without the lease. Leaving an arrival ends its records behind whoever left; the next arrival of the same
digest in this process waits for that, and `close` for all.

A miss costs four requests (create; the blob and the rung above at once; delete), a beat three; a test counts them.
Not here: following (the peer port's client), and filling (`fill`).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from msrcache.cache.homerungs import Homes
from msrcache.cache.layout import blob_key, lease_of, named_lease
from msrcache.cache.lease import Arrival, Undisputed
from msrcache.cache.leasearrival import Climber, Ladder, LeaseSettings, Tools
from msrcache.cache.leasebeat import Beat, Sleep, Watch
from msrcache.cache.leaserecord import LeaseRecord
from msrcache.cache.rungs import Rungs, StoreRungs
from msrcache.oci.digest import Digest
from msrcache.storage.errors import NotFound, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

log = get_logger(__name__)


class Held:
    """A named lease that is held."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    @property
    def lost(self) -> bool:
        """Whether somebody else holds it by now: what it is for is to be left to him."""
        return self._beat.lost.is_set()

    async def gone(self) -> None:
        """Returns when it is lost."""
        await self._beat.lost.wait()


@dataclass(frozen=True, slots=True)
class Claimant:
    """This process: its name, and host:port of its peer port. Empty: it can't be followed, and follows nobody.

    `homes`: where leases stand if the store's creates are not exclusive; None: then there are none.
    """

    replica: str
    address: Callable[[], str] = str
    homes: Homes | None = None


class FleetLeases:
    """Implements Leases over a store that the fleet shares."""

    def __init__(
        self,
        store: Store,
        claimant: Claimant,
        *,
        settings: LeaseSettings,
        metrics: Metrics,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._claimant = claimant
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._rungs: Rungs = StoreRungs(store)
        self._beating: Rungs = StoreRungs(store.insistent())
        self._held: dict[str, str] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._watches: dict[str, Watch] = {}
        self._tools = Tools(
            settings=settings,
            metrics=metrics,
            clock=clock,
            sleep=sleep,
            alive=lambda record: record.nonce in self._held,
        )

    def __repr__(self) -> str:
        return f"<FleetLeases {self._claimant.replica} [{len(self._held)} under way, {len(self._ending)} ending]>"

    @asynccontextmanager
    async def arrive(self, digest: Digest, *, size: int | None) -> AsyncIterator[Arrival]:
        """As Leases."""
        if (reason := self._needless(size)) is not None:
            self._metrics.lease_skipped_total.labels(reason).inc()
            yield Undisputed()
            return
        async with self._climbing(lease_of(digest), lambda: self._present(digest)) as climber:
            yield climber

    def holds(self, digest: Digest, nonce: str) -> bool:
        """As Leases. Also before the record is written, and until it is ended."""
        return self._held.get(nonce) == lease_of(digest)

    @asynccontextmanager
    async def named(self, name: str) -> AsyncIterator[Held | None]:
        """The lease of work of which there is one in the fleet; None where somebody else has it, or nobody can tell.

        To be tried again: one who holds it and is dead is succeeded by whoever tried twice, the time to live apart.
        """
        lease = named_lease(name)
        if not self._store.writable:
            yield None
            return
        async with self._climbing(lease, _never) as climber:
            climber.watch = self._watches.get(lease, climber.watch)
            held = await climber.claim()
            self._watches[lease] = climber.watch
            if not held or climber.beat is None:
                yield None
                return
            yield Held(climber.beat)
            if not climber.beat.lost.is_set():
                climber.stored()  # no blob says that it is done, so nobody would ever remove the rungs

    async def settled(self) -> None:
        """Returns when no end is being written."""
        while self._ending:
            await asyncio.wait(set(self._ending.values()))

    async def close(self) -> None:
        """As settled, for a time to live at most; to be called when no arrival is under way any more."""
        if self._ending:
            _, late = await asyncio.wait(set(self._ending.values()), timeout=self._settings.ttl)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _needless(self, size: int | None) -> str | None:
        """Why nobody is asked; None where the lease is taken."""
        if size is not None and size <= self._settings.threshold:
            return "small"
        if not self._store.writable:
            return "readonly"
        return "inexclusive" if self._at_home and self._claimant.homes is None else None

    @property
    def _at_home(self) -> bool:
        """Whether leases stand at homes: the driver says so, or the probe has found it out."""
        return not self._store.create_is_exclusive

    def _ladder(self, lease: str, present: Callable[[], Awaitable[bool]]) -> Ladder:
        rungs, beating = self._rungs, self._beating
        if self._at_home and self._claimant.homes is not None:
            rungs = beating = self._claimant.homes.rungs(lease)
        return Ladder(lease=lease, rungs=rungs, beating=beating, present=present)

    async def _present(self, digest: Digest) -> bool:
        try:
            await self._store.stat(blob_key(digest))
        except NotFound:
            return False
        return True

    @asynccontextmanager
    async def _climbing(self, lease: str, present: Callable[[], Awaitable[bool]]) -> AsyncIterator[Climber]:
        if (task := self._ending.get(lease)) is not None:
            await asyncio.wait({task}, timeout=self._settings.patience)
        nonce = secrets.token_hex(16)
        record = LeaseRecord(replica=self._claimant.replica, nonce=nonce, address=self._claimant.address())
        climber = Climber(self._ladder(lease, present), record, self._tools)
        self._held[nonce] = lease
        try:
            yield climber
        finally:
            self._end(lease, climber)

    def _end(self, lease: str, climber: Climber) -> None:
        if not climber.begun:
            del self._held[climber.record.nonce]
            return
        before = self._ending.get(lease)
        task = asyncio.create_task(self._ended(lease, climber, before), name=f"end of lease {lease}")
        self._ending[lease] = task
        task.add_done_callback(lambda done: self._over(lease, done))

    async def _ended(self, lease: str, climber: Climber, before: "asyncio.Task[None] | None") -> None:
        try:
            if before is not None:
                await asyncio.wait({before})
            await climber.end()
        except StorageError as error:
            log.warning("lease not ended, others wait until it expires", lease=lease, error=str(error))
        finally:
            del self._held[climber.record.nonce]

    def _over(self, lease: str, task: "asyncio.Task[None]") -> None:
        if self._ending.get(lease) is task:
            del self._ending[lease]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the end of a lease failed by an internal error", lease=lease, exc_info=error)


async def _never() -> bool:
    """The blob of work that has none."""
    return False
