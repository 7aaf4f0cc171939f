"""Two programs on one bucket of Google Cloud Storage, as docs/storage.md starts them, and real clients that pull.

The service is named `localhost`: crane refuses redirects to another host that is a private address.
"""

import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peers.pulling import by_engines
from tests.stage import clients, images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.clients import ran
from tests.stage.engines import Containerd, Docker
from tests.stage.gcsservices import RunningGcs, fakegcs
from tests.stage.images import Image
from tests.stage.process import until
from tests.stage.push import push
from tests.stage.registries import RunningRegistry
from tests.stage.tools import need

BUCKET = "blobs"

pytestmark = pytest.mark.real


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningGcs]:
    """The service with an empty bucket."""
    async with fakegcs(tmp_path / "gcs") as running:
        await running.make_bucket(BUCKET)
        yield running


@contextlib.asynccontextmanager
async def replica(
    folder: Path, service: RunningGcs, upstream: RunningRegistry
) -> AsyncIterator[RunningCache]:
    """A program that sends its clients to the service for every blob."""
    endpoint = service.front.url.replace("127.0.0.1", "localhost")
    storage = {"gcs": {**service.settings(BUCKET), "endpoint": endpoint}}
    settings = {"redirect": {"threshold": 0}, "spool": {"path": str(folder / "spool")}}
    sections = {"storage": storage}
    async with cache(folder, {"url": upstream.url}, settings=settings, sections=sections) as running:
        yield running


def files(folder: Path) -> set[str]:
    """The digests of what a client has brought."""
    return {f"sha256:{file.name}" for file in folder.rglob("*") if len(file.name) == 64}


def answers(running: RunningCache, digest: str) -> list[str]:
    """The statuses of all GETs of a blob."""
    said = running.process.log.read_text()
    return re.findall(rf'"GET /v2/lib/app/blobs/{digest}[^"]*" (\d+) ', said)


async def told(running: RunningCache, digest: str, times: int) -> None:
    """Returns when the access log, which is written behind, has so many GETs of a blob."""

    async def there() -> bool:
        return len(answers(running, digest)) >= times

    await until(there, what=f"{times} GETs of {digest} in the access log")


async def filled(service: RunningGcs, image: Image) -> None:
    """Returns when every blob is in the bucket, with its link."""

    async def there() -> bool:
        keys = "\n".join(await service.objects(BUCKET))
        return all(
            f"{digest[7:]}/data" in keys and f"_layers/sha256/{digest[7:]}/link" in keys
            for digest in (blob.digest for blob in image.blobs)
        )

    await until(there, what="the blobs in the bucket")


async def test_cold_through_one_and_warm_through_the_other(
    tmp_path: Path, service: RunningGcs, open_registry: RunningRegistry
) -> None:
    """skopeo fills through A; skopeo, crane and buildah pull through B: each blob by a URL of the bucket, and rightly,
    and the upstream sends none again.
    """
    image = images.simple_image(3, seed=902)
    await push(open_registry.url, "lib/app", image, "1")
    async with (
        replica(tmp_path / "a", service, open_registry) as here,
        replica(tmp_path / "b", service, open_registry) as there,
    ):
        assert set(image.all_blobs()) <= files(
            await clients.skopeo_copy(f"{here.host}/lib/app:1", tmp_path / "cold")
        )
        await filled(service, image)
        before, reference = len(open_registry.requests()), f"{there.host}/lib/app:1"
        assert set(image.all_blobs()) <= files(await clients.skopeo_copy(reference, tmp_path / "skopeo"))
        assert set(image.all_blobs()) <= files(await clients.crane_pull(reference, tmp_path / "crane"))
        assert await clients.buildah_pull(reference, tmp_path / "buildah") == image.blobs[0].digest[7:]
        for digest in image.all_blobs():
            await told(there, digest, 3)
            assert set(answers(there, digest)) == {"307"}, digest
        asked = open_registry.requests()[before:]
        assert [line for line in asked if "/blobs/" in line and "GET" in line] == []
        await ranges_and_heads(tmp_path, service, there, image)


@pytest.mark.slow
async def test_engines_follow(
    tmp_path: Path,
    service: RunningGcs,
    open_registry: RunningRegistry,
    docker: Docker,
    containerd: Containerd,
) -> None:
    """docker and containerd pull warm through B: each blob by a URL of the bucket, none again from the upstream."""
    image = images.simple_image(3, seed=905)
    await push(open_registry.url, "lib/app", image, "1")
    async with (
        replica(tmp_path / "a", service, open_registry) as here,
        replica(tmp_path / "b", service, open_registry) as there,
    ):
        await clients.skopeo_copy(f"{here.host}/lib/app:1", tmp_path / "cold")
        await filled(service, image)
        before = len(open_registry.requests())
        await by_engines(docker, containerd, there, image)
        for digest in image.all_blobs():
            await told(there, digest, 2)
            assert set(answers(there, digest)) == {"307"}, digest
        asked = open_registry.requests()[before:]
        assert [line for line in asked if "/blobs/" in line and "GET" in line] == []


async def ranges_and_heads(tmp_path: Path, service: RunningGcs, running: RunningCache, image: Image) -> None:
    """curl: GET and Range are answered by the service, HEAD by the cache with the whole length."""
    curl = need("curl")
    layer = max(image.blobs, key=lambda blob: blob.size)
    data, url = layer.bytes(), f"{running.url}/v2/lib/app/blobs/{layer.digest}"
    target = tmp_path / "got"
    for argv, expected in (([], data), (["-r", "10-99"], data[10:100]), (["-r", "-7"], data[-7:])):
        said = await ran(curl, "-sSfL", *argv, "-o", target, "-w", "%{url_effective} %{num_redirects}", url)
        assert said.out.startswith(f"http://localhost:{service.port}/{BUCKET}/")
        assert said.out.endswith(" 1")
        assert target.read_bytes() == expected
    said = await ran(curl, "-sSI", url)
    assert said.out.startswith("HTTP/1.1 200")
    assert f"content-length: {layer.size}" in said.out.lower()


async def test_the_store_is_checked(
    tmp_path: Path, service: RunningGcs, open_registry: RunningRegistry
) -> None:
    """`msrcache check-storage`: every promise kept, every operation allowed, and nothing stays in the bucket."""
    async with replica(tmp_path / "a", service, open_registry):
        pass
    config = tmp_path / "a" / "cache.yml"
    said = await ran(sys.executable, "-m", "msrcache", "check-storage", config, "--json")
    found = json.loads(said.out)
    assert {row["verdict"] for row in found["promises"]} == {"kept"}, said.out
    assert all(row["allowed"] for row in found["operations"]), said.out
    assert f"bucket {BUCKET} is in" in found["remarks"][0]
    assert "storage.gcs.endpoint is not encrypted" in said.err
    assert await service.objects(BUCKET) == {}
