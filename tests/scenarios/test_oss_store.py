"""The whole cache on our stand-in for OSS: two replicas on one bucket, what each pull costs, bad networks."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import blob_key, layer_link
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository
from tests.scenarios.plays import cache, port_of, pull, pulling, settled
from tests.stage.images import noise
from tests.stage.ossservice import Service, ossservice
from tests.stage.scripted import REPOSITORY, Hold, Scripted, Turn, scripted
from tests.stage.toxics import Toxic, toxic

BUCKET = "replicas"
SMALL = noise(100_000, 1)
LARGE = noise(12_000_000, 2)
"""Two parts."""
AT_ONCE = 50
EVERYTHING = "  redirect: {threshold: 0}\n"

TOXINS = {
    "reset_peer": {"timeout": 0},
    "limit_data": {"bytes": 5_000_000},
    "latency": {"latency": 50},
    "bandwidth": {"rate": 20_000},
}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """With an empty bucket."""
    async with ossservice() as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    """A registry with a ledger."""
    async with scripted() as server:
        yield server


@pytest.fixture
async def network(service: Service, tmp_path: Path) -> AsyncIterator[Toxic]:
    """What lies between a replica and the service."""
    async with toxic(tmp_path / "toxics", service.port) as proxy:
        yield proxy


@dataclass(frozen=True, slots=True)
class Stand:
    """The service, and the upstream of all replicas on it."""

    folder: Path
    service: Service
    upstream: Scripted

    @asynccontextmanager
    async def replica(
        self, name: str = "a", *, port: int | None = None, redirects: bool = False
    ) -> AsyncIterator[Application]:
        """A cache on the bucket; `port` is that of a proxy before the service."""
        storage = {"oss": self.service.settings(BUCKET, port=port), "redirect": {"disable": not redirects}}
        folder = self.folder / name
        more = f"  spool: {{path: {folder / 'spool'}}}\n{EVERYTHING if redirects else ''}"
        environ = {"REGISTRY_STORAGE": json.dumps(storage)}
        async with cache(folder, self.upstream, more=more, environ=environ) as application:
            yield application

    def stored(self, data: bytes) -> bool:
        """Whether the bucket has the blob whole."""
        found = self.service.buckets[BUCKET].objects.get(blob_key(Digest.of(data)))
        return found is not None and found.data == data


@pytest.fixture
def stand(tmp_path: Path, service: Service, upstream: Scripted) -> Stand:
    """Without a replica yet."""
    return Stand(tmp_path, service, upstream)


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


class Asked:
    """What the service was asked about blobs and links: method, last word of the key, and of the query."""

    def __init__(self, stand: Stand) -> None:
        self._service = stand.service
        self._seen = len(self._service.requests(BUCKET))

    def new(self) -> list[str]:
        """Since the last look."""
        asked = self._service.requests(BUCKET)
        new, self._seen = asked[self._seen :], len(asked)
        lines = (line.split(" ") for line in new if " docker/" in line)
        return [" ".join((method, key.rpartition("/")[2], *words)) for method, key, *words in lines]


async def test_what_a_pull_costs_the_store(stand: Stand) -> None:
    """Exactly: a fill of one part four requests, one of them to check it; a hit one; a link that is not believed yet
    one more.
    """
    path = stand.upstream.publish_blob(SMALL)
    async with stand.replica("a") as here, stand.replica("b") as there:
        asked = Asked(stand)
        await pull(here, path)
        await settled(here)
        assert asked.new() == ["GET data", "PUT data", "HEAD data", "PUT link"]
        await pull(here, path)
        assert asked.new() == ["GET data"]
        await pull(there, path)
        assert asked.new() == ["GET data", "GET link"]
        await pull(there, path)
        assert asked.new() == ["GET data"]
        await pull(there, path, method="HEAD")
        assert asked.new() == ["HEAD data"]


async def test_a_fill_in_parts_costs_its_parts(stand: Stand) -> None:
    """begin, each part, complete; and the same look before, check and link after."""
    path = stand.upstream.publish_blob(LARGE)
    async with stand.replica() as here:
        asked = Asked(stand)
        assert (await pull(here, path)).body == LARGE
        await settled(here)
        first, begin, *parts, complete, check, link = asked.new()
    assert (first, begin, complete) == ("GET data", "POST data uploads", "POST data uploadId")
    assert [sorted(part.split()) for part in parts] == [["PUT", "data", "partNumber", "uploadId"]] * 2
    assert (check, link) == ("HEAD data", "PUT link")
    assert stand.stored(LARGE)
    assert stand.service.uploads(BUCKET) == []


async def test_a_redirected_pull_costs_the_cache_nothing(stand: Stand) -> None:
    """Cold through one replica; then the client is sent to the bucket, whole and by range: a signed URL that is good as
    it is. Where the blob is believed present no request is made for it, on another replica one, and its link's.
    """
    path = stand.upstream.publish_blob(LARGE)
    async with stand.replica("a", redirects=True) as here, stand.replica("b", redirects=True) as there:
        assert (await pull(here, path)).body == LARGE
        await settled(here)
        asked = Asked(stand)
        answer = await pull(here, path)
        assert (answer.status, asked.new()) == (307, [])
        url = answer.headers["location"]
        assert url.startswith(f"http://localhost:{stand.service.port}/{BUCKET}/docker/registry/v2/blobs/")
        async with aiohttp.ClientSession() as http:
            async with http.get(url) as whole:
                assert (whole.status, await whole.read()) == (200, LARGE)
            async with http.get(url, headers={"Range": "bytes=5-9"}) as part:
                assert (part.status, await part.read()) == (206, LARGE[5:10])
            asked.new()
            async with http.get(f"http://127.0.0.1:{port_of(there)}{path}") as followed:
                assert await followed.read() == LARGE
        assert asked.new() == ["HEAD data", "GET link", "GET data"]
    assert len([line for line in stand.upstream.lines if line.startswith("GET")]) == 1


async def test_content_of_docker_registry_2_8_is_a_hit(stand: Stand) -> None:
    """As it lies there by its names: no byte of it is asked of the upstream."""
    path = stand.upstream.publish_blob(SMALL)
    digest = Digest.of(SMALL)
    old = stand.service.driver(BUCKET)
    await old.put(blob_key(digest), SMALL)
    await old.put(layer_link(Repository.parse(REPOSITORY), digest), str(digest).encode())
    await old.close()
    async with stand.replica() as here:
        got = await pull(here, path)
        assert (got.status, got.body, got.headers["x-cache"]) == (200, SMALL, "hit")
    assert [line for line in stand.upstream.lines if line.startswith("GET")] == []


@pytest.mark.real
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


@pytest.mark.real
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
