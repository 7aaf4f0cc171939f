"""Azurite that misbehaves, or whose operator does: no pull fails, and it heals without a restart."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.assembly import Application
from tests.scenarios.plays import cache, pull, pulling, settled
from tests.stage.azureservice import RunningAzure, azurite
from tests.stage.images import noise
from tests.stage.process import until
from tests.stage.scripted import Hold, Scripted, Turn, scripted

pytestmark = pytest.mark.real

DATA = noise(300_000, 8)
BREAKER = "  storage: {breaker: {failures: 3, open: 50ms}}\n"


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    """A registry with a ledger."""
    async with scripted() as server:
        yield server


@asynccontextmanager
async def cached(
    folder: Path, upstream: Scripted, service: RunningAzure, container: str, **settings: object
) -> AsyncIterator[Application]:
    """The whole cache over a container; every byte flows through it."""
    storage = {"azure": service.settings(container) | settings, "redirect": {"disable": True}}
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
    async with azurite(tmp_path / "service") as service:
        container, port = service.make_container(), service.port
        async with cached(tmp_path / "cache", upstream, service, container) as application:
            await pull(application, there)
            await settled(application)
            hold = Hold(100_000)
            upstream.script(coming, Turn(hold=hold))
            async with pulling(application, coming) as filling:
                await filling.take(100_000)
                await service.process.stop()
                for _ in range(3):
                    got = await pull(application, there)
                    assert (got.status, got.body, got.whole) == (200, DATA, True)
                    assert got.headers["x-cache"] != "hit"
                hold.go.set()
                assert await filling.rest() == DATA[::-1][100_000:]
            await settled(application)
            assert "store" in application.degraded()
            async with azurite(tmp_path / "service", port=port):
                await back(application, there)
                await back(application, coming)


async def test_a_deleted_container_heals(
    tmp_path: Path, upstream: Scripted, azure_service: RunningAzure
) -> None:
    """Somebody deletes it under the cache: with the account's key it is made again, and nothing is restarted."""
    container, path = azure_service.make_container(), upstream.publish_blob(DATA)
    async with cached(tmp_path, upstream, azure_service, container) as application:
        azure_service.client.delete_container(container)
        assert (await pull(application, path)).body == DATA
        await back(application, path)
    assert azure_service.blobs(container)


async def test_a_deleted_container_is_one_sentence(
    tmp_path: Path, upstream: Scripted, azure_service: RunningAzure
) -> None:
    """Who has less than the key is told, serves on, and is well when somebody has made it."""
    container, path = azure_service.make_container(), upstream.publish_blob(DATA)
    given = {"accountkey": "", "sastoken": azure_service.signature(container, "rcwdl")}
    async with cached(tmp_path, upstream, azure_service, container, **given) as application:
        azure_service.client.delete_container(container)
        for _ in range(3):
            assert (await pull(application, path)).body == DATA
            await settled(application)
        assert f"there is no container {container}" in application.degraded()["store"]
        azure_service.make_container(container)
        await back(application, path)


async def test_a_right_that_is_missing_is_one_sentence(
    tmp_path: Path, upstream: Scripted, azure_service: RunningAzure
) -> None:
    """A signature that may read only: what is there is served, the rest is passed on, and the right is named."""
    container = azure_service.make_container()
    there, coming = upstream.publish_blob(DATA), upstream.publish_blob(DATA[::-1])
    async with cached(tmp_path / "a", upstream, azure_service, container) as application:
        await pull(application, there)
        await settled(application)
    given = {"accountkey": "", "sastoken": azure_service.signature(container, "rl")}
    async with cached(tmp_path / "b", upstream, azure_service, container, **given) as application:
        assert (await pull(application, there)).headers["x-cache"] == "hit"
        assert (await pull(application, coming)).body == DATA[::-1]
        await settled(application)
        assert "lacks c and w (create, write)" in application.degraded()["store"]


async def test_many_at_once(tmp_path: Path, upstream: Scripted, azure_service: RunningAzure) -> None:
    """Fifty readers of one hit, and of its ranges: each has its own bytes."""
    container, path = azure_service.make_container(), upstream.publish_blob(DATA)
    async with cached(tmp_path, upstream, azure_service, container) as application:
        await pull(application, path)
        await settled(application)
        spans = [(number * 1000, number * 1000 + 5000) for number in range(50)]
        got = await asyncio.gather(
            *(pull(application, path, Range=f"bytes={start}-{stop - 1}") for start, stop in spans)
        )
        assert [one.body for one in got] == [DATA[start:stop] for start, stop in spans]
        assert {one.headers["x-cache"] for one in got} == {"hit"}
