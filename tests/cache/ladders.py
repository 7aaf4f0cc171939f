"""Replicas that share one store in memory, each with a clock of its own that only the test turns."""

import asyncio
from dataclasses import dataclass, field

from msrcache.cache.layout import LEASES, blob_key, lease_key, lease_of
from msrcache.cache.lease import Arrival, Follow, Turn
from msrcache.cache.leasearrival import LeaseSettings
from msrcache.cache.leaserecord import LeaseRecord, decoded
from msrcache.cache.leasing import Claimant, FleetLeases
from msrcache.oci.digest import Digest
from msrcache.oci.peers import NotFollowed, Sign
from msrcache.storage.calls import Retries
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.store import Store, StoreSettings
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import Sickness
from tests.stage.clock import FakeClock

BLOB = b"the blob"
DIGEST = Digest.of(BLOB)
LEASE = lease_of(DIGEST)
TTL = 10.0


async def quiet() -> None:
    """Let everything run that waits for nothing but its turn."""
    for _ in range(100):
        await asyncio.sleep(0)


@dataclass(slots=True)
class Timer:
    """Sleeping by a clock of the test's."""

    clock: FakeClock
    sleepers: list[tuple[float, "asyncio.Future[None]"]] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        """As asyncio.sleep."""
        entry = (self.clock.monotonic() + seconds, asyncio.get_running_loop().create_future())
        self.sleepers.append(entry)
        try:
            await entry[1]
        finally:
            self.sleepers.remove(entry)

    async def advance(self, seconds: float) -> None:
        """Let time pass, waking each sleeper when it is due, in order."""
        end = self.clock.monotonic() + seconds
        await quiet()
        while due := sorted(at for at, future in self.sleepers if at <= end and not future.done()):
            self.clock.advance(max(0.0, due[0] - self.clock.monotonic()))
            for at, future in list(self.sleepers):
                if at <= due[0] and not future.done():
                    future.set_result(None)
            await quiet()
        self.clock.advance(max(0.0, end - self.clock.monotonic()))


class Replica:
    """One of them."""

    def __init__(self, name: str, contents: Contents, settings: LeaseSettings, *, clock: FakeClock) -> None:
        self.sickness = Sickness()
        self.timer = Timer(clock)
        self.metrics = Metrics()
        self.store = Store(
            Memory(contents, faults=self.sickness),
            metrics=self.metrics,
            clock=clock,
            settings=StoreSettings(retries=Retries(base=0.0)),
        )
        self.address = f"{name}:7000"
        self.leases = FleetLeases(
            self.store,
            Claimant(name, lambda: self.address),
            settings=settings,
            metrics=self.metrics,
            clock=clock,
            sleep=self.timer.sleep,
        )

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(f"msrcache_{name}", labels) or 0.0

    async def turn(self, arrival: Arrival, *, patience: float = 60.0) -> Turn:
        """The next turn, however long it waits for it on its own clock."""
        task = asyncio.create_task(arrival.turn())
        waited = 0.0
        await quiet()
        while not task.done() and waited < patience:
            await self.timer.advance(0.1)
            waited += 0.1
        return await task

    async def broken(self, arrival: Arrival, sign: Sign = Sign.BROKEN) -> Turn:
        """Following came to this; the turn after it."""
        arrival.failed(NotFollowed(sign, "as the test wants"))
        return await self.turn(arrival)


class Fleet:
    """Two replicas, whose clocks are a year apart."""

    def __init__(self, **settings: float) -> None:
        made = LeaseSettings(**{"ttl": TTL, **settings})  # type: ignore[arg-type]
        self.contents = Contents()
        self.one = Replica("one", self.contents, made, clock=FakeClock())
        self.other = Replica("other", self.contents, made, clock=FakeClock(monotonic=9e7, time=1.8e9))

    def publish(self) -> None:
        """The blob is in the store."""
        self.contents.store(blob_key(DIGEST), BLOB)

    def record(self, n: int = 0) -> LeaseRecord | None:
        """What stands at a rung."""
        found = self.contents.objects.get(lease_key(LEASE, n))
        return None if found is None else decoded(found.data)

    def rungs(self) -> list[str]:
        """The keys of all rungs."""
        return sorted(key for key in self.contents.objects if key.startswith(LEASES))

    async def settled(self) -> None:
        """All ends are written."""
        for replica in (self.one, self.other):
            await replica.leases.settled()


def holder_of(turn: Turn) -> str:
    """Which replica is to be followed."""
    assert isinstance(turn, Follow)
    return turn.holder.replica
