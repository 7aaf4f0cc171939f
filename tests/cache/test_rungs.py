"""Rungs on real stores: two replicas whose clocks are an hour apart, each with a driver of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from msrcache.cache.layout import LEASES, blob_key
from msrcache.cache.lease import Arrival, Fetch, Follow, Found, Turn
from msrcache.cache.leasearrival import LeaseSettings
from msrcache.cache.leasing import Claimant, FleetLeases
from msrcache.oci.digest import Digest
from msrcache.oci.peers import NotFollowed, Sign
from msrcache.storage.driver import Driver
from msrcache.storage.store import Store
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics
from tests.contract.harness import FolderHarness, MemoryHarness
from tests.stage.s3services import versitygw

BLOBS = [b"blob %d" % number for number in range(12)]


class Shifted(SystemClock):
    """A machine that was started, and whose date is, an hour later."""

    __slots__ = ()

    def monotonic(self) -> float:
        """As Clock."""
        return super().monotonic() + 3600

    def time(self) -> float:
        """As Clock."""
        return super().time() + 3600


@pytest.fixture(params=["memory", "folder", pytest.param("s3", marks=pytest.mark.real)])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], Driver]]:
    """Makes drivers on one store."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryHarness().driver
        elif request.param == "folder":
            yield FolderHarness(tmp_path).driver
        else:
            service = await stack.enter_async_context(versitygw(tmp_path / "s3"))
            service.make_bucket("leases")
            yield lambda: service.driver("leases")


class Fleet:
    """Two replicas on one store."""

    def __init__(self, driver: Callable[[], Driver], *, ttl: float) -> None:
        self.stores = [
            Store(driver(), metrics=Metrics(), clock=clock) for clock in (SystemClock(), Shifted())
        ]
        settings = LeaseSettings(ttl=ttl, patience=60.0)
        self.one, self.other = (
            FleetLeases(
                store,
                Claimant(name, lambda: "127.0.0.1:1"),
                settings=settings,
                metrics=Metrics(),
                clock=clock,
            )
            for store, name, clock in zip(
                self.stores, ("one", "other"), (SystemClock(), Shifted()), strict=True
            )
        )

    async def publish(self, data: bytes) -> None:
        """The blob is in the store."""
        await self.stores[0].put(blob_key(Digest.of(data)), data)

    async def rungs(self) -> list[str]:
        """What is left."""
        for leases in (self.one, self.other):
            await leases.settled()
        return [key async for key, _ in self.stores[1].list(LEASES)]


@asynccontextmanager
async def _fleet(driver: Callable[[], Driver], *, ttl: float = 60.0) -> AsyncIterator[Fleet]:
    fleet = Fleet(driver, ttl=ttl)
    try:
        yield fleet
    finally:
        for store in fleet.stores:
            await store.close()


async def test_of_two_that_come_at_once_one_fetches(driver: Callable[[], Driver]) -> None:
    """The other follows it, and finds the blob in the end; no record is left."""
    async with _fleet(driver) as fleet:
        for data in BLOBS:
            digest = Digest.of(data)
            async with (
                fleet.one.arrive(digest, size=None) as one,
                fleet.other.arrive(digest, size=None) as other,
            ):
                turns = dict(zip((one, other), await asyncio.gather(one.turn(), other.turn()), strict=True))
                winner = one if turns[one] == Fetch() else other
                loser = other if winner is one else one
                assert turns[winner] == Fetch()
                assert isinstance(turns[loser], Follow)
                await fleet.publish(data)
                winner.stored()
                loser.failed(NotFollowed(Sign.BROKEN, "cut"))
                assert await loser.turn() == Found()
        assert await fleet.rungs() == []


async def test_one_who_stands_still_is_succeeded(driver: Callable[[], Driver]) -> None:
    """As soon as the observer's own clock says so; both end, and no record is left."""
    data = BLOBS[0]
    async with _fleet(driver, ttl=0.3) as fleet:
        still = asyncio.Event()
        fleet.one = FleetLeases(
            fleet.stores[0],
            Claimant("one", lambda: "127.0.0.1:1"),
            settings=LeaseSettings(ttl=0.3, patience=60.0),
            metrics=Metrics(),
            clock=SystemClock(),
            sleep=lambda _: still.wait(),
        )
        digest = Digest.of(data)
        async with (
            fleet.one.arrive(digest, size=None) as one,
            fleet.other.arrive(digest, size=None) as other,
        ):
            assert await one.turn() == Fetch()
            assert isinstance(await other.turn(), Follow)
            await other.dead()
            assert await _not_followed(other) == Fetch()
            await fleet.publish(data)
            other.stored()
        assert await fleet.rungs() == []


async def _not_followed(arrival: Arrival) -> Turn:
    while True:
        arrival.failed(NotFollowed(Sign.BROKEN, "cut"))
        turn = await arrival.turn()
        if not isinstance(turn, Follow):
            return turn
