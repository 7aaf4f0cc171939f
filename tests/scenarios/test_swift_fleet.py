"""Replicas on a real Swift, where leases stand at a home: one fetch for all, whoever dies, and one janitor."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from msrcache.assembly import Application
from msrcache.cache.homerungs import home_of
from msrcache.cache.layout import LEASES, blob_key, lease_of
from msrcache.cache.leasing import FleetLeases
from msrcache.cli import main
from msrcache.oci.digest import Digest
from tests.scenarios.plays import cache, pull, pulling, settled
from tests.stage.cacheprocess import RunningCache
from tests.stage.cacheprocess import cache as process
from tests.stage.images import noise
from tests.stage.process import until
from tests.stage.scripted import Hold, Scripted, Turn, scripted
from tests.stage.swiftservices import RunningSwift

SIZE: Final = 3 << 20
HELD: Final = 1 << 20
BEAT: Final = "3s"
SECRET: Final = "equal on all replicas"

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    """A registry with a ledger."""
    async with scripted() as server:
        yield server


class Town:
    """Replicas on one new container; each has a spool and a peer port of its own."""

    def __init__(self, folder: Path, service: RunningSwift, container: str, upstream: Scripted) -> None:
        self.service = service
        self.upstream = upstream
        self.replicas: list[Application] = []
        self._folder = folder
        self._container = container
        self._seeds = itertools.count()

    @property
    def storage(self) -> Mapping[str, object]:
        """The section of the configuration."""
        return {"swift": self.service.settings(self._container), "redirect": {"disable": True}}

    @asynccontextmanager
    async def replica(self, name: str) -> AsyncIterator[Application]:
        """One in this process."""
        environ = {
            "REGISTRY_STORAGE": json.dumps(self.storage),
            "REGISTRY_CACHE_SPOOL_PATH": str(self._folder / name),
            "REGISTRY_CACHE_PEER_ADDR": "127.0.0.1:0",
            "REGISTRY_HTTP_SECRET": SECRET,
        }
        async with cache(self._folder / name, self.upstream, heartbeat=BEAT, environ=environ) as application:
            self.replicas.append(application)
            yield application

    @asynccontextmanager
    async def mortal(self) -> AsyncIterator[RunningCache]:
        """One in a process of its own, that can be killed."""
        settings = {
            "access": {"mode": "open"},
            "heartbeat": BEAT,
            "spool": {"path": str(self._folder / "mortal" / "spool")},
            "peer": {"addr": "127.0.0.1:0"},
        }
        sections = {"storage": self.storage}
        upstream = {"url": self.upstream.url}
        async with process(
            self._folder / "mortal", upstream, settings=settings, sections=sections, secret=SECRET
        ) as running:
            yield running

    async def met(self, count: int) -> str:
        """Returns when all in this process see so many alive; the name of the one that is not of them."""
        mine = {one.replica for one in self.replicas}

        async def all_see() -> bool:
            return all(len(one.fleet.alive()) == count for one in self.replicas)

        await until(all_see, what=f"{count} replicas that see each other", seconds=90)
        others = {member.replica for member in self.replicas[0].fleet.alive()} - mine
        return others.pop() if others else ""

    def blob_at(self, home: str) -> bytes:
        """New content whose lease this replica keeps."""
        members = self.replicas[0].fleet.alive()
        return next(
            data
            for data in (noise(SIZE, seed) for seed in self._seeds)
            if home_of(lease_of(Digest.of(data)), members).replica == home
        )

    async def leases(self) -> list[str]:
        """Records of leases that stand in the container: none should."""
        return await self.service.names(self._container, f"files/{LEASES}")

    async def stored(self, data: bytes) -> bool:
        """Whether the container has the blob whole."""
        path = f"/{self._container}/files/{blob_key(Digest.of(data))}"
        status, _, body = await self.service.ask("GET", path)
        return status == 200 and body == data

    def fetches(self, path: str) -> list[str]:
        """What the upstream was asked for of it: "" for the whole, else the range."""
        asked = f"GET {path}"
        return [line.removeprefix(asked).strip() for line in self.upstream.lines if line.startswith(asked)]


@pytest.fixture
async def town(tmp_path: Path, swift_service: RunningSwift, upstream: Scripted) -> Town:
    """An empty one."""
    return Town(tmp_path, swift_service, await swift_service.make_container(), upstream)


async def follows(application: Application) -> bool:
    """Whether it follows another replica."""
    return any(row["source"] not in ("", "upstream", "store") for row in application.pulls.fills.rows())


def skipped(application: Application) -> float:
    """How many of its fills went without a lease, because the home was not there."""
    sample = application.metrics.registry.get_sample_value
    return sample("msrcache_lease_skipped_total", {"reason": "home"}) or 0.0


async def fetched_once(town: Town, one: Application, other: Application, data: bytes) -> None:
    """Pulled through both at once: the upstream sends it once, and no record stands in the container meanwhile."""
    path, hold = town.upstream.publish_blob(data), Hold(HELD)
    town.upstream.script(path, Turn(hold=hold))
    first = asyncio.create_task(pull(one, path))
    async with asyncio.timeout(60):
        await hold.reached.wait()
    second = asyncio.create_task(pull(other, path))
    await until(lambda: follows(other), what="a follower")
    assert await town.leases() == []
    hold.go.set()
    assert (await first).body == (await second).body == data
    await settled(one)
    await settled(other)
    assert town.fetches(path) == [""]
    assert await town.stored(data)


async def test_one_fetch_for_both_wherever_the_home_is(town: Town) -> None:
    """At the holder's, and at the follower's."""
    async with town.replica("a") as one, town.replica("b") as other:
        await town.met(2)
        for home in (one, other):
            await fetched_once(town, one, other, town.blob_at(home.replica))
        assert skipped(one) == skipped(other) == 0


@pytest.mark.parametrize("home", ["of the dead", "of the living"])
async def test_a_holder_that_is_killed_is_succeeded(town: Town, home: str) -> None:
    """Its follower's client sees a pause: the rest is asked of the upstream, whether the records died too or not."""
    async with town.replica("a") as living, town.mortal() as dead:
        name = await town.met(2)
        data = town.blob_at(living.replica if home == "of the living" else name)
        path, hold = town.upstream.publish_blob(data), Hold(HELD)
        town.upstream.script(path, Turn(hold=hold))
        async with pulling(dead.port, path) as lost:
            await lost.take(1000)
            async with asyncio.timeout(60):
                await hold.reached.wait()
            async with pulling(living, path) as followed:
                head = await followed.take(1000)
                assert await follows(living)
                dead.process.kill()
                assert head + await followed.rest() == data
        hold.go.set()
        await settled(living)
        whole, rest = town.fetches(path)
        assert (whole, rest[:6]) == ("", "bytes=")
        assert await town.stored(data)
        assert skipped(living) == (home == "of the dead")
        assert await town.leases() == []


