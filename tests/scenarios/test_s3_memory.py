"""The memory of a cache on S3 does not depend on how large blobs are, nor on how slow the service is."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.stage import images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.process import until
from tests.stage.push import push
from tests.stage.registries import RunningRegistry
from tests.stage.s3services import RunningS3, versitygw
from tests.stage.toxics import toxic

BUCKET = "memory"
SIZE = 128 << 20
AT_ONCE = 8
LIMIT = 200 << 20
SLOW = 10_000
"""Kilobytes per second: a tenth of what the upstream gives at least."""


def peak(running: RunningCache) -> int:
    """The most that the process has had in memory, in bytes."""
    status = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


async def drink(session: aiohttp.ClientSession, url: str) -> int:
    """Take a body and forget it."""
    count = 0
    async with session.get(url) as answer:
        async for chunk in answer.content.iter_any():
            count += len(chunk)
    return count


async def whole(service: RunningS3) -> bool:
    """Whether the bucket has all blobs and no upload is open."""
    sizes = [size for key, size in service.objects(BUCKET).items() if key.endswith("/data")]
    return sizes.count(SIZE) == AT_ONCE and not service.uploads(BUCKET)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("speed", ["as-fast-as-it-can", "slow"])
async def test_eight_large_fills_at_once(tmp_path: Path, open_registry: RunningRegistry, speed: str) -> None:
    """Eight fills of 128 MiB at once, streamed to their clients, stored in parts, then streamed from the store:
    within 200 MiB. A service ten times slower than the upstream changes nothing for the clients.
    """
    layers = [images.big_layer(tmp_path / f"{number}", SIZE, number) for number in range(AT_ONCE)]
    await push(open_registry.url, "lib/app", images.image(layers), "1")
    async with versitygw(tmp_path / "s3") as service, toxic(tmp_path / "toxics", service.port) as network:
        service.make_bucket(BUCKET)
        storage = {"s3": service.settings(BUCKET, port=network.port), "redirect": {"disable": True}}
        settings = {"access": {"mode": "open"}, "spool": {"path": str(tmp_path / "spool")}}
        upstream = {"url": open_registry.url}
        if speed == "slow":
            await network.add("bandwidth", {"rate": SLOW}, upstream=True)
        async with (
            cache(tmp_path / "cache", upstream, settings=settings, sections={"storage": storage}) as running,
            aiohttp.ClientSession() as session,
        ):
            urls = [f"{running.url}/v2/lib/app/blobs/{layer.digest}" for layer in layers]
            assert await asyncio.gather(*(drink(session, url) for url in urls)) == [SIZE] * AT_ONCE
            if speed != "slow":
                await until(lambda: whole(service), what="all blobs to be stored", seconds=60)
                assert await asyncio.gather(*(drink(session, url) for url in urls)) == [SIZE] * AT_ONCE
            assert peak(running) < LIMIT
