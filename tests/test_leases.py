"""Named leases of replicas and of commands: on a store without exclusive creates both take them at the same home."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import replica_key
from msrcache.cache.leasing import FleetLeases
from msrcache.config.load import parse
from msrcache.inquiry import CannotStart
from msrcache.leases import Visitor
from msrcache.storage.drivers import open_driver
from msrcache.storage.store import Store
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics
from tests.scenarios.plays import cache, configuration
from tests.stage.process import until
from tests.stage.scripted import scripted

SECRET = {"REGISTRY_HTTP_SECRET": "equal on all replicas"}
PEERS = {**SECRET, "REGISTRY_CACHE_PEER_ADDR": "127.0.0.1:0"}
BEAT = "1s"
LONG = "60s"
"""What the command is told of it: no pause of a test makes a replica look dead."""
WORK = "janitor"


@asynccontextmanager
async def replica(folder: Path, *, environ: Mapping[str, str] = PEERS) -> AsyncIterator[Application]:
    """One on the folder, whose creates are not relied on."""
    async with (
        scripted() as upstream,
        cache(folder, upstream, heartbeat=BEAT, environ=environ) as application,
    ):
        application.store.create_is_exclusive = False
        yield application


@asynccontextmanager
async def command(folder: Path, *, environ: Mapping[str, str] = SECRET) -> AsyncIterator[Visitor]:
    """What a command has of leases, on the same folder."""
    text = configuration(folder, "http://127.0.0.1:1", heartbeat=LONG)
    config = parse(text, "config.yml", environ).config
    store = Store(open_driver(config.storage), metrics=Metrics(), clock=SystemClock())
    store.create_is_exclusive = False
    try:
        yield Visitor(store, config, replica="command-00000001", metrics=Metrics(), clock=SystemClock())
    finally:
        await store.close()


def leases_of(application: Application) -> FleetLeases:
    """Those that its janitor takes too."""
    assert isinstance(application.leases, FleetLeases)
    return application.leases


def rungs(folder: Path) -> list[str]:
    """What leases left in the store."""
    return [path.name for path in (folder / "store" / "msrcache" / "leases").rglob("*") if path.is_file()]


async def meet(folder: Path, *applications: Application) -> None:
    """Returns when all see all, and whoever reads the store does."""
    names = sorted(application.replica for application in applications)

    async def met() -> bool:
        shown = all((folder / "store" / replica_key(name)).exists() for name in names)
        return shown and all([one.replica for one in each.fleet.alive()] == names for each in applications)

    await until(met, what="a fleet that sees itself")


async def test_a_command_takes_its_lease_where_replicas_do(tmp_path: Path) -> None:
    """Whoever of the replicas is the home, and whoever comes first; nothing of it stands in the store."""
    async with replica(tmp_path) as one, replica(tmp_path) as other, command(tmp_path) as visitor:
        await meet(tmp_path, one, other)
        for holder in (one, other):
            async with leases_of(holder).named(WORK) as held:
                assert held is not None
                async with visitor.named(WORK) as mine:
                    assert mine is None
            await leases_of(holder).settled()
        async with visitor.named(WORK) as mine:
            assert mine is not None
            async with leases_of(one).named(WORK) as held, leases_of(other).named(WORK) as another:
                assert held is another is None
            assert rungs(tmp_path) == []
        async with leases_of(other).named(WORK) as held:
            assert held is not None


@pytest.mark.parametrize("fleet", ["nobody", "without a secret"])
async def test_without_a_home_the_store_has_it(tmp_path: Path, fleet: str) -> None:
    """Where no replica keeps leases, a command and the replicas that are there all the same meet in the store."""
    async with command(tmp_path) as visitor:
        if fleet == "nobody":
            async with visitor.named(WORK) as mine:
                assert mine is not None
                assert rungs(tmp_path) == ["0"]
        else:
            async with replica(tmp_path, environ={}) as one, visitor.named(WORK) as mine:
                assert mine is not None
                async with leases_of(one).named(WORK) as held:
                    assert held is None
    assert rungs(tmp_path) == []


async def test_a_home_that_cannot_be_asked_is_told(tmp_path: Path) -> None:
    """Not taken for somebody who is at it: the sentence says who could not be asked, and what to do."""
    async with replica(tmp_path) as one, command(tmp_path) as visitor:
        await meet(tmp_path, one)
        port = one.peering.port
        assert port is not None
        await port.close()
        with pytest.raises(CannotStart, match=rf"'janitor' stands in .*{one.replica}.*connection refused"):
            async with visitor.named(WORK):
                pytest.fail("it was granted")


@pytest.mark.parametrize(
    ("environ", "said"),
    [({}, "needs their http.secret"), ({"REGISTRY_HTTP_SECRET": "another"}, "is http.secret the same")],
)
async def test_a_command_needs_the_secret_of_the_fleet(
    tmp_path: Path, environ: dict[str, str], said: str
) -> None:
    """Without it, or with another, it does nothing and says why."""
    async with replica(tmp_path) as one, command(tmp_path, environ=environ) as visitor:
        await meet(tmp_path, one)
        with pytest.raises(CannotStart, match=said):
            async with visitor.named(WORK):
                pytest.fail("it was granted")


async def test_the_janitor_takes_the_replicas_own_lease(tmp_path: Path) -> None:
    """At the home: while another replica has its turn it is busy, and its look leaves no lease in the store."""
    async with replica(tmp_path) as one, replica(tmp_path) as other:
        await meet(tmp_path, one, other)
        async with leases_of(other).named(WORK):
            assert await one.expiring._took_turn(one.store, leases_of(one).named) == "busy"
        await leases_of(other).settled()
        assert await one.expiring._took_turn(one.store, leases_of(one).named) == "done"
        assert rungs(tmp_path) == []
