"""The whole cache on Azurite: two replicas on one container, what each pull costs, and a bad network between."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import blob_key, layer_link
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository
from tests.scenarios.plays import cache, pull, pulling, settled
from tests.stage.azureservice import RunningAzure
from tests.stage.images import noise
from tests.stage.scripted import REPOSITORY, Hold, Scripted, Turn, scripted
from tests.stage.toxics import Toxic, toxic

SMALL = noise(100_000, 1)
LARGE = noise(12_000_000, 2)
"""Two parts."""
AT_ONCE = 50

TOXINS = {
    "reset_peer": {"timeout": 0},
    "limit_data": {"bytes": 5_000_000},
    "latency": {"latency": 50},
    "bandwidth": {"rate": 20_000},
}

pytestmark = pytest.mark.real


@pytest.fixture
def container(azure_service: RunningAzure) -> str:
    """An empty one."""
    return azure_service.make_container()


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    """A registry with a ledger."""
    async with scripted() as server:
        yield server


@pytest.fixture
async def network(azure_service: RunningAzure, tmp_path: Path) -> AsyncIterator[Toxic]:
    """What lies between a replica and the service."""
    async with toxic(tmp_path / "toxics", azure_service.port) as proxy:
        yield proxy


@dataclass(frozen=True, slots=True)
class Stand:
    """One container of the service, and the upstream of all replicas on it."""

    folder: Path
    service: RunningAzure
    container: str
    upstream: Scripted

    @asynccontextmanager
    async def replica(
        self, name: str = "a", *, port: int | None = None, **more: object
    ) -> AsyncIterator[Application]:
        """A cache that streams what it has in the container; `port` is that of a proxy before the service."""
        storage = {"azure": self.service.settings(self.container, port=port, **more)}
        environ = {"REGISTRY_STORAGE": json.dumps({**storage, "redirect": {"disable": True}})}
        folder = self.folder / name
        spool = f"  spool: {{path: {folder / 'spool'}}}\n"
        async with cache(folder, self.upstream, more=spool, environ=environ) as application:
            yield application

    def stored(self, data: bytes) -> bool:
        """Whether the container has the blob whole."""
        blob = self.service.client.get_blob_client(self.container, blob_key(Digest.of(data)))
        return bool(blob.exists() and blob.download_blob().readall() == data)


@pytest.fixture
def stand(tmp_path: Path, azure_service: RunningAzure, container: str, upstream: Scripted) -> Stand:
    """Without a replica yet."""
    return Stand(tmp_path, azure_service, container, upstream)


@pytest.mark.parametrize("blobs", [100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_what_one_has_filled_the_other_serves_at_once(stand: Stand, blobs: int) -> None:
    """Each blob pulled through one replica and, as soon as that has stored it, through the other: every one a hit, and
    the upstream sent each once. A thousand with the slow tests.
    """
    async with stand.replica("a") as here, stand.replica("b") as there:
        for start in range(0, blobs, AT_ONCE):
            contents = [noise(700 + number, number) for number in range(start, start + AT_ONCE)]
            paths = [stand.upstream.publish_blob(data) for data in contents]
            cold = await asyncio.gather(*(pull(here, path) for path in paths))
            await settled(here)
            warm = await asyncio.gather(*(pull(there, path) for path in paths))
            assert [got.body for got in cold] == [got.body for got in warm] == contents
            assert {got.headers["x-cache"] for got in warm} == {"hit"}
    assert len([line for line in stand.upstream.lines if line.startswith("GET")]) == blobs


class Ledger:
    """What the service was asked about blobs and links, by method and last word of the name."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._seen = 0

    async def new(self) -> list[str]:
        """Since the last look."""
        asked = await self._stand.service.requests(self._stand.container)
        new, self._seen = asked[self._seen :], len(asked)
        lines = (line.partition(" ") for line in new if " docker/" in line or " /docker/" in line)
        return [f"{method} {name.rpartition('/')[2]}" for method, _, name in lines]


