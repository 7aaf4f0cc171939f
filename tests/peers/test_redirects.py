"""Real clients are sent to a real S3 service for their blobs, and bring images whole.

The service is named `localhost`: crane refuses redirects to another host that is a private address.
"""

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.peers.pulling import by_engines
from tests.stage import clients, images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.clients import ran
from tests.stage.engines import Containerd, Docker
from tests.stage.images import Image
from tests.stage.process import free_port, listens, running, until
from tests.stage.push import push
from tests.stage.registries import RunningRegistry
from tests.stage.s3services import RunningS3, minio, versitygw
from tests.stage.tools import need

pytestmark = pytest.mark.real
EACH = pytest.mark.parametrize(
    "stand", [versitygw, pytest.param(minio, marks=pytest.mark.slow)], indirect=True
)
EVERYTHING = {"redirect": {"threshold": 0}}


@dataclass(frozen=True, slots=True)
class Stand:
    """A cache over S3 that was filled with lib/app:1, and what it has answered since."""

    cache: RunningCache
    image: Image
    service: RunningS3
    upstream: RunningRegistry
    filled: int

    @property
    def reference(self) -> str:
        """Of the image, through the cache."""
        return f"{self.cache.host}/lib/app:1"

    def answers(self, digest: str) -> list[str]:
        """The statuses of all GETs of a blob since it was filled."""
        said = self.cache.process.log.read_text()[self.filled :]
        return re.findall(rf'"GET /v2/lib/app/blobs/{digest}[^"]*" (\d+) ', said)

    async def told(self, digest: str, times: int) -> None:
        """Returns when the access log, which is written behind, has so many of them."""

        async def there() -> bool:
            return len(self.answers(digest)) >= times

        await until(there, what=f"{times} GETs of {digest} in the access log")


@pytest.fixture
async def stand(
    request: pytest.FixtureRequest, tmp_path: Path, open_registry: RunningRegistry
) -> AsyncIterator[Stand]:
    """Filled by skopeo; every blob is then in the bucket, of versitygw unless the test wants another service."""
    started = getattr(request, "param", versitygw)
    image = images.simple_image(3, seed=901)
    await push(open_registry.url, "lib/app", image, "1")
    async with started(tmp_path / "s3") as service:
        service.make_bucket("blobs")
        endpoint = service.url.replace("127.0.0.1", "localhost")
        storage = {"s3": service.settings("blobs", regionendpoint=endpoint)}
        upstream = {"url": open_registry.url}
        sections = {"storage": storage}
        async with cache(tmp_path / "cache", upstream, settings=EVERYTHING, sections=sections) as running:
            await clients.skopeo_copy(f"{running.host}/lib/app:1", tmp_path / "cold")
            for digest in image.all_blobs():
                await _stored(running, digest)
            yield Stand(running, image, service, open_registry, len(running.process.log.read_text()))


async def _stored(running: RunningCache, digest: str) -> None:
    """Returns when the blob is redirected and the log, which is in order, has said so."""
    url = f"{running.url}/v2/lib/app/blobs/{digest}"

    async def redirected() -> bool:
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            return answer.status == 307

    async def told() -> bool:
        return f'blobs/{digest} HTTP/1.1" 307' in running.process.log.read_text()

    await until(redirected, what=f"{digest} in the bucket")
    await until(told, what="the access log")


def _files(folder: Path) -> set[str]:
    return {f"sha256:{file.name}" for file in folder.rglob("*") if len(file.name) == 64}


@EACH
async def test_every_client_follows(
    tmp_path: Path, stand: Stand, docker: Docker, containerd: Containerd
) -> None:
    """skopeo, crane, buildah, docker and containerd: each blob of each pull comes from the bucket, and rightly."""
    reference, image = stand.reference, stand.image
    before = len(stand.upstream.requests())
    assert set(image.all_blobs()) <= _files(await clients.skopeo_copy(reference, tmp_path / "skopeo"))
    assert set(image.all_blobs()) <= _files(await clients.crane_pull(reference, tmp_path / "crane"))
    assert await clients.buildah_pull(reference, tmp_path / "buildah") == image.blobs[0].digest[7:]
    await by_engines(docker, containerd, stand.cache, image)
    for digest in image.all_blobs():
        await stand.told(digest, 5)
        assert set(stand.answers(digest)) == {"307"}, digest
    assert [line for line in stand.upstream.requests()[before:] if "/blobs/" in line and "GET" in line] == []


