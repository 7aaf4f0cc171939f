"""Distribution 3.1, Docker Registry 2.8 and the cache read what the others wrote into the same Azure container.

Debian builds docker-registry without its Azure driver: 2.8 is built from tests/stage/registry28, for the slow tests.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stage import clients, images
from tests.stage.azureservice import ACCOUNT, KEY, RunningAzure, azurite, registry28
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.certificates import Authority, authority
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
    service: RunningAzure, container: str, folder: Path, upstream: RunningRegistry, **more: str
) -> AsyncIterator[RunningCache]:
    """A cache that keeps what it has in the container, with a spool of its own."""
    given = service.settings(container) | (more or {"rootdirectory": f"/{ROOT}"})
    storage = {"azure": given, "redirect": {"disable": True}}
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


@pytest.fixture
def trusted(tmp_path: Path) -> Authority:
    """Who vouches for the service: 2.8 asks by TLS only."""
    return authority(tmp_path / "ca")


@pytest.fixture
async def by_tls(trusted: Authority, tmp_path: Path) -> AsyncIterator[RunningAzure]:
    """An Azurite by TLS."""
    async with azurite(tmp_path / "azurite", authority=trusted) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("adopt", ["auto", "leadingslash"])
async def test_the_cache_serves_what_2_8_was_pushed(
    tmp_path: Path, open_registry: RunningRegistry, by_tls: RunningAzure, trusted: Authority, adopt: str
) -> None:
    """In place, by the names with a slash; 2.8 makes the container itself, as it always did."""
    image = images.simple_image(3)
    await push(open_registry.url, "lib/app", image, "1")
    async with registry28(tmp_path / "old", by_tls, "adopted", trusted) as old:
        await push(old.url, "lib/app", image, "1")
    assert {name[:8] for name in by_tls.blobs("adopted")} == {"/docker/"}
    more = {"adopt": adopt, "ca": str(trusted.bundle)}
    async with cache_on(by_tls, "adopted", tmp_path / "cache", open_registry, **more) as running:
        assert blobs_of(image) <= await pulled(running, "lib/app:1", tmp_path / "warm")
    asked = open_registry.requests()
    assert not [line for line in asked if line.startswith("GET /v2/lib/app/blobs/")]


@pytest.mark.slow
async def test_2_8_serves_what_was_cached_with_the_slash(
    tmp_path: Path, open_registry: RunningRegistry, by_tls: RunningAzure, trusted: Authority
) -> None:
    """`adopt: leadingslash` is a way back: the old cache goes on with what the new one has stored, beside it."""
    image = images.platforms()
    await push(open_registry.url, "lib/app", image, "1")
    more = {"adopt": "leadingslash", "ca": str(trusted.bundle)}
    async with registry28(tmp_path / "old", by_tls, "both", trusted) as old:
        async with cache_on(by_tls, "both", tmp_path / "cache", open_registry, **more) as running:
            await pulled(running, "lib/app:1", tmp_path / "cold")
        for number, name in enumerate(("lib/app:1", f"lib/app@{image.digest}")):
            assert blobs_of(image) <= await pulled(old, name, tmp_path / f"copy{number}")
