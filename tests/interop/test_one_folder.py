"""Debian's docker-registry and the cache read what the other wrote into the same folder."""

from pathlib import Path

import aiohttp

from tests.stage import clients, images
from tests.stage.cacheprocess import cache
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, registry


async def test_the_registry_serves_what_was_cached(tmp_path: Path, open_registry: RunningRegistry) -> None:
    """Manifests by tag and digest, layers, configuration and the catalog, without the cache."""
    image = images.platforms()
    await push(open_registry.url, "lib/app", image, "1")
    async with cache(tmp_path / "cache", {"url": open_registry.url}, data=tmp_path / "one/data") as running:
        await clients.skopeo_copy(f"{running.host}/lib/app:1", tmp_path / "cold", every_platform=True)
    await open_registry.process.stop()
    async with registry(Kind.V2, tmp_path / "one") as reader:
        for name in ("lib/app:1", f"lib/app@{image.digest}"):
            place = tmp_path / name[7:11].replace(":", "tag")
            copied = await clients.skopeo_copy(f"{reader.host}/{name}", place, every_platform=True)
            assert {digest[7:] for digest in image.all_blobs()} <= {file.name for file in copied.iterdir()}
        async with aiohttp.ClientSession() as session, session.get(f"{reader.url}/v2/_catalog") as answer:
            assert await answer.json() == {"repositories": ["lib/app"]}


async def test_the_cache_serves_what_was_pushed(tmp_path: Path, open_registry: RunningRegistry) -> None:
    """No byte of a layer is asked of the upstream; stray files and broken links are no obstacle."""
    image = images.simple_image(3)
    await push(open_registry.url, "lib/app", image, "1")
    async with registry(Kind.V2, tmp_path / "one") as writer:
        await push(writer.url, "lib/app", image, "1")
        data = writer.folder
    root = data / "docker/registry/v2"
    links = sorted((root / "repositories/lib/app/_layers/sha256").glob("*/link"))
    links[0].write_bytes(b"")
    links[1].write_bytes(links[1].read_bytes()[:20])
    links[2].unlink()
    stray = root / "repositories/lib/app/_uploads/11111111-2222-3333-4444-555555555555"
    stray.mkdir(parents=True)
    (stray / "data").write_bytes(b"half")
    async with cache(tmp_path / "cache", {"url": open_registry.url}, data=data) as running:
        copied = await clients.skopeo_copy(f"{running.host}/lib/app:1", tmp_path / "warm")
        assert {digest[7:] for digest in image.all_blobs()} <= {file.name for file in copied.iterdir()}
    asked = open_registry.requests()
    assert not [line for line in asked if line.startswith("GET /v2/lib/app/blobs/")]
