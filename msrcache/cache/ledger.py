"""The ledger of uses: journals read, merged into what is known, and held against what the store has; shard by shard.

Rules:
1. Ages are differences of the store's own time stamps: `moment` writes an object and asks when that was.
2. Nothing is concluded from a record that cannot be read: Blocked ends the look, and nothing is due.
3. The merged records are written before the journals in them are removed, so a crash between merges them once more.
4. Memory: the uses since the last merge, one shard's records at a time, and the holdings.

Not here: who may do this (the janitor's lease), and what follows.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from msrcache.cache.expiry import Holdings, aged
from msrcache.cache.journal import (
    HEADER,
    LARGEST,
    Unreadable,
    UseRecord,
    merged_text,
    read_journal,
    read_merged,
)
from msrcache.cache.layout import (
    BLOBS,
    CONDEMNED,
    LOOKED,
    MERGED,
    REPOSITORIES,
    SHARDS,
    USES,
    clock_key,
    digest_of_blob,
    digest_of_mark,
    merged_key,
    shard_of_blobs,
)
from msrcache.oci.digest import ALGORITHMS, Digest
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import NotFound
from msrcache.storage.store import Store

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


def silent(what: str, done: int, of: int) -> None:
    """Progress that nobody is told."""


FEW = 500
"""Records that are read or written on the loop, in less than a millisecond or two."""
BYTES = 100
"""Of a record."""
AT_ONCE = 500
"""Keys that are removed with one call."""
TOLD_EVERY = 10_000
"""Blobs or links that are listed between two words of progress."""


class Blocked(Exception):
    """Nothing may expire: a record cannot be read."""


@dataclass(slots=True)
class Used:
    """What journals say: when each digest was last used, and which journals that was read from."""

    last: dict[Digest, float] = field(default_factory=dict)
    journals: list[str] = field(default_factory=list)


class Ledger:
    """Reads and writes what is known of uses."""

    def __init__(self, store: Store, *, replica: str, progress: Progress = silent) -> None:
        self._store = store
        self._replica = replica
        self._progress = progress

    def __repr__(self) -> str:
        return f"<Ledger {self._replica}>"

    async def moment(self) -> float:
        """What time it is by the store's clock. Raises StorageError."""
        key = clock_key(self._replica)
        await self._store.put(key, b"")
        try:
            return (await self._store.stat(key)).modified
        finally:
            await self._store.delete(key)

    async def looked(self) -> float | None:
        """How many seconds ago somebody began to look, None: nobody yet; from now on it was just now."""
        try:
            before = (await self._store.stat(LOOKED)).modified
        except NotFound:
            before = None
        await self._store.put(LOOKED, HEADER.encode())
        now = (await self._store.stat(LOOKED)).modified
        return None if before is None else now - before

    async def used(self) -> Used:
        """What all journals that are listed say. Raises StorageError, Blocked."""
        found = Used()
        listed = [(key, info.modified) async for key, info in listing(self._store, USES)]
        journals = [(key, modified) for key, modified in listed if not key.startswith(MERGED)]
        for number, (key, modified) in enumerate(journals):
            self._progress("journals read", number, len(journals))
            digests = await self._read(key, read_journal)
            if digests is None:
                continue  # merged already: the listing lags
            found.journals.append(key)
            for digest in digests:
                found.last[digest] = max(modified, found.last.get(digest, modified))
        return found

    async def holdings(self, used: Used, *, now: float, write: bool) -> Holdings:
        """All that the store has, and when it was last used. Raises StorageError, Blocked.

        With `write` it is written down, and the journals are removed.
        """
        by_shard: dict[str, dict[Digest, float]] = {}
        for digest, last in used.last.items():
            by_shard.setdefault(digest.hex[:2], {})[digest] = last
        algorithms = [one for one in ALGORITHMS if await self._has_any(one)]
        holdings = Holdings()
        for number, shard in enumerate(SHARDS):
            self._progress("blobs listed", number, len(SHARDS))
            known, records = await self._shard(algorithms, shard, by_shard.get(shard, {}), now=now)
            if write and records != known:
                await self._write(shard, records)
            holdings.add(records)
        if write:
            await removed(self._store, used.journals)
        return holdings

    async def _write(self, shard: str, records: Mapping[Digest, UseRecord]) -> None:
        await self._store.put(merged_key(shard), await _off_loop(len(records), lambda: merged_text(records)))

    async def _has_any(self, algorithm: str) -> bool:
        """Whether there is a blob of this algorithm: most stores have none of sha512, and are not asked 256 times."""
        async with aclosing(listing(self._store, f"{BLOBS}{algorithm}")) as blobs:
            async for _ in blobs:
                return True
        return False

    async def _shard(
        self, algorithms: Sequence[str], shard: str, used: Mapping[Digest, float], *, now: float
    ) -> tuple[dict[Digest, UseRecord], dict[Digest, UseRecord]]:
        known = await self._read(merged_key(shard), read_merged) or {}
        held: list[tuple[Digest, int, float]] = []
        for algorithm in algorithms:
            async for key, info in listing(self._store, shard_of_blobs(algorithm, shard)):
                digest = digest_of_blob(key)
                if digest is not None:
                    held.append((digest, info.size, info.modified))
        return known, await _off_loop(len(held), lambda: aged(known, used, held, now=now))

    async def _read(self, key: str, read: Callable[[bytes], T]) -> T | None:
        """The record; None where there is none."""
        try:
            data = await self._store.get(key, LARGEST)
            return await _off_loop(len(data) // BYTES, lambda: read(data))
        except NotFound:
            return None
        except Unreadable as error:
            raise Blocked(
                f"nothing expires: {key} cannot be read, {error}. Is a later version of msrcache running? Else remove"
                " that object: what it said of uses then counts as used now"
            ) from error


async def _off_loop(records: int, work: Callable[[], T]) -> T:
    """Do it in a thread where there is much of it."""
    return await asyncio.to_thread(work) if records > FEW else work()


async def listing(store: Store, prefix: str) -> AsyncGenerator[tuple[str, ObjectInfo], None]:
    """As Store.list; where nothing was ever written, nothing."""
    try:
        async with aclosing(store.list(prefix)) as items:
            async for item in items:
                yield item
    except NotFound:
        return


async def links(store: Store, progress: Progress) -> AsyncGenerator[tuple[str, ObjectInfo], None]:
    """All that stands below the repositories, telling how far it is."""
    number = 0
    async with aclosing(listing(store, REPOSITORIES)) as items:
        async for item in items:
            number += 1
            if number % TOLD_EVERY == 0:
                progress("links listed", number, 0)
            yield item


async def marks(store: Store) -> dict[Digest, float]:
    """What is condemned, and since when by the store's clock. Raises StorageError."""
    return {
        digest: info.modified
        async for key, info in listing(store, CONDEMNED)
        if (digest := digest_of_mark(key)) is not None
    }


async def removed(store: Store, keys: list[str]) -> None:
    """Remove these, some hundred at a time."""
    for start in range(0, len(keys), AT_ONCE):
        await store.delete(*keys[start : start + AT_ONCE])
