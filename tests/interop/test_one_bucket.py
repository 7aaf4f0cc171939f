"""Debian's docker-registry 2.8 and the cache read what the other wrote into the same bucket."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.stage import clients, images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.images import Image
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, registry
from tests.stage.s3services import RunningS3, versitygw

BUCKET = "one-bucket"
ROOT = "some/folder"

pytestmark = pytest.mark.real


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningS3]:
    """versitygw with an empty bucket."""
    async with versitygw(tmp_path / "s3") as running:
        running.make_bucket(BUCKET)
        yield running


@contextlib.asynccontextmanager
async def cache_on(
    service: RunningS3, folder: Path, upstream: RunningRegistry
) -> AsyncIterator[RunningCache]:
    """A cache that keeps what it has in the bucket, with a spool of its own."""
    storage = {"s3": service.settings(BUCKET, rootdirectory=f"/{ROOT}")}
    settings = {"spool": {"path": str(folder / "spool")}}
    upstream_entry = {"url": upstream.url}
    async with cache(folder, upstream_entry, settings=settings, sections={"storage": storage}) as running:
        yield running


def registry_storage(service: RunningS3) -> dict[str, object]:
    """The same for docker-registry: its parameters by its names."""
    given = service.settings(BUCKET, rootdirectory=f"/{ROOT}", secure=False)
    return {"storage": {"s3": given, "delete": {"enabled": True}, "redirect": {"disable": True}}}


async def pulled(running: RunningCache | RunningRegistry, name: str, folder: Path) -> set[str]:
    """The digests of what skopeo copies."""
    copied = await clients.skopeo_copy(f"{running.host}/{name}", folder, every_platform=True)
    return {file.name for file in copied.iterdir()}


def blobs_of(image: Image) -> set[str]:
    """As skopeo names the files of a copy."""
    return {digest[7:] for digest in image.all_blobs()}


async def test_the_registry_serves_what_was_cached(
    tmp_path: Path, open_registry: RunningRegistry, service: RunningS3
) -> None:
    """Manifests by tag and digest, layers, configuration and the catalog, without the cache."""
    image = images.platforms()
    await push(open_registry.url, "lib/app", image, "1")
    async with cache_on(service, tmp_path / "cache", open_registry) as running:
        await pulled(running, "lib/app:1", tmp_path / "cold")
    await open_registry.process.stop()
    async with registry(Kind.V2, tmp_path / "reader", settings=registry_storage(service)) as reader:
        for number, name in enumerate(("lib/app:1", f"lib/app@{image.digest}")):
            assert blobs_of(image) <= await pulled(reader, name, tmp_path / f"copy{number}")
        async with aiohttp.ClientSession() as session, session.get(f"{reader.url}/v2/_catalog") as answer:
            assert await answer.json() == {"repositories": ["lib/app"]}


async def test_the_cache_serves_what_was_pushed(
    tmp_path: Path, open_registry: RunningRegistry, service: RunningS3
) -> None:
    """What docker-registry pushed there is a hit at once: no byte of a blob is asked of the upstream."""
    image = images.simple_image(3)
    await push(open_registry.url, "lib/app", image, "1")
    async with registry(Kind.V2, tmp_path / "writer", settings=registry_storage(service)) as writer:
        await push(writer.url, "lib/app", image, "1")
    async with cache_on(service, tmp_path / "cache", open_registry) as running:
        assert blobs_of(image) <= await pulled(running, "lib/app:1", tmp_path / "warm")
    asked = open_registry.requests()
    assert not [line for line in asked if line.startswith("GET /v2/lib/app/blobs/")]
