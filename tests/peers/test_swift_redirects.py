"""Real clients are sent to a real Swift for their blobs, small and in segments, and bring images whole.

The service is named `localhost`: crane refuses redirects to another host that is a private address.
"""

import re
from collections.abc import Collection
from pathlib import Path

import aiohttp
import pytest

from msrcache.oci.digest import Digest
from tests.peers.pulling import by_engines
from tests.stage import clients, images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.engines import Containerd, Docker
from tests.stage.process import until
from tests.stage.push import push
from tests.stage.registries import RunningRegistry
from tests.stage.swiftservices import RunningSwift

PART = 1 << 20

pytestmark = pytest.mark.real


async def redirected(running: RunningCache, digest: str, *, seconds: float = 90) -> None:
    """Returns when clients are sent to the store for the blob; whichever way it comes, it comes rightly."""
    url = f"{running.url}/v2/lib/app/blobs/{digest}"

    async def sent() -> bool:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            body = await answer.read()
            assert (answer.status, str(Digest.of(body))) == (200, digest), answer.url
            return len(answer.history) == 1

    async def told() -> bool:  # the access log is in order, and written behind
        return f'blobs/{digest} HTTP/1.1" 307' in running.process.log.read_text()

    await until(sent, what=f"{digest} to be redirected", seconds=seconds)
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
    container = await swift_service.make_container(**{"X-Container-Meta-Temp-URL-Key": "signs"})
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
        await by_engines(docker, containerd, running, image)
        assert await answers(running, image.all_blobs(), of=5, since=filled) == {"307"}
        assert [
            line for line in open_registry.requests()[before:] if "GET" in line and "/blobs/" in line
        ] == []
    assert len([name for name in await swift_service.names(container) if "/segments/" in f"/{name}"]) == 6


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_no_client_is_refused_after_the_key_was_put(
    tmp_path: Path, open_registry: RunningRegistry, swift_service: RunningSwift
) -> None:
    """The cache puts the key on the container itself, where Swift remembers the container without it: its blobs are
    streamed until the service honours URLs, and then left to it. That takes a minute or two.
    """
    image = images.simple_image(1, size=4321, seed=903)
    await push(open_registry.url, "lib/app", image, "1")
    storage = {"swift": swift_service.settings(await swift_service.make_container(), secretkey="signs")}
    settings, sections = {"redirect": {"threshold": 0}}, {"storage": storage}
    async with cache(
        tmp_path / "cache", {"url": open_registry.url}, settings=settings, sections=sections
    ) as running:
        await redirected(running, image.blobs[0].digest, seconds=240)
