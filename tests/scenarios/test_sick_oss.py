"""Our stand-in for OSS that misbehaves, or whose operator does: no pull fails, and it heals without a restart."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from msrcache.assembly import Application
from tests.scenarios.plays import cache, pull, pulling, settled
from tests.stage.images import noise
from tests.stage.ossservice import KEY, SECRET, Service, ossservice
from tests.stage.osssigning import Account
from tests.stage.process import until
from tests.stage.scripted import Hold, Scripted, Turn, scripted

BUCKET = "sick"
DATA = noise(300_000, 8)
BREAKER = "  storage: {breaker: {failures: 3, open: 50ms}}\n"


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    """A registry with a ledger."""
    async with scripted() as server:
        yield server


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """With an empty bucket."""
    async with ossservice() as running:
        running.make_bucket(BUCKET)
        yield running


@asynccontextmanager
async def cached(
    folder: Path, upstream: Scripted, service: Service, **settings: object
) -> AsyncIterator[Application]:
    """The whole cache over the bucket; every byte flows through it."""
    storage = {"oss": service.settings(BUCKET) | settings, "redirect": {"disable": True}}
    environ = {"REGISTRY_STORAGE": json.dumps(storage)}
    more = f"{BREAKER}  spool: {{path: {folder / 'spool'}}}\n"
    async with cache(folder, upstream, more=more, environ=environ) as application:
        yield application


async def back(application: Application, path: str) -> None:
    """Returns when the blob is a hit, and all is well."""

    async def well() -> bool:
        got = await pull(application, path)
        await settled(application)
        return got.headers["x-cache"] == "hit" and application.degraded() == {}

    await until(well, what="a store that is back")


async def test_a_service_that_is_stopped_in_the_middle(tmp_path: Path, upstream: Scripted) -> None:
    """Of a fill; started again on the same port, what it had is there, and what it missed is stored."""
    there, coming = upstream.publish_blob(DATA), upstream.publish_blob(DATA[::-1])
    async with AsyncExitStack() as first:
        service = await first.enter_async_context(ossservice())
        service.make_bucket(BUCKET)
        async with cached(tmp_path / "cache", upstream, service) as application:
            await pull(application, there)
            await settled(application)
            hold = Hold(100_000)
            upstream.script(coming, Turn(hold=hold))
            async with pulling(application, coming) as filling:
                await filling.take(100_000)
                await first.aclose()
                for _ in range(3):
                    got = await pull(application, there)
                    assert (got.status, got.body, got.whole) == (200, DATA, True)
                    assert got.headers["x-cache"] != "hit"
                hold.go.set()
                assert await filling.rest() == DATA[::-1][100_000:]
            await settled(application)
            assert "store" in application.degraded()
            async with ossservice(service.port, again=service):
                await back(application, there)
                await back(application, coming)


async def told(application: Application, path: str, sentence: str) -> None:
    """Pulls go on, and what is wrong is said in one sentence."""
    for _ in range(3):
        assert (await pull(application, path)).body == DATA
        await settled(application)
    assert sentence in application.degraded()["store"]


async def test_a_deleted_bucket_is_one_sentence(tmp_path: Path, upstream: Scripted, service: Service) -> None:
    """And the cache is well when somebody has made it again."""
    path = upstream.publish_blob(DATA)
    async with cached(tmp_path, upstream, service) as application:
        gone = service.buckets.pop(BUCKET)
        await told(application, path, f"there is no bucket {BUCKET}; create it")
        service.buckets[BUCKET] = gone
        await back(application, path)


async def test_an_expired_key_is_one_sentence(tmp_path: Path, upstream: Scripted, service: Service) -> None:
    """And the cache is well when it is valid again."""
    path = upstream.publish_blob(DATA)
    async with cached(tmp_path, upstream, service) as application:
        account = service.accounts.pop(KEY)
        await told(application, path, "the access key is not known there; correct accesskeyid")
        service.accounts[KEY] = account
        await back(application, path)


async def test_a_bucket_in_another_region_is_one_sentence(
    tmp_path: Path, upstream: Scripted, service: Service
) -> None:
    """With the endpoint that would be right."""
    path = upstream.publish_blob(DATA)
    async with cached(tmp_path, upstream, service) as application:
        service.endpoint = "oss-cn-beijing.aliyuncs.com"
        await told(application, path, f"the bucket {BUCKET} is served at oss-cn-beijing.aliyuncs.com")
        service.endpoint = ""
        await back(application, path)


async def test_a_right_that_is_missing_is_one_sentence(
    tmp_path: Path, upstream: Scripted, service: Service
) -> None:
    """Who may only read: what is there is served, the rest is passed on, and the action is named."""
    there, coming = upstream.publish_blob(DATA), upstream.publish_blob(DATA[::-1])
    async with cached(tmp_path / "a", upstream, service) as application:
        await pull(application, there)
        await settled(application)
    service.accounts[KEY] = Account(SECRET, allowed={"oss:GetObject", "oss:ListObjects"})
    async with cached(tmp_path / "b", upstream, service) as application:
        assert (await pull(application, there)).headers["x-cache"] == "hit"
        assert (await pull(application, coming)).body == DATA[::-1]
        await settled(application)
        assert "allow oss:PutObject" in application.degraded()["store"]


async def test_many_at_once(tmp_path: Path, upstream: Scripted, service: Service) -> None:
    """Fifty readers of one hit, and of its ranges: each has its own bytes."""
    path = upstream.publish_blob(DATA)
    async with cached(tmp_path, upstream, service) as application:
        await pull(application, path)
        await settled(application)
        spans = [(number * 1000, number * 1000 + 5000) for number in range(50)]
        got = await asyncio.gather(
            *(pull(application, path, Range=f"bytes={start}-{stop - 1}") for start, stop in spans)
        )
        assert [one.body for one in got] == [DATA[start:stop] for start, stop in spans]
        assert {one.headers["x-cache"] for one in got} == {"hit"}
