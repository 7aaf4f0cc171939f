"""Litter of our own: what processes that died left of themselves in the store, removed when it is surely nobody's.

By the store's clock alone, each object asked again just before, because a listing may lag:
1. the records of a lease, when none of them changed for AFTER, the highest generation first: a lower one that stood
   alone would look like the newest (protocols, section 3.5);
2. heartbeats, and objects of probes, that are as old.
Not here: blobs, links, journals, marks.
"""

from collections.abc import Sequence
from typing import Final

from msrcache.cache.layout import LEASES, REPLICAS, rung_of
from msrcache.cache.ledger import listing
from msrcache.storage.errors import NotFound
from msrcache.storage.store import PROBE, Store

AFTER: Final = 3600.0
"""Seconds."""


async def tidy(store: Store, *, now: float) -> int:
    """Remove it; how many objects that were. Raises StorageError."""
    count = 0
    for lease in await _old_leases(store, before=now - AFTER):
        count += await _removed_together(store, lease, before=now - AFTER)
    for prefix in (REPLICAS, PROBE):
        old = [key async for key, info in listing(store, prefix) if info.modified < now - AFTER]
        for key in old:
            count += await _removed_together(store, [key], before=now - AFTER)
    return count


async def _old_leases(store: Store, *, before: float) -> list[list[str]]:
    """Of each lease that nothing is new of the records, the highest generation first."""
    records: dict[str, dict[int, str]] = {}
    living: set[str] = set()
    async for key, info in listing(store, LEASES):
        lease, number = rung_of(key)
        if number is None:
            continue
        records.setdefault(lease, {})[number] = key
        if info.modified >= before:
            living.add(lease)
    return [
        [rungs[number] for number in sorted(rungs, reverse=True)]
        for lease, rungs in records.items()
        if lease not in living
    ]


async def _removed_together(store: Store, keys: Sequence[str], *, before: float) -> int:
    """All of them, or none where one has changed."""
    for key in keys:
        try:
            if (await store.stat(key)).modified >= before:
                return 0
        except NotFound:
            continue
    for key in keys:
        await store.delete(key)
    return len(keys)
