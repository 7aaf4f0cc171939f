"""The whole cache on a real S3 service: two replicas on one bucket, what each pull costs, and a bad network between."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import blob_key
from msrcache.oci.digest import Digest
from tests.scenarios.plays import cache, pull, pulling, settled
from tests.stage.images import noise
from tests.stage.s3services import RunningS3, versitygw
from tests.stage.scripted import Hold, Scripted, Turn, scripted
from tests.stage.toxics import Toxic, toxic

BUCKET = "replicas"
SMALL = noise(100_000, 1)
LARGE = noise(12_000_000, 2)
"""Two parts."""
BLOBS, AT_ONCE = 100, 50

TOXINS = {
    "reset_peer": {"timeout": 0},
    "limit_data": {"bytes": 5_000_000},
    "latency": {"latency": 50},
    "bandwidth": {"rate": 20_000},
}

pytestmark = pytest.mark.real


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningS3]:
    """versitygw with an empty bucket."""
    async with versitygw(tmp_path / "s3") as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    """A registry with a ledger."""
    async with scripted() as server:
        yield server


@pytest.fixture
async def network(service: RunningS3, tmp_path: Path) -> AsyncIterator[Toxic]:
    """What lies between a replica and the service."""
    async with toxic(tmp_path / "toxics", service.port) as proxy:
        yield proxy


@asynccontextmanager
async def replica(
    folder: Path, service: RunningS3, upstream: Scripted, *, port: int | None = None
) -> AsyncIterator[Application]:
    """A cache that streams what it has in the bucket; `port` is that of a proxy before the service."""
    storage = {"s3": service.settings(BUCKET, port=port), "redirect": {"disable": True}}
    spool = f"  spool: {{path: {folder / 'spool'}}}\n"
    environ = {"REGISTRY_STORAGE": json.dumps(storage)}
    async with cache(folder, upstream, more=spool, environ=environ) as application:
        yield application


def stored(service: RunningS3, data: bytes) -> bool:
    """Whether the bucket has the blob whole."""
    path = service.folder / BUCKET / blob_key(Digest.of(data))
    return path.exists() and path.read_bytes() == data


@pytest.mark.parametrize("blobs", [BLOBS, pytest.param(1000, marks=pytest.mark.slow)])
async def test_what_one_has_filled_the_other_serves_at_once(
    tmp_path: Path, service: RunningS3, upstream: Scripted, blobs: int
) -> None:
    """Blobs, each pulled through one replica and, as soon as that has stored it, through the other: every one a hit,
    and the upstream sent each once; a thousand with the slow tests.
    """
    async with (
        replica(tmp_path / "a", service, upstream) as here,
        replica(tmp_path / "b", service, upstream) as there,
    ):
        for start in range(0, blobs, AT_ONCE):
            contents = [noise(700 + number, number) for number in range(start, start + AT_ONCE)]
            paths = [upstream.publish_blob(data) for data in contents]
            cold = await asyncio.gather(*(pull(here, path) for path in paths))
            await settled(here)
            warm = await asyncio.gather(*(pull(there, path) for path in paths))
            assert [got.body for got in cold] == [got.body for got in warm] == contents
            assert {got.headers["x-cache"] for got in warm} == {"hit"}
    assert len([line for line in upstream.lines if line.startswith("GET")]) == blobs


class Ledger:
    """What the service was asked about blobs and links, by method and last word of the key."""

    def __init__(self, service: RunningS3) -> None:
        self._service = service
        self._seen = len(service.requests(BUCKET))

    def new(self) -> list[str]:
        """Since the last look."""
        asked = self._service.requests(BUCKET)
        new, self._seen = asked[self._seen :], len(asked)
        lines = (line.split(" ") for line in new if " docker/" in line)
        return [f"{method} {key.rpartition('/')[2]}" for method, key in lines]


async def test_what_a_pull_costs_the_store(tmp_path: Path, service: RunningS3, upstream: Scripted) -> None:
    """Exactly: a fill of one part four requests, one of them to check it; a hit one; a link that is not believed yet
    one more.
    """
    path = upstream.publish_blob(SMALL)
    async with (
        replica(tmp_path / "a", service, upstream) as here,
        replica(tmp_path / "b", service, upstream) as there,
    ):
        ledger = Ledger(service)
        await pull(here, path)
        await settled(here)
        assert ledger.new() == ["GET data", "PUT data", "HEAD data", "PUT link"]
        await pull(here, path)
        assert ledger.new() == ["GET data"]
        await pull(there, path)
        assert ledger.new() == ["GET data", "GET link"]
        await pull(there, path)
        assert ledger.new() == ["GET data"]
        await pull(there, path, method="HEAD")
        assert ledger.new() == ["HEAD data"]


async def test_a_fill_in_parts_costs_its_parts(
    tmp_path: Path, service: RunningS3, upstream: Scripted
) -> None:
    """begin, each part, complete; and the same look before, check and link after."""
    path = upstream.publish_blob(LARGE)
    async with replica(tmp_path / "a", service, upstream) as here:
        ledger = Ledger(service)
        assert (await pull(here, path)).body == LARGE
        await settled(here)
        first, begin, *parts, complete, check, link = ledger.new()
    assert (first, begin, complete) == ("GET data", "POST data", "POST data")
    assert (parts, check, link) == (["PUT data"] * 2, "HEAD data", "PUT link")
    assert stored(service, LARGE)


@pytest.mark.parametrize("toxin", ["reset_peer", "limit_data", "latency", "bandwidth"])
async def test_hits_over_a_bad_network(
    tmp_path: Path, service: RunningS3, upstream: Scripted, network: Toxic, toxin: str
) -> None:
    """Whatever the network does while a hit is served: the right bytes, from the store or from the upstream."""
    path = upstream.publish_blob(LARGE)
    async with replica(tmp_path / "a", service, upstream, port=network.port) as here:
        await pull(here, path)
        await settled(here)
        assert stored(service, LARGE)
        await network.add(toxin, TOXINS[toxin])
        got = await pull(here, path)
        assert (got.status, got.whole) == (200, True)
        assert got.body == LARGE
        await network.remove(toxin)
        await settled(here)
        assert (await pull(here, path)).headers["x-cache"] == "hit"


@pytest.mark.parametrize("toxin", ["reset_peer", "latency", "bandwidth", "down"])
async def test_fills_over_a_bad_network(
    tmp_path: Path, service: RunningS3, upstream: Scripted, network: Toxic, toxin: str
) -> None:
    """Whatever it does while a blob is stored: the client has every byte, the store all of it or nothing."""
    path, hold = upstream.publish_blob(LARGE), Hold(11_000_000)
    upstream.script(path, Turn(hold=hold))
    async with replica(tmp_path / "a", service, upstream, port=network.port) as here:
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
        assert stored(service, LARGE) is not gone
        if toxin == "down":
            await network.enable(up=True)
        else:
            await network.remove(toxin)
        again = await pull(here, path)
        assert again.body == LARGE
