"""Debian's docker-registry 2.8 and the cache read what the other wrote into the same Swift container."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.stage import clients, images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.images import Image
from tests.stage.process import until
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, registry
from tests.stage.swiftservices import RunningSwift

PREFIX = "some/prefix"
PART = 1 << 20

pytestmark = pytest.mark.real


@pytest.fixture
async def container(swift_service: RunningSwift) -> str:
    """An empty one."""
    return await swift_service.make_container()


@contextlib.asynccontextmanager
async def cache_on(
    settings: dict[str, object], folder: Path, upstream: RunningRegistry
) -> AsyncIterator[RunningCache]:
    """A cache that keeps what it has in the container, with a spool of its own."""
    sections = {"storage": {"swift": settings, "redirect": {"disable": True}}}
    more = {"spool": {"path": str(folder / "spool")}}
    async with cache(folder, {"url": upstream.url}, settings=more, sections=sections) as running:
        yield running


def registry_storage(settings: dict[str, object]) -> dict[str, object]:
    """The same for docker-registry: its parameters by its names."""
    return {"storage": {"swift": settings, "delete": {"enabled": True}, "redirect": {"disable": True}}}


async def pulled(running: RunningCache | RunningRegistry, name: str, folder: Path) -> set[str]:
    """The digests of what skopeo copies."""
    copied = await clients.skopeo_copy(f"{running.host}/{name}", folder, every_platform=True)
    return {file.name for file in copied.iterdir()}


def blobs_of(image: Image) -> set[str]:
    """As skopeo names the files of a copy."""
    return {digest[7:] for digest in image.all_blobs()}


def large_image() -> Image:
    """Layers of several segments, and small ones."""
    return images.simple_image(3, size=2 * PART + 4321)


async def test_the_registry_serves_what_was_cached(
    tmp_path: Path, open_registry: RunningRegistry, swift_service: RunningSwift, container: str
) -> None:
    """Manifests by tag and digest, layers of one segment and of many, configuration and the catalog."""
    image, settings = large_image(), swift_service.settings(container, prefix=PREFIX, chunksize=PART)
    await push(open_registry.url, "lib/app", image, "1")
    async with cache_on(settings, tmp_path / "cache", open_registry) as running:
        await pulled(running, "lib/app:1", tmp_path / "cold")

        async def stored() -> bool:
            names = await swift_service.names(container, f"{PREFIX}/files/docker/")
            return len([name for name in names if name.endswith("/data")]) >= len(image.all_blobs()) + 1

        await until(stored, what="all blobs in the container")
    assert [name for name in await swift_service.names(container) if "/segments/msrcache/" in name]
    await open_registry.process.stop()
    async with registry(Kind.V2, tmp_path / "reader", settings=registry_storage(settings)) as reader:
        for number, name in enumerate(("lib/app:1", f"lib/app@{image.digest}")):
            assert blobs_of(image) <= await pulled(reader, name, tmp_path / f"copy{number}")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{reader.url}/v2/_catalog") as answer:
                assert await answer.json() == {"repositories": ["lib/app"]}
            layer = max(image.blobs, key=lambda blob: blob.size)
            url, wanted = (
                f"{reader.url}/v2/lib/app/blobs/{layer.digest}",
                {"Range": f"bytes={PART - 3}-{PART + 3}"},
            )
            async with session.get(url, headers=wanted) as answer:
                assert (answer.status, await answer.read()) == (206, layer.bytes()[PART - 3 : PART + 4])


async def test_the_cache_serves_what_was_pushed(
    tmp_path: Path, open_registry: RunningRegistry, swift_service: RunningSwift, container: str
) -> None:
    """What docker-registry pushed there, dynamic large objects all, is a hit at once: no byte of a blob is asked of the
    upstream. The sweep at the start takes none of its segments.
    """
    image, settings = large_image(), swift_service.settings(container, prefix=PREFIX, chunksize=PART)
    await push(open_registry.url, "lib/app", image, "1")
    async with registry(Kind.V2, tmp_path / "writer", settings=registry_storage(settings)) as writer:
        await push(writer.url, "lib/app", image, "1")
    segments = [name for name in await swift_service.names(container) if "/segments/" in name]
    assert len(segments) > len(image.blobs)
    driver = swift_service.driver(container, prefix=PREFIX)
    assert await driver.sweep(0.0) == 0
    await driver.close()
    async with cache_on(settings, tmp_path / "cache", open_registry) as running:
        assert blobs_of(image) <= await pulled(running, "lib/app:1", tmp_path / "warm")
    assert set(segments) <= set(await swift_service.names(container))
    asked = open_registry.requests()
    assert not [line for line in asked if line.startswith("GET /v2/lib/app/blobs/")]
