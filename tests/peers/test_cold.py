"""Each client alone on a cache that is empty: the miss is filled by its own way of asking, and once."""

import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.stage import clients, images
from tests.stage.cacheprocess import cache
from tests.stage.engines import Containerd, Docker
from tests.stage.images import Image
from tests.stage.push import push
from tests.stage.registries import RunningRegistry

Pull = Callable[[str, Path], Awaitable[object]]
SEEDS = itertools.count(500)


async def _cold(folder: Path, upstream: RunningRegistry, image: Image, pull: Pull) -> None:
    await push(upstream.url, "lib/app", image, "1")
    async with cache(folder / "cache", {"url": upstream.url}) as running:
        before = len(upstream.requests())
        await pull(f"{running.host}/lib/app:1", folder / "client")
        asked = upstream.requests()[before:]
    fetched = sorted(line for line in asked if line.startswith("GET") and "/blobs/" in line)
    assert fetched == sorted(f"GET /v2/lib/app/blobs/{digest}" for digest in image.all_blobs())
    stored = folder / "cache/data/docker/registry/v2/blobs/sha256"
    for digest in (*image.all_blobs(), image.digest):
        assert (stored / digest[7:9] / digest[7:] / "data").exists(), digest


@pytest.fixture
def image() -> Image:
    """Nothing that an engine of this run may have by now."""
    return images.simple_image(3, seed=next(SEEDS))


@pytest.mark.real
@pytest.mark.parametrize("pull", [clients.crane_pull, clients.buildah_pull], ids=["crane", "buildah"])
async def test_a_client_without_a_daemon(
    tmp_path: Path, open_registry: RunningRegistry, image: Image, pull: Pull
) -> None:
    """crane and buildah bring the image whole."""
    await _cold(tmp_path, open_registry, image, pull)


@pytest.mark.real
async def test_docker(tmp_path: Path, open_registry: RunningRegistry, image: Image, docker: Docker) -> None:
    """docker pull brings the image that was pushed, unpacked."""

    async def pull(reference: str, folder: Path) -> None:
        assert await docker.pull(reference) == image.digest
        assert await docker.layers(reference) == [layer.diff_id for layer in image.layers]
        await docker.forget(reference)

    await _cold(tmp_path, open_registry, image, pull)


@pytest.mark.real
async def test_containerd(
    tmp_path: Path, open_registry: RunningRegistry, image: Image, containerd: Containerd
) -> None:
    """As the mirror of a registry of another name (?ns= on every request), ctr brings all of the image."""

    async def pull(reference: str, folder: Path) -> None:
        host, _, rest = reference.partition("/")
        name = f"registry.example.test/{rest}"
        await containerd.pull(name, hosts={"registry.example.test": f"http://{host}"})
        assert {*image.all_blobs(), image.digest} <= set(await containerd.blobs())
        await containerd.forget(name)

    await _cold(tmp_path, open_registry, image, pull)
