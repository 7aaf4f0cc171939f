"""Real clients are sent to a real Azure service for their blobs, and bring images whole.

The service is named `localhost`: crane refuses redirects to another host that is a private address.
"""

import re
from pathlib import Path

import aiohttp
import pytest

from tests.stage import clients, images
from tests.stage.azureservice import RunningAzure
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.clients import ran
from tests.stage.process import until
from tests.stage.push import push
from tests.stage.registries import RunningRegistry
from tests.stage.tools import need

pytestmark = pytest.mark.real
EVERYTHING = {"redirect": {"threshold": 0}}


async def _stored(running: RunningCache, digest: str) -> None:
    """Returns when the blob is redirected and the log, which is in order, has said so."""
    url = f"{running.url}/v2/lib/app/blobs/{digest}"

    async def redirected() -> bool:
        async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as answer:
            return answer.status == 307

    async def told() -> bool:
        return f'blobs/{digest} HTTP/1.1" 307' in running.process.log.read_text()

    await until(redirected, what=f"{digest} in the container")
    await until(told, what="the access log")


def _files(folder: Path) -> set[str]:
    return {f"sha256:{file.name}" for file in folder.rglob("*") if len(file.name) == 64}


async def test_clients_follow(
    tmp_path: Path, open_registry: RunningRegistry, azure_service: RunningAzure
) -> None:
    """skopeo, crane and curl: each blob of a warm pull comes from the container, by one request, and rightly."""
    image = images.simple_image(3, seed=902)
    await push(open_registry.url, "lib/app", image, "1")
    container = azure_service.make_container()
    endpoint = azure_service.url.replace("127.0.0.1", "localhost")
    storage = {"azure": azure_service.settings(container) | {"serviceurl": endpoint}}
    settings = {**EVERYTHING, "spool": {"path": str(tmp_path / "spool")}}
    upstream, sections = {"url": open_registry.url}, {"storage": storage}
    async with cache(tmp_path / "cache", upstream, settings=settings, sections=sections) as running:
        await clients.skopeo_copy(f"{running.host}/lib/app:1", tmp_path / "cold")
        for digest in image.all_blobs():
            await _stored(running, digest)
        before = len(open_registry.requests())
        filled = len(running.process.log.read_text())
        asked = len(await azure_service.requests(container))
        for copy, folder in ((clients.skopeo_copy, "skopeo"), (clients.crane_pull, "crane")):
            copied = await copy(f"{running.host}/lib/app:1", tmp_path / folder)
            assert set(image.all_blobs()) <= _files(copied)
        layer = max(image.blobs, key=lambda blob: blob.size)
        url, target = f"{running.url}/v2/lib/app/blobs/{layer.digest}", tmp_path / "got"
        said = await ran(need("curl"), "-sSfL", "-r", "10-99", "-o", target, "-w", "%{url_effective}", url)
        assert said.out.startswith(endpoint)
        assert target.read_bytes() == layer.bytes()[10:100]
        new = (await azure_service.requests(container))[asked:]
        told = running.process.log.read_text()[filled:]
    assert set(re.findall(r'"GET /v2/lib/app/blobs/\S+ HTTP/1.1" (\d+) ', told)) == {"307"}
    fetched = [line for line in new if line.startswith("GET docker/registry/v2/blobs/")]
    assert len(fetched) == 2 * len(image.all_blobs()) + 1
    assert [line for line in open_registry.requests()[before:] if "/blobs/" in line and "GET" in line] == []
