"""A million blobs and what it takes to find what of them is due: `python -m tests.cache.million` prints it as JSON.

The store is made up as it is listed, so that what is measured is the planning. Every twentieth object is a manifest of
six layers; a day's journals of nine replicas name a tenth of all; a third was unused for longer than the ttl, and the
budget asks for more.
"""

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from msrcache.cache.expiry import Terms
from msrcache.cache.journal import HEADER, journal_text
from msrcache.cache.layout import (
    MERGED,
    REPOSITORIES,
    SHARDS,
    USES,
    blob_key,
    journal_key,
    layer_link,
    revision_link,
)
from msrcache.cache.ledger import Ledger
from msrcache.cache.plan import planned
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository
from msrcache.oci.ranges import Span
from msrcache.storage.driver import ObjectInfo, StreamContent
from msrcache.storage.memory import Memory
from msrcache.storage.store import Store
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics

PER_SHARD = 3907
BLOBS = PER_SHARD * len(SHARDS)
DAY, NOW, SIZE = 86400.0, 1_000_000_000.0, 10_000_000
MANIFEST_EVERY, LAYERS = 20, 6


def hex_of(shard: str, number: int) -> str:
    """The digits of the object of that number: cheap, for making it up is no part of what is measured."""
    return f"{shard}{number:062x}"


def digest_of(shard: str, number: int) -> Digest:
    """The object of that number."""
    return Digest("sha256", hex_of(shard, number))


def _manifest(shard: str, number: int) -> bytes:
    layers = [
        {"digest": str(digest_of(shard, number + more)), "size": SIZE, "mediaType": "a/b"}
        for more in range(1, LAYERS + 1)
    ]
    return json.dumps({"schemaVersion": 2, "layers": layers}).encode()


class Million(Memory):
    """A store that holds so much; only what is written stands in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._manifests: dict[str, tuple[str, int]] = {}

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """As Driver."""
        info = ObjectInfo(SIZE, 1.0)
        shard = prefix.rpartition("/")[2]
        if prefix == REPOSITORIES.rstrip("/"):
            for key in _links():
                yield key, info
        elif "/blobs/" in prefix and "sha512" not in prefix:
            shard = shard if shard in SHARDS else "00"
            before, _, behind = blob_key(digest_of(shard, 0)).partition(hex_of(shard, 0))
            for number in range(PER_SHARD):
                yield f"{before}{hex_of(shard, number)}{behind}", info
        elif prefix == USES.rstrip("/"):
            for number in range(9 * 24):
                yield journal_key("there", number), ObjectInfo(1, NOW - number * 100)

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[StreamContent]:
        """As Driver."""
        data = self._data(key)

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        yield StreamContent(ObjectInfo(len(data), NOW), Span.whole(len(data)), chunks())

    async def put(self, key: str, data: bytes) -> None:
        """As Driver; it is written and forgotten."""

    async def delete(self, *keys: str) -> None:
        """As Driver; nothing goes."""

    def _data(self, key: str) -> bytes:
        if key.startswith(MERGED):
            return _merged(key.removeprefix(MERGED))
        if key.startswith(USES):
            number = int(key.rpartition("/")[2])
            return journal_text(_journal(number))
        hexdigits = key.split("/")[-2]
        numbers = range(0, PER_SHARD, MANIFEST_EVERY)
        known = self._manifests or {hex_of(one, n): (one, n) for one in SHARDS for n in numbers}
        self._manifests = known
        return _manifest(*known[hexdigits])


def _merged(shard: str) -> bytes:
    """A third was last used forty days ago, in runs, so that images go with their layers; the rest within days."""
    lines = []
    for number in range(PER_SHARD):
        ago = 40.0 if (number // MANIFEST_EVERY) % 3 == 0 else 1 + number % 20
        lines.append(f'["sha256:{hex_of(shard, number)}", {NOW - ago * DAY}, 1.0, {SIZE}]\n')
    return (HEADER + "".join(lines)).encode()


def _journal(number: int) -> Iterator[Digest]:
    shards = SHARDS[number % 256 : number % 256 + 1]
    return (digest_of(shard, one) for shard in shards for one in range(1, PER_SHARD, 8))


def _links() -> Iterator[str]:
    repository, first = Repository.parse("team/app"), digest_of("00", 0)
    layer, manifest = (link(repository, first).partition(first.hex) for link in (layer_link, revision_link))
    for shard in SHARDS:
        for number in range(PER_SHARD):
            before, _, behind = layer if number % MANIFEST_EVERY else manifest
            yield f"{before}{hex_of(shard, number)}{behind}"


async def planning() -> dict[str, float]:
    """What it takes: blobs, how many are due, seconds of CPU (others may use this machine), MiB."""
    store = Store(Million(), metrics=Metrics(), clock=SystemClock())
    try:
        before = time.process_time()
        ledger = Ledger(store, replica="here")
        holdings = await ledger.holdings(await ledger.used(), now=NOW, write=True)
        terms = Terms(ttl=30 * DAY, budget=int(BLOBS * SIZE * 0.65))
        plan = await planned(store, holdings, terms, pins=(), now=NOW, progress=lambda *_: None)
        seconds = time.process_time() - before
    finally:
        await store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"blobs": len(holdings), "due": len(plan.due), "seconds": round(seconds, 1), "MiB": round(peak)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(planning())))
