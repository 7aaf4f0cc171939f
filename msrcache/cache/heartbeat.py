"""The heartbeat: each replica shows that it lives, and looks whether the others do, with nothing but the store.

States of another replica, as one observer sees it:

    unknown -> alive <-> silent -> unknown
                 +--> gone (it removed its record: a clean stop) -> unknown

Rules:
1. Every `interval` a replica puts its record with the next beat, and reads another's: one request each, however many
   replicas there are. The living are read in turn, whoever was looked at longest ago.
   Where another replica has told its beat (`watching`), reading that one's record is this interval's look; those that
   were not looked at for longer than a turn takes are read all the same.
2. Newcomers are found by a listing, at the start and every LISTED intervals, and read at once, a few per interval.
3. Alive: seen, and not shown to be silent. Silent: over PATIENCE intervals of the observer's own clock its record was
   the same whenever it was read. A listing may lag, so it makes nobody silent: a stamp that stays the same makes a
   replica be read next, a stamp that changes is a sign of life.
4. A newcomer whose stamp is old beside our own in the same listing (both are the store's) is silent until it writes.
5. A store that cannot be read shows nothing: everybody stays what he was. One that cannot be written hides us.
6. On a clean stop the last put is awaited and then the record removed, in this order: else the late put makes a ghost.
   The records of the dead are the janitor's, an hour after they fell silent.

Who is alive is a hint that saves work, and nothing that must be right depends on it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from msrcache.cache.layout import REPLICAS, replica_key, replica_of
from msrcache.cache.record import LIMIT, ReplicaRecord, parse_record
from msrcache.cache.roster import (
    NEVER,
    Known,
    can_be_asked,
    due,
    heard,
    seen_by_reading,
    seen_in_list,
    silent,
)
from msrcache.oci.peers import Member
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import LeftAlone, NotFound, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

PATIENCE: Final = 3
"""Intervals without a new beat after which a replica counts as silent."""
SHORTEST: Final = 0.05
"""Seconds; a shorter interval is taken for this one."""
LISTED: Final = 3
"""Intervals from one listing to the next."""
LEFT_WITHIN: Final = 5.0
"""Seconds that a clean stop waits for the store to forget us, and for the last put before that."""

UNSEEN: Final = "this replica's heartbeat was not stored: the others do not see it"
UNLISTED: Final = "the replicas were not listed: newcomers are not seen"
UNREAD: Final = "another replica's heartbeat was not read"

log = get_logger(__name__)


class Heartbeat:
    """Implements Fleet. `compose` makes this replica's record of a beat's number; it is first called by a beat."""

    def __init__(
        self,
        store: Store,
        compose: Callable[[int], ReplicaRecord],
        *,
        replica: str,
        interval: float,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._store = store
        self._compose = compose
        self.interval = interval
        self._patience = PATIENCE * interval
        self._metrics = metrics
        self._clock = clock
        self._beat = 0
        self._steps = 0
        self._shown = False
        self._told: set[str] = set()
        self._known: dict[str, Known] = {}
        self._looks = 0
        self.put_returned: Callable[[int], None] | None = None
        """Told the number of each beat that the others can see from now on."""
        self.lag: float | None = None
        """Seconds that another replica's beat took last to be seen here."""
        self.replica = replica
        self.own = ReplicaRecord(replica=replica)
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Heartbeat {self.replica} beat {self._beat} [{len(self._known)} others]>"

    def alive(self) -> Sequence[Member]:
        """As Fleet."""
        others = [known for known in self._known.values() if can_be_asked(known, self._patience)]
        members = [Member(known.replica, known.record.address) for known in others if known.record]
        members.append(Member(self.replica, self.own.address))
        return sorted(members, key=lambda one: one.replica)

    def compose(self) -> ReplicaRecord:
        """This replica's record as it would be written now."""
        return self._compose(self._beat)

    def others(self) -> Sequence[tuple[Known, bool]]:
        """All other replicas that are known, and whether each is silent; in order of their names."""
        known = sorted(self._known.values(), key=lambda one: one.replica)
        return [(one, silent(one, self._patience)) for one in known]

    def heard_of(self, replica: str) -> None:
        """Note that this replica has spoken to us: it lives, whatever its record says."""
        known = self._known.get(replica) or Known(replica=replica)
        self._known[replica] = heard(known, self._clock.monotonic())

    def start(self) -> None:
        """Beat from now on; with an interval of 0 never."""
        if self.interval > 0:
            self._task = asyncio.create_task(self._run(), name="heartbeat")

    async def close(self) -> None:
        """Stop beating; then remove what shows us. Never raises."""
        self._leave.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=LEFT_WITHIN)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._shown:
            with contextlib.suppress(StorageError, TimeoutError):
                async with asyncio.timeout(LEFT_WITHIN):
                    await self._store.delete(replica_key(self.replica))

    async def _run(self) -> None:
        while not self._leave.is_set():
            try:
                await self.step()
            except Exception:  # a fleet that is not seen serves on
                log.exception("a heartbeat failed by an error of this program")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self.interval, SHORTEST)):
                    await self._leave.wait()

    async def step(self) -> None:
        """What is done in one interval."""
        await self._put()
        if self._steps % LISTED == 0:
            await self._list()
        self._steps += 1
        spared = self._looks
        for replica in due(self._known.values(), self._patience, rested=self._rested()):
            await self.read(replica)
        # Two that were told in one interval spare the next one's look.
        self._looks = max(0, min(spared - 1, 1))
        self._count()

    def _rested(self) -> float:
        """Who was looked at after this moment need not be looked at in this interval."""
        if not self._looks:
            return NEVER
        return self._clock.monotonic() - (len(self._known) + 2) * self.interval

    async def _put(self) -> None:
        self._beat += 1
        self.own = self._compose(self._beat)
        if not self._store.writable:
            return
        try:
            await self._store.put(replica_key(self.replica), self.own.encode())
        except StorageError as error:
            self._tell(UNSEEN, error)
        else:
            self._shown = True
            self._told.discard(UNSEEN)
            if self.put_returned is not None:
                self.put_returned(self._beat)

    async def _list(self) -> None:
        found: dict[str, ObjectInfo] = {}
        try:
            async for key, info in self._store.list(REPLICAS):
                if (replica := replica_of(key)) is not None:
                    found[replica] = info
        except NotFound:
            pass  # nobody has ever written
        except StorageError as error:
            self._tell(UNLISTED, error)
            return
        self._told.discard(UNLISTED)
        own = found.pop(self.replica, None)
        now = self._clock.monotonic()
        for replica, info in found.items():
            known = self._known.get(replica) or self._newcomer(replica, info, own)
            self._known[replica] = seen_in_list(known, (info.modified, info.etag), now)
        for replica in self._known.keys() - found.keys():
            self._missed(replica)

    def _newcomer(self, replica: str, info: ObjectInfo, own: ObjectInfo | None) -> Known:
        suspect = own is not None and own.modified - info.modified >= self._patience
        return Known(replica=replica, suspect=suspect)

    def _missed(self, replica: str) -> None:
        """A listing lacks it: the janitor removed a dead one, or the listing lags, which reading shows."""
        known = self._known[replica]
        if silent(known, self._patience):
            del self._known[replica]
        else:
            self._known[replica] = Known(
                replica=replica,
                record=known.record,
                read=known.read,
                changed=known.changed,
                missed=True,
            )

    async def read(self, replica: str) -> ReplicaRecord | None:
        """Read this replica's record; None where it cannot be had. One that is gone is forgotten."""
        key = replica_key(replica)
        self._looks += 1
        try:
            data = await self._store.get(key, LIMIT)
        except NotFound:
            self._known.pop(replica, None)
            return None
        except StorageError as error:
            self._tell(UNREAD, error)
            return None
        self._told.discard(UNREAD)
        record = parse_record(replica, data)
        known = self._known.get(replica) or Known(replica=replica)
        self._known[replica] = seen_by_reading(known, record, data, self._clock.monotonic())
        return record

    def _count(self) -> None:
        quiet = sum(silent(known, self._patience) for known in self._known.values())
        self._metrics.replicas.labels("alive").set(1 + len(self._known) - quiet)
        self._metrics.replicas.labels("silent").set(quiet)

    def _tell(self, text: str, error: StorageError) -> None:
        """Once, until it succeeds again: a store that is away is told by its own lines."""
        if not isinstance(error, LeftAlone) and text not in self._told:
            log.warning(text, error=str(error))
            self._told.add(text)
