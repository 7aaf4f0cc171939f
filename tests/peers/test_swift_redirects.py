"""Real clients are sent to a real Swift for their blobs, small and in segments, and bring images whole.

The service is named `localhost`: crane refuses redirects to another host that is a private address.
"""

import re
from collections.abc import Collection
from pathlib import Path

import aiohttp
import pytest

from tests.stage import clients, images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.engines import Containerd, Docker
from tests.stage.process import until
from tests.stage.push import push
from tests.stage.registries import RunningRegistry
from tests.stage.swiftservices import RunningSwift

PART = 1 << 20

pytestmark = pytest.mark.real


async def redirected(running: RunningCache, digest: str) -> None:
    """Returns when the blob is in the store, and clients are sent there and get it.

    The key that signs was set on the container a moment ago: Swift's proxy may believe for a minute what it had read
    of the container just before.
    """
    url = f"{running.url}/v2/lib/app/blobs/{digest}"

    async def sent() -> bool:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status == 200 and len(answer.history) == 1

    async def told() -> bool:  # the access log is in order, and written behind
        return f'blobs/{digest} HTTP/1.1" 307' in running.process.log.read_text()

    await until(sent, what=f"{digest} in the store", seconds=90)
    await until(told, what="the access log")


def files(folder: Path) -> set[str]:
    """The blobs of a copy."""
    return {f"sha256:{file.name}" for file in folder.rglob("*") if len(file.name) == 64}


async def answers(running: RunningCache, digests: Collection[str], *, of: int, since: int) -> set[str]:
    """How its GETs of these blobs were answered; waits until each stands so often in the access log."""

    def told(digest: str) -> list[str]:
        said = running.process.log.read_text()[since:]
        return re.findall(rf'"GET /v2/lib/app/blobs/{digest}[^"]*" (\d+) ', said)

    async def all_told() -> bool:
        return all(len(told(digest)) >= of for digest in digests)

    await until(all_told, what=f"{of} GETs of each blob in the access log")
    return {answer for digest in digests for answer in told(digest)}


async def test_every_client_follows(
    tmp_path: Path,
    open_registry: RunningRegistry,
    swift_service: RunningSwift,
    docker: Docker,
    containerd: Containerd,
) -> None:
    """skopeo, crane, buildah, docker and containerd: each blob of each pull comes from the container, and rightly."""
    image = images.simple_image(3, size=PART + 4321, seed=902)
    await push(open_registry.url, "lib/app", image, "1")
    container = await swift_service.make_container()
    authurl = f"http://localhost:{swift_service.port}/auth/v1.0"
    storage = {"swift": swift_service.settings(container, authurl=authurl, chunksize=PART, secretkey="signs")}
    settings, sections = {"redirect": {"threshold": 0}}, {"storage": storage}
    async with cache(
        tmp_path / "cache", {"url": open_registry.url}, settings=settings, sections=sections
    ) as running:
        reference = f"{running.host}/lib/app:1"
        await clients.skopeo_copy(reference, tmp_path / "cold")
        for digest in image.all_blobs():
            await redirected(running, digest)
        filled, before = len(running.process.log.read_text()), len(open_registry.requests())
        assert set(image.all_blobs()) <= files(await clients.skopeo_copy(reference, tmp_path / "skopeo"))
        assert set(image.all_blobs()) <= files(await clients.crane_pull(reference, tmp_path / "crane"))
        assert await clients.buildah_pull(reference, tmp_path / "buildah") == image.blobs[0].digest[7:]
        assert await docker.pull(reference) == image.digest
        assert await docker.layers(reference) == [layer.diff_id for layer in image.layers]
        await docker.forget(reference)
        name = "registry.example.test/lib/app:1"
        await containerd.pull(name, hosts={"registry.example.test": running.url})
        assert {*image.all_blobs(), image.digest} <= set(await containerd.blobs())
        await containerd.forget(name)
        assert await answers(running, image.all_blobs(), of=5, since=filled) == {"307"}
        assert [
            line for line in open_registry.requests()[before:] if "GET" in line and "/blobs/" in line
        ] == []
    assert len([name for name in await swift_service.names(container) if "/segments/" in f"/{name}"]) == 6