async def test_what_a_pull_costs_the_store(stand: Stand) -> None:
    """Exactly: a fill of one part four requests, one of them to check it; a hit one; a link that is not believed yet
    one more.
    """
    path = stand.upstream.publish_blob(SMALL)
    async with stand.replica("a") as here, stand.replica("b") as there:
        ledger = Ledger(stand)
        await pull(here, path)
        await settled(here)
        assert await ledger.new() == ["GET data", "PUT data", "HEAD data", "PUT link"]
        await pull(here, path)
        assert await ledger.new() == ["GET data"]
        await pull(there, path)
        assert await ledger.new() == ["GET data", "GET link"]
        await pull(there, path)
        assert await ledger.new() == ["GET data"]
        await pull(there, path, method="HEAD")
        assert await ledger.new() == ["HEAD data"]


async def test_a_fill_in_parts_costs_its_parts(stand: Stand) -> None:
    """Each block, the commit; and the same look before, check and link after."""
    path = stand.upstream.publish_blob(LARGE)
    async with stand.replica() as here:
        ledger = Ledger(stand)
        assert (await pull(here, path)).body == LARGE
        await settled(here)
        first, *parts, complete, check, link = await ledger.new()
    assert (first, complete) == ("GET data", "PUT data comp=blocklist")
    assert (parts, check, link) == (["PUT data comp=block"] * 2, "HEAD data", "PUT link")
    assert stand.stored(LARGE)


async def test_content_of_docker_registry_2_8_is_a_hit(stand: Stand) -> None:
    """With its leading slash, as it lies there: no byte of it is asked of the upstream; the price is told exactly."""
    path = stand.upstream.publish_blob(SMALL)
    digest = Digest.of(SMALL)
    link = layer_link(Repository.parse(REPOSITORY), digest)
    client = stand.service.client.get_container_client(stand.container)
    client.upload_blob(f"/{blob_key(digest)}", SMALL)
    client.upload_blob(f"/{link}", str(digest).encode())
    async with stand.replica() as here:
        ledger = Ledger(stand)
        await ledger.new()
        got = await pull(here, path)
        assert (got.status, got.body, got.headers["x-cache"]) == (200, SMALL, "hit")
        assert sorted(await ledger.new()) == ["GET data"] * 2 + ["GET link"] * 2
        await pull(here, path)
        assert await ledger.new() == ["GET data"] * 2
    assert [line for line in stand.upstream.lines if line.startswith("GET")] == []


@pytest.mark.parametrize("toxin", ["reset_peer", "limit_data", "latency", "bandwidth"])
async def test_hits_over_a_bad_network(stand: Stand, network: Toxic, toxin: str) -> None:
    """Whatever the network does while a hit is served: the right bytes, from the store or from the upstream."""
    path = stand.upstream.publish_blob(LARGE)
    async with stand.replica(port=network.port) as here:
        await pull(here, path)
        await settled(here)
        assert stand.stored(LARGE)
        await network.add(toxin, TOXINS[toxin])
        got = await pull(here, path)
        assert (got.status, got.whole) == (200, True)
        assert got.body == LARGE
        await network.remove(toxin)
        await settled(here)
        assert (await pull(here, path)).headers["x-cache"] == "hit"


@pytest.mark.parametrize("toxin", ["reset_peer", "latency", "bandwidth", "down"])
async def test_fills_over_a_bad_network(stand: Stand, network: Toxic, toxin: str) -> None:
    """Whatever it does while a blob is stored: the client has every byte, the store all of it or nothing."""
    path, hold = stand.upstream.publish_blob(LARGE), Hold(11_000_000)
    stand.upstream.script(path, Turn(hold=hold))
    async with stand.replica(port=network.port) as here:
        async with pulling(here, path) as answer:
            await asyncio.wait_for(hold.reached.wait(), 20)
            if toxin == "down":
                await network.enable(up=False)
            else:
                await network.add(toxin, TOXINS[toxin], upstream=True)
            hold.go.set()
            assert await answer.rest() == LARGE
        await settled(here)
        gone = toxin in ("down", "reset_peer")
        assert stand.stored(LARGE) is not gone
        if toxin == "down":
            await network.enable(up=True)
        else:
            await network.remove(toxin)
        again = await pull(here, path)
        assert again.body == LARGE
