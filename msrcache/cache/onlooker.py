"""Whoever looks at the fleet without being of it: reads all records, and says who beats, within two intervals.

Nothing is written. A record whose stamp is old beside the newest one is silent at once (both are the store's);
of the others each is read again until it changes, or until it had the time to.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

from msrcache.cache.fleetview import ALIVE, SILENT, row, shown
from msrcache.cache.heartbeat import PATIENCE
from msrcache.cache.layout import REPLICAS, replica_key, replica_of
from msrcache.cache.record import LIMIT, ReplicaRecord, parse_record
from msrcache.cache.roster import LEAVING
from msrcache.oci.peers import Member
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import NotFound
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock

LOOKS: Final = 10
"""Readings of a record that does not change, spread over two intervals and a bit."""
AT_ONCE: Final = 16


async def _listed(store: Store) -> AsyncIterator[tuple[str, ObjectInfo]]:
    try:
        async for key, info in store.list(REPLICAS):
            if (replica := replica_of(key)) is not None:
                yield replica, info
    except NotFound:
        return  # nobody has ever written


async def members_of(store: Store, *, now: float, patience: float) -> Sequence[Member]:
    """The replicas that live, by the stamps of their records, and can be asked; without waiting for a beat.

    `now` is by the store's clock. A listing may lag, so it only says whom to look at. Raises StorageError.
    """
    members: list[Member] = []
    async for replica, _ in _listed(store):
        key = replica_key(replica)
        try:
            if now - (await store.stat(key)).modified >= patience:
                continue
            record = parse_record(replica, await store.get(key, LIMIT))
        except NotFound:
            continue
        if record is not None and record.address and record.state != LEAVING:
            members.append(Member(replica, record.address))
    return members


class Onlooker:
    """Looks once or again and again; what it has seen to beat in one look it need not wait for in the next."""

    def __init__(self, store: Store, clock: Clock, *, interval: float) -> None:
        self._store = store
        self._clock = clock
        self._interval = interval
        self._last: dict[str, bytes] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def look(self) -> Mapping[str, object]:
        """The fleet as /debug/fleet shows it. Raises StorageError where the store cannot be read."""
        stamps = {replica: info.modified async for replica, info in _listed(self._store)}
        newest = max(stamps.values(), default=0.0)
        old = {name for name, stamp in stamps.items() if newest - stamp >= PATIENCE * self._interval}
        found, beating = await self._read(stamps.keys() - old)
        dead, _ = await self._read(old)
        waiting = found.keys() - beating
        for _ in range(LOOKS):
            if not waiting:
                break
            await asyncio.sleep(self._interval * 2.2 / LOOKS)
            again, changed = await self._read(waiting)
            found |= again
            for gone in waiting - again.keys():
                del found[gone]
            waiting = again.keys() - changed
        quiet = waiting | dead.keys()
        records = found | dead
        self._last = {name: data for name, data in self._last.items() if name in records}
        silent = {name: newest - stamps[name] for name in quiet if name in records}
        return self._shown(records, silent)

    async def _read(self, replicas: Iterable[str]) -> tuple[dict[str, ReplicaRecord], set[str]]:
        """The records that are there, and whose differed from the last reading."""
        found: dict[str, ReplicaRecord] = {}
        changed: set[str] = set()

        async def one(replica: str) -> None:
            try:
                async with self._slots:
                    data = await self._store.get(replica_key(replica), LIMIT)
            except NotFound:
                return
            if self._last.get(replica, data) != data:
                changed.add(replica)
            self._last[replica] = data
            found[replica] = parse_record(replica, data) or ReplicaRecord(replica=replica)

        await asyncio.gather(*(one(replica) for replica in replicas))
        return found, changed

    def _shown(
        self, records: Mapping[str, ReplicaRecord], silent: Mapping[str, float]
    ) -> Mapping[str, object]:
        """`silent`: how much older the stamp of a silent one is than the newest, by the store's own clock."""
        rows = [
            row(record, SILENT if name in silent else ALIVE, seen=0.0, silence=silent.get(name))
            for name, record in records.items()
        ]
        return shown(rows, seen_by="", heartbeat=self._interval)
