"""Stored objects hashed once more: whether what stands under a digest still is what it says.

In the order of the digests, so that it can be gone on with behind any of them. With `repair` a wrong object is
written down below quarantine/ and removed: it is read no more, and its next use brings it in again.
Not here: who is told, and how.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from msrcache.cache.layout import BLOBS, SHARDS, blob_key, digest_of_blob, quarantine_key, shard_of_blobs
from msrcache.cache.ledger import listing
from msrcache.oci.digest import ALGORITHMS, Digest, Hasher
from msrcache.storage.driver import FileContent, ObjectInfo
from msrcache.storage.errors import NotFound, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock

PIECE: Final = 1 << 20
"""Bytes that are read and hashed at one go."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found of one object: `wrong` in words, empty where all is right; `removed`: it is gone now."""

    digest: Digest
    size: int
    wrong: str = ""
    removed: bool = False


class Pace:
    """Holds reading down to so many bytes a second; 0: does not."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._free = clock.monotonic()

    def __repr__(self) -> str:
        return f"<Pace {self._rate} bytes a second>"

    async def read(self, count: int) -> None:
        """So many bytes were read: returns when the next may be."""
        if not self._rate:
            return
        self._free = max(self._free, self._clock.monotonic() - 1.0) + count / self._rate
        if (wait := self._free - self._clock.monotonic()) > 0:
            await asyncio.sleep(wait)


async def rehashed(store: Store, *, pace: Pace, after: Digest | None, repair: bool) -> AsyncIterator[Looked]:
    """Every object behind `after`, as it was found. Raises StorageError where the store cannot be listed or written."""
    for algorithm in ALGORITHMS:
        for shard in SHARDS:
            if after is not None and f"{algorithm}:{shard}" < str(after)[: len(algorithm) + 3]:
                continue
            for digest, info in await _standing(store, algorithm, shard):
                if after is not None and str(digest) <= str(after):
                    continue
                yield await _looked(store, digest, info, pace=pace, repair=repair)


async def held(store: Store) -> tuple[int, int]:
    """How many objects there are, and how many bytes they have together. Raises StorageError."""
    count = size = 0
    async for key, info in listing(store, BLOBS):
        if digest_of_blob(key) is not None:
            count, size = count + 1, size + info.size
    return count, size


async def _standing(store: Store, algorithm: str, shard: str) -> list[tuple[Digest, ObjectInfo]]:
    found = [
        (digest, info)
        async for key, info in listing(store, shard_of_blobs(algorithm, shard))
        if (digest := digest_of_blob(key)) is not None
    ]
    return sorted(found, key=lambda one: one[0].hex)


async def _looked(store: Store, digest: Digest, info: ObjectInfo, *, pace: Pace, repair: bool) -> Looked:
    try:
        read, actual = await _hashed(store, digest, pace)
    except NotFound:
        return Looked(digest, 0)  # it has gone since it was listed
    except StorageError as error:
        return Looked(digest, info.size, f"cannot be read: {error}")
    if actual == digest:
        return Looked(digest, read.size)
    wrong = f"holds other bytes, those of {actual}"
    return Looked(digest, read.size, wrong, repair and await _removed(store, digest, read, wrong))


async def _hashed(store: Store, digest: Digest, pace: Pace) -> tuple[ObjectInfo, Digest]:
    hasher = Hasher(digest.algorithm)
    async with store.open(blob_key(digest)) as content:
        if isinstance(content, FileContent):
            offset = content.span.start
            while offset < content.span.stop:
                count = await asyncio.to_thread(_read, content.fd, offset, hasher)
                if not count:
                    break  # it ends early: the digest tells
                offset += count
                await pace.read(count)
        else:
            async for chunk in content.chunks:
                await asyncio.to_thread(hasher.update, chunk)
                await pace.read(len(chunk))
        return content.info, hasher.digest()


def _read(fd: int, offset: int, hasher: Hasher) -> int:
    data = os.pread(fd, PIECE, offset)
    hasher.update(data)
    return len(data)


async def _removed(store: Store, digest: Digest, read: ObjectInfo, wrong: str) -> bool:
    """Whether the wrong object has gone; not where another one stands there by now."""
    try:
        now = await store.stat(blob_key(digest))
    except NotFound:
        return True
    if (now.size, now.modified, now.etag) != (read.size, read.modified, read.etag):
        return False
    record = {"v": 1, "found": wrong, "size": read.size, "stored": read.modified}
    await store.put(quarantine_key(digest), json.dumps(record).encode())
    await store.delete(blob_key(digest))
    return True