async def test_a_home_that_is_killed_costs_no_pull(town: Town) -> None:
    """The fill whose record it kept ends well; when it is missed, its leases move, and one fetch serves both again."""
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(town.replica(name)) for name in ("a", "b")]
        dead = await stack.enter_async_context(town.mortal())
        name = await town.met(3)
        data, later = town.blob_at(name), town.blob_at(name)
        path, hold = town.upstream.publish_blob(data), Hold(HELD)
        town.upstream.script(path, Turn(hold=hold))
        async with pulling(one, path) as answer:
            head = await answer.take(1000)
            async with asyncio.timeout(60):
                await hold.reached.wait()
            dead.process.kill()
            second = asyncio.create_task(pull(other, path))
            hold.go.set()
            assert head + await answer.rest() == data
            assert (await second).body == data
        await settled(one)
        await settled(other)
        assert len(town.fetches(path)) <= 2
        assert await town.stored(data)
        await town.met(2)
        await fetched_once(town, one, other, later)


async def test_a_command_asks_the_home_for_the_janitors_lease(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`msrcache gc` beside a replica: one of them looks at a time, and the container has no record of it."""
    config = {
        "version": "0.1",
        "storage": {**town.storage, "delete": {"enabled": True}},
        "http": {"secret": SECRET},
        "proxy": {"remoteurl": town.upstream.url, "ttl": "1h"},
        "cache": {"heartbeat": "60s"},  # so that no pause of this test makes the replica look dead
    }
    file = tmp_path / "command.yml"
    file.write_text(json.dumps(config))
    async with town.replica("a") as one:
        await town.met(1)
        await until(lambda: shown(town, one), what="a replica's record")
        assert isinstance(one.leases, FleetLeases)
        async with one.leases.named("janitor") as held:
            assert held is not None
            assert await asyncio.to_thread(main, ["gc", str(file)]) == 1
            assert "another replica" in capsys.readouterr().out
        await one.leases.settled()
        assert await asyncio.to_thread(main, ["gc", str(file)]) == 0
        async with one.leases.named("janitor") as held:
            assert held is not None
        assert await town.leases() == []


async def shown(town: Town, one: Application) -> bool:
    """Whether the record of the replica stands in the container."""
    return any(name.endswith(one.replica) for name in await town.service.names(town._container, "files/"))
