"""A real S3 service that misbehaves, behind a network that does: no pull fails, and it heals without a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from msrcache.assembly import Application
from msrcache.cache.layout import blob_key
from msrcache.config.load import parse
from msrcache.oci.digest import Digest
from tests.scenarios.plays import configuration, pull, pulling, settled
from tests.stage.images import noise
from tests.stage.process import until
from tests.stage.s3services import RunningS3, versitygw
from tests.stage.scripted import Hold, Scripted, Turn, scripted
from tests.stage.toxics import Toxic, toxic

pytestmark = pytest.mark.real

DATA = noise(300_000, 8)
BUCKET = "cache"
BREAKER = "  storage: {breaker: {failures: 3, open: 50ms}}\n"


@asynccontextmanager
async def cached(
    folder: Path, upstream: Scripted, service: RunningS3, *, port: int, more: str
) -> AsyncIterator[Application]:
    """The whole cache over a bucket; every byte flows through it."""
    document = yaml.safe_load(configuration(folder, upstream.url, more=BREAKER + more))
    document["storage"] = {"s3": service.settings(BUCKET, port=port), "redirect": {"disable": True}}
    document["cache"]["spool"] = {"path": str(folder / "spool")}
    loaded = parse(yaml.safe_dump(document), "config.yml", {})
    async with Application(loaded.config).running() as application:
        yield application


@asynccontextmanager
async def played(
    folder: Path, *, more: str = ""
) -> AsyncIterator[tuple[Scripted, RunningS3, Toxic, Application]]:
    """Upstream, service, the network between it and the cache, and the cache."""
    async with (
        scripted() as upstream,
        versitygw(folder / "s3") as service,
        toxic(folder / "toxic", service.port) as network,
    ):
        service.make_bucket(BUCKET)
        async with cached(folder, upstream, service, port=network.port, more=more) as application:
            assert application.degraded() == {}
            yield upstream, service, network, application


async def back(application: Application, path: str) -> None:
    """Returns when the blob is a hit, and all is well."""

    async def well() -> bool:
        got = await pull(application, path)
        await settled(application)
        return got.headers["x-cache"] == "hit" and application.degraded() == {}

    await until(well, what="a store that is back")


async def test_the_ledger_of_a_fill_and_a_hit(tmp_path: Path) -> None:
    """Of the service itself: a cold blob of one part costs five requests at most, a warm one, its link known, one."""
    async with played(tmp_path) as (upstream, service, _, application):
        path = upstream.publish_blob(DATA)
        before = len(service.requests(BUCKET))
        await pull(application, path)
        await settled(application)
        cold = service.requests(BUCKET)[before:]
        assert len(cold) <= 5, cold
        key = blob_key(Digest.of(DATA))
        check = cold[cold.index(f"PUT {key}") + 1 : -1]
        assert len(check) <= 2, cold
        assert all(line.split()[1] == key for line in check)
        assert cold[-1].startswith("PUT ")
        before = len(service.requests(BUCKET))
        assert (await pull(application, path)).headers["x-cache"] == "hit"
        assert service.requests(BUCKET)[before:] == [f"GET {key}"]


async def test_a_service_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """Cut off in the middle of a fill and of a hit, refused for a while, then there again."""
    async with played(tmp_path) as (upstream, service, network, application):
        there, coming = upstream.publish_blob(DATA), upstream.publish_blob(DATA[::-1])
        await pull(application, there)
        await settled(application)
        hold = Hold(100_000)
        upstream.script(coming, Turn(hold=hold))
        async with pulling(application, coming) as filling:
            await filling.take(100_000)
            await network.enable(up=False)
            for _ in range(3):
                got = await pull(application, there)
                assert (got.status, got.body, got.whole) == (200, DATA, True)
                assert got.headers["x-cache"] != "hit"
            hold.go.set()
            assert await filling.rest() == DATA[::-1][100_000:]
        await settled(application)
        assert "store" in application.degraded()
        await network.enable(up=True)
        await back(application, there)
        await back(application, coming)
        assert service.uploads(BUCKET) == []


TOXICS = {
    "latency": {"latency": 300, "jitter": 100},
    "bandwidth": {"rate": 400},
    "slicer": {"average_size": 1000, "size_variation": 500, "delay": 10},
    "limit_data": {"bytes": 50_000},
}


@pytest.mark.parametrize("kind", TOXICS)
async def test_a_bad_network_to_the_service(tmp_path: Path, kind: str) -> None:
    """Late, slow, in pieces or cut after some kilobytes: right bytes each time, then hits again."""
    async with played(tmp_path) as (upstream, _, network, application):
        there, coming = upstream.publish_blob(DATA), upstream.publish_blob(DATA[::-1])
        await pull(application, there)
        await settled(application)
        await network.add(kind, TOXICS[kind])
        for path, data in ((there, DATA), (coming, DATA[::-1]), (coming, DATA[::-1])):
            got = await pull(application, path)
            assert (got.status, got.body, got.whole) == (200, data, True)
        await network.remove(kind)
        await settled(application)
        await back(application, there)
        await back(application, coming)


async def test_a_service_far_slower_than_the_upstream(tmp_path: Path) -> None:
    """It takes some kilobytes a second: every pull has its bytes at once, what waits is bounded, the rest is not
    stored; then it is fast again, and all is stored.
    """
    async with played(tmp_path, more="  fill: {concurrency: 2}\n") as (
        upstream,
        service,
        network,
        application,
    ):
        blobs = [noise(300_000, 20 + number) for number in range(12)]
        paths = [upstream.publish_blob(data) for data in blobs]
        await network.add("bandwidth", {"rate": 20}, upstream=True)
        for path, data in zip(paths, blobs, strict=True):
            got = await pull(application, path)
            assert (got.headers["x-cache"], got.body) == ("miss", data)
            assert application.spool.used <= (2 * 2 + 1) * len(data)
        sample = application.metrics.registry.get_sample_value
        assert (sample("msrcache_unstored_total", {"reason": "slow"}) or 0) >= 1
        assert (sample("msrcache_fills_behind") or 0) <= 2 * 2
        await network.remove("bandwidth")
        await settled(application)
        for path in paths:
            await back(application, path)
        assert application.spool.used == 0
        assert service.uploads(BUCKET) == []


async def test_a_deleted_bucket_is_one_sentence_and_heals(tmp_path: Path) -> None:
    """Somebody deletes the bucket under the cache, and makes it again: nothing is restarted."""
    async with played(tmp_path) as (upstream, service, _, application):
        path = upstream.publish_blob(DATA)
        for key in service.objects(BUCKET):
            service.client.delete_object(Bucket=BUCKET, Key=key)
        service.client.delete_bucket(Bucket=BUCKET)
        for _ in range(3):
            assert (await pull(application, path)).body == DATA
            await settled(application)
        assert f"there is no bucket {BUCKET}; create it" in application.degraded()["store"]
        name, labels = "msrcache_storage_calls_total", {"operation": "open", "result": "unusable"}
        assert (application.metrics.registry.get_sample_value(name, labels) or 0) >= 1
        service.make_bucket(BUCKET)
        await back(application, path)
