"""A store in memory whose time stamps are those of a clock that the test turns, for what grows old in it."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from msrcache.cache.journal import journal_text
from msrcache.cache.layout import blob_key, journal_key, layer_link, revision_link
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import A, Sickness
from tests.stage.clock import FakeClock

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(slots=True)
class Meddling:
    """Faults: what is called before each operation of the store, and may raise."""

    meddle: Callable[[str, str], None]

    async def before(self, operation: str, key: str) -> None:
        """As Faults.before."""
        self.meddle(operation, key)

    async def after(self, operation: str, key: str) -> None:
        """As Faults.after."""


def _stamps(clock: FakeClock) -> Iterator[float]:
    """What the clock says, a little later each time."""
    return (clock.time() + number * 1e-6 for number in itertools.count())


@dataclass(slots=True)
class Aging:
    """A store, and the clock by which it stamps."""

    store: Store
    memory: Memory
    sickness: Sickness
    clock: FakeClock
    metrics: Metrics
    written: int = 0

    def hold(self, data: bytes, *, repository: Repository = A, manifest: bool = False) -> Digest:
        """Have a blob with its link, as another program may have left it."""
        digest = Digest.of(data)
        link = revision_link if manifest else layer_link
        self.memory.contents.store(blob_key(digest), data)
        self.memory.contents.store(link(repository, digest), str(digest).encode())
        return digest

    def use(self, *digests: Digest, replica: str = "there-00000001") -> str:
        """Have the journal of a replica that used these; its key."""
        self.written += 1
        key = journal_key(replica, self.written)
        self.memory.contents.store(key, journal_text(digests))
        return key

    def keys(self, below: str = "") -> list[str]:
        """What stands there."""
        return sorted(key for key in self.memory.contents.objects if key.startswith(below))


@asynccontextmanager
async def aging() -> AsyncIterator[Aging]:
    """An empty one."""
    clock, sickness, metrics = FakeClock(), Sickness(), Metrics()
    memory = Memory(Contents(numbers=_stamps(clock)), faults=sickness)
    store = Store(memory, metrics=metrics, clock=clock)
    try:
        yield Aging(store, memory, sickness, clock, metrics)
    finally:
        await store.close()
