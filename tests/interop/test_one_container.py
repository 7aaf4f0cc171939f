"""Distribution 3.1 and the cache read what the other wrote into the same Azure container.

Debian's docker-registry 2.8 is built without its Azure driver; its names are played in tests/storage/test_azurenames.py
and tests/scenarios/test_azure_store.py.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stage import clients, images
from tests.stage.azureservice import ACCOUNT, KEY, RunningAzure
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.images import Image
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, registry

ROOT = "some/folder"

pytestmark = pytest.mark.real


@pytest.fixture
def container(azure_service: RunningAzure) -> str:
    """An empty one."""
    return azure_service.make_container()


@contextlib.asynccontextmanager
async def cache_on(
    service: RunningAzure, container: str, folder: Path, upstream: RunningRegistry
) -> AsyncIterator[RunningCache]:
    """A cache that keeps what it has in the container, with a spool of its own."""
    storage = {"azure": service.settings(container, rootdirectory=f"/{ROOT}"), "redirect": {"disable": True}}
    settings = {"spool": {"path": str(folder / "spool")}}
    upstream_entry = {"url": upstream.url}
    async with cache(folder, upstream_entry, settings=settings, sections={"storage": storage}) as running:
        yield running


def registry_storage(service: RunningAzure, container: str) -> dict[str, object]:
    """The same for the registry: its parameters by its names."""
    given = {"accountname": ACCOUNT, "accountkey": KEY, "container": container, "serviceurl": service.url}
    given |= {"rootdirectory": f"/{ROOT}"}
    shared = {"credentials": {"type": "shared_key"}}
    return {"storage": {"azure": {**given, **shared}, "redirect": {"disable": True}}}


async def pulled(running: RunningCache | RunningRegistry, name: str, folder: Path) -> set[str]:
    """The digests of what skopeo copies."""
    copied = await clients.skopeo_copy(f"{running.host}/{name}", folder, every_platform=True)
    return {file.name for file in copied.iterdir()}


def blobs_of(image: Image) -> set[str]:
    """As skopeo names the files of a copy."""
    return {digest[7:] for digest in image.all_blobs()}


async def test_the_registry_serves_what_was_cached(
    tmp_path: Path, open_registry: RunningRegistry, azure_service: RunningAzure, container: str
) -> None:
    """Manifests by tag and digest, layers and configuration, without the cache."""
    image = images.platforms()
    await push(open_registry.url, "lib/app", image, "1")
    async with cache_on(azure_service, container, tmp_path / "cache", open_registry) as running:
        await pulled(running, "lib/app:1", tmp_path / "cold")
    await open_registry.process.stop()
    settings = registry_storage(azure_service, container)
    async with registry(Kind.V3, tmp_path / "reader", settings=settings) as reader:
        for number, name in enumerate(("lib/app:1", f"lib/app@{image.digest}")):
            assert blobs_of(image) <= await pulled(reader, name, tmp_path / f"copy{number}")


async def test_the_cache_serves_what_was_pushed(
    tmp_path: Path, open_registry: RunningRegistry, azure_service: RunningAzure, container: str
) -> None:
    """What the registry was pushed is a hit at once: no byte of a blob is asked of the upstream."""
    image = images.simple_image(3)
    await push(open_registry.url, "lib/app", image, "1")
    settings = registry_storage(azure_service, container)
    async with registry(Kind.V3, tmp_path / "writer", settings=settings) as writer:
        await push(writer.url, "lib/app", image, "1")
    async with cache_on(azure_service, container, tmp_path / "cache", open_registry) as running:
        assert blobs_of(image) <= await pulled(running, "lib/app:1", tmp_path / "warm")
    asked = open_registry.requests()
    assert not [line for line in asked if line.startswith("GET /v2/lib/app/blobs/")]
