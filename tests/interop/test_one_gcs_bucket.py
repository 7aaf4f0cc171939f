"""Distribution 3.1 reads from a Google Cloud Storage bucket what was cached, the cache what a registry has stored."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stage import clients, images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.gcsservices import RunningGcs, fakegcs
from tests.stage.images import Image
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, registry

BUCKET = "one-bucket"
ROOT = "some/folder"

pytestmark = pytest.mark.real


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningGcs]:
    """The service with an empty bucket, which Google's own client finds as an emulator."""
    async with fakegcs(tmp_path / "gcs") as running:
        await running.make_bucket(BUCKET)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.front.behind.removeprefix("http://"))
        yield running


@contextlib.asynccontextmanager
async def cache_on(
    service: RunningGcs, folder: Path, upstream: RunningRegistry
) -> AsyncIterator[RunningCache]:
    """A cache that keeps what it has in the bucket, with a spool of its own."""
    storage = {"gcs": service.settings(BUCKET, rootdirectory=f"/{ROOT}"), "redirect": {"disable": True}}
    settings = {"spool": {"path": str(folder / "spool")}}
    upstream_entry = {"url": upstream.url}
    async with cache(folder, upstream_entry, settings=settings, sections={"storage": storage}) as running:
        yield running


def registry_storage(service: RunningGcs, folder: Path) -> dict[str, object]:
    """The same for Distribution: its parameters by its names, and the account's key in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "key.json"
    key.write_text(json.dumps(service.front.account.info(f"{service.front.url}/token")))
    given = {"bucket": BUCKET, "rootdirectory": f"/{ROOT}", "keyfile": str(key)}
    return {"storage": {"gcs": given, "delete": {"enabled": True}, "redirect": {"disable": True}}}


async def pulled(running: RunningCache | RunningRegistry, name: str, folder: Path) -> set[str]:
    """The digests of what skopeo copies."""
    copied = await clients.skopeo_copy(f"{running.host}/{name}", folder, every_platform=True)
    return {file.name for file in copied.iterdir()}


def blobs_of(image: Image) -> set[str]:
    """As skopeo names the files of a copy."""
    return {digest[7:] for digest in image.all_blobs()}


async def test_the_registry_serves_what_was_cached(
    tmp_path: Path, open_registry: RunningRegistry, service: RunningGcs
) -> None:
    """Manifests by tag and digest, layers and configuration, without the cache."""
    image = images.platforms()
    await push(open_registry.url, "lib/app", image, "1")
    async with cache_on(service, tmp_path / "cache", open_registry) as running:
        await pulled(running, "lib/app:1", tmp_path / "cold")
    await open_registry.process.stop()
    settings = registry_storage(service, tmp_path / "reader")
    async with registry(Kind.V3, tmp_path / "reader", settings=settings) as reader:
        for number, name in enumerate(("lib/app:1", f"lib/app@{image.digest}")):
            assert blobs_of(image) <= await pulled(reader, name, tmp_path / f"copy{number}")


async def test_the_cache_serves_what_was_pushed(
    tmp_path: Path, open_registry: RunningRegistry, service: RunningGcs
) -> None:
    """What docker-registry 2.8 has stored is a hit at once: no byte of a blob is asked of the upstream. Its objects are
    brought into the bucket as they are, since no registry writes blobs to any other host than Google's.
    """
    image = images.simple_image(3)
    await push(open_registry.url, "lib/app", image, "1")
    async with registry(Kind.V2, tmp_path / "writer") as writer:
        await push(writer.url, "lib/app", image, "1")
        driver = service.driver(BUCKET, rootdirectory=ROOT)
        for file in writer.folder.rglob("*"):
            if file.is_file():
                await driver.put(str(file.relative_to(writer.folder)), file.read_bytes())
        await driver.close()
    async with cache_on(service, tmp_path / "cache", open_registry) as running:
        assert blobs_of(image) <= await pulled(running, "lib/app:1", tmp_path / "warm")
    asked = open_registry.requests()
    assert not [line for line in asked if line.startswith("GET /v2/lib/app/blobs/")]