@EACH
async def test_ranges_and_heads(tmp_path: Path, stand: Stand) -> None:
    """curl: GET and Range are answered by the service, HEAD by the cache with the whole length."""
    curl = need("curl")
    layer = max(stand.image.blobs, key=lambda blob: blob.size)
    data, url = layer.bytes(), f"{stand.cache.url}/v2/lib/app/blobs/{layer.digest}"
    target = tmp_path / "got"
    for argv, expected in (([], data), (["-r", "10-99"], data[10:100]), (["-r", "-7"], data[-7:])):
        said = await ran(curl, "-sSfL", *argv, "-o", target, "-w", "%{url_effective} %{num_redirects}", url)
        assert said.out.startswith(stand.service.url.replace("127.0.0.1", "localhost"))
        assert said.out.endswith(" 1")
        assert target.read_bytes() == expected
    said = await ran(curl, "-sSI", url)
    assert said.out.startswith("HTTP/1.1 200")
    assert f"content-length: {layer.size}" in said.out.lower()
    assert "location:" not in said.out.lower()


async def test_objects_that_were_deleted_are_stored_again(tmp_path: Path, stand: Stand) -> None:
    """Somebody emptied the bucket: who comes back after a 404 there is served by a fill, which stores it again."""
    layer = max(stand.image.blobs, key=lambda blob: blob.size)
    url = f"{stand.cache.url}/v2/lib/app/blobs/{layer.digest}"
    (path,) = (stand.service.folder / "blobs").rglob(f"{layer.digest[7:]}/data")
    path.unlink()
    curl, target = need("curl"), tmp_path / "got"

    async def served() -> bool:
        status = (await ran(curl, "-sSL", "-o", target, "-w", "%{http_code}", url)).out
        assert status in ("200", "404")
        return status == "200"

    await until(served, what="the fill of who came back")
    assert target.read_bytes() == layer.bytes()

    async def there() -> bool:
        return path.exists()

    await until(there, what="the object that was stored again")


NGINX = """\
daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; location / {{ root {data}; }} }}
}}
"""


@contextlib.asynccontextmanager
async def _files_at(folder: Path, data: Path) -> AsyncIterator[str]:
    """nginx that serves a folder as it is; its URL."""
    port = free_port()
    for path in (folder, data):
        path.mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, data=data))
    argv: list[str | Path] = [need("nginx"), "-c", config, "-p", folder]
    async with running("nginx", argv, ready=lambda: listens(port), log=folder / "nginx.log"):
        yield f"http://localhost:{port}"


async def test_a_host_of_the_operators_own_sends_the_blobs(
    tmp_path: Path, open_registry: RunningRegistry
) -> None:
    """Docker Registry's middleware `redirect` over a file-system store: nginx sends the files, real clients follow."""
    image, data = images.simple_image(3, seed=902), tmp_path / "cache/data"
    await push(open_registry.url, "lib/app", image, "1")
    async with _files_at(tmp_path / "nginx", data) as base:
        sections = {"middleware": {"storage": [{"name": "redirect", "options": {"baseurl": base}}]}}
        upstream = {"url": open_registry.url}
        async with cache(tmp_path / "cache", upstream, settings=EVERYTHING, sections=sections) as running:
            reference = f"{running.host}/lib/app:1"
            await clients.skopeo_copy(reference, tmp_path / "cold")
            for digest in image.all_blobs():
                await _stored(running, digest)
            assert set(image.all_blobs()) <= _files(await clients.skopeo_copy(reference, tmp_path / "skopeo"))
            assert set(image.all_blobs()) <= _files(await clients.crane_pull(reference, tmp_path / "crane"))
    sent = (tmp_path / "nginx/access.log").read_text()
    for digest in image.all_blobs():
        assert sent.count(f"/{digest[7:]}/data HTTP") >= 2, digest
