"""Pulls by container engines, for the tests of what they are sent to."""

from tests.stage.cacheprocess import RunningCache
from tests.stage.engines import Containerd, Docker
from tests.stage.images import Image


async def by_engines(docker: Docker, containerd: Containerd, running: RunningCache, image: Image) -> None:
    """docker and containerd pull lib/app:1, whole and right; neither keeps anything of it."""
    reference = f"{running.host}/lib/app:1"
    assert await docker.pull(reference) == image.digest
    assert await docker.layers(reference) == [layer.diff_id for layer in image.layers]
    await docker.forget(reference)
    name = "registry.example.test/lib/app:1"
    await containerd.pull(name, hosts={"registry.example.test": running.url})
    assert {*image.all_blobs(), image.digest} <= set(await containerd.blobs())
    await containerd.forget(name)
