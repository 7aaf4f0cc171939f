"""A cache over a fake upstream and a store in memory, for the tests of this package."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msrcache.cache.backlog import Backlog
from msrcache.cache.freshness import Freshness, FreshnessSettings
from msrcache.cache.kitchen import FillSettings, Kitchen
from msrcache.cache.layout import blob_key
from msrcache.cache.lease import Leases, SoleReplica
from msrcache.cache.links import Links
from msrcache.cache.local import LocalTier
from msrcache.cache.presence import Presence
from msrcache.cache.pullthrough import PullThrough
from msrcache.cache.redirects import Redirects, RedirectSettings
from msrcache.cache.spool import Spool
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository
from msrcache.oci.peers import Followable
from msrcache.oci.pulls import BlobPull
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import Blob, Elsewhere, FileSpan
from msrcache.storage.errors import NotFound, StorageError
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.stage.bucket import Bucket, Signing
from tests.stage.clock import FakeClock
from tests.stage.upstream import FakeUpstream

A = Repository.parse("team/a")
B = Repository.parse("team/b")


@dataclass(slots=True)
class Sickness:
    """Faults of a store: an operation on a key that holds the text fails, or waits before it takes effect.

    `fails` maps an operation to that text; `held` names the one operation that sets `reached` and waits for `release`;
    keys that hold the text of `hides` are never found. `calls` has every request to the store, in order: signing and
    reading on are none.
    """

    calls: list[str] = field(default_factory=list)
    signed: int = 0
    fails: dict[str, str] = field(default_factory=dict)
    held: str = ""
    hides: str | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def before(self, operation: str, key: str) -> None:
        """As Faults.before."""
        self.signed += operation == "presign"
        if operation not in ("presign", "read"):
            self.calls.append(f"{operation} {key}")
        if operation == self.held:
            self.reached.set()
            await self.release.wait()
        if operation in self.fails and self.fails[operation] in key:
            raise StorageError("inmemory", key, None, "sick")
        if self.hides is not None and operation in ("stat", "open") and self.hides in key:
            raise NotFound("inmemory", key)

    async def after(self, operation: str, key: str) -> None:
        """As Faults.after."""


@dataclass(frozen=True, slots=True)
class Local:
    """A hot tier in the folder `local`."""

    size: int = 1 << 30
    eager: bool = True


@dataclass(slots=True)
class Cache:
    """The parts of one cache."""

    upstream: FakeUpstream
    memory: Memory
    spool: Spool
    pulls: PullThrough
    sickness: Sickness
    metrics: Metrics
    clock: FakeClock
    local: LocalTier | None = None

    def stored(self, digest: Digest) -> bytes | None:
        """What the store has of a blob."""
        found = self.memory.contents.objects.get(blob_key(digest))
        return None if found is None else found.data

    async def read(self, blob: Blob) -> bytes:
        """The body, whole."""
        assert not isinstance(blob.body, Elsewhere)
        data = b""
        async for chunk in blob.body:
            if not isinstance(chunk, FileSpan):
                data += chunk
            else:
                data += b"".join([piece async for piece in self.spool.read(chunk)])
        return data

    async def close(self) -> None:
        """All but the store."""
        await self.pulls.close()
        if self.local is not None:
            await self.local.close()
        await self.spool.close()

    async def get(self, pull: BlobPull) -> bytes:
        """Pull a blob and read it."""
        async with self.pulls.blob(pull) as blob:
            return await self.read(blob)


async def tier(path: Path, local: Local, *, clock: FakeClock, metrics: Metrics | None = None) -> LocalTier:
    """A hot tier that was started."""
    made = LocalTier(path, size=local.size, eager=local.eager, metrics=metrics or Metrics(), clock=clock)
    await made.start()
    return made


@asynccontextmanager
async def cache(
    path: Path,
    *,
    upstream: FakeUpstream | None = None,
    settings: FillSettings | None = None,
    spool_size: int = 0,
    service: Bucket | None = None,
    redirecting: RedirectSettings | None = None,
    local: Local | None = None,
    contents: Contents | None = None,
    leases: Leases | None = None,
    peers: Followable | None = None,
) -> AsyncIterator[Cache]:
    """A cache that is closed on leaving; over a service with signed URLs its hits are redirected."""
    upstream, settings = upstream or FakeUpstream(), settings or FillSettings()
    sickness, clock, metrics = Sickness(), FakeClock(), Metrics()
    memory = Memory(contents, faults=sickness) if service is None else Signing(service, faults=sickness)
    store, spool = Store(memory, metrics=metrics, clock=clock), Spool(path / "spool", size=spool_size)
    await spool.start()
    hot = await tier(path / "local", local, clock=clock, metrics=metrics) if local is not None else None
    kitchen = Kitchen(
        upstream=upstream,
        store=store,
        spool=spool,
        backlog=Backlog(spool, limit=settings.concurrency, metrics=metrics),
        links=Links(store, clock),
        presence=Presence(clock),
        leases=leases or SoleReplica(),
        peers=peers,
        metrics=metrics,
        clock=clock,
        settings=settings,
        local=hot,
    )
    pulls = _pulls(kitchen, redirecting or RedirectSettings())
    made = Cache(upstream, memory, spool, pulls, sickness, metrics, clock, hot)
    try:
        yield made
    finally:
        await made.close()
        await store.close()


def _pulls(kitchen: Kitchen, settings: RedirectSettings) -> PullThrough:
    freshness = Freshness(kitchen.upstream, kitchen.links, kitchen.clock, FreshnessSettings())
    metrics, clock = kitchen.metrics, kitchen.clock
    redirects = Redirects(kitchen.store, kitchen.presence, settings=settings, metrics=metrics, clock=clock)
    return PullThrough(kitchen, freshness, redirects)


def blob_pull(
    digest: Digest, *, repository: Repository = A, wanted: RangeRequest | None = None, address: str = ""
) -> BlobPull:
    """A pull by the cache itself."""
    return BlobPull(repository=repository, digest=digest, range=wanted, address=address)
