"""Hits on a real S3 service that are not streamed from it: sent by the service itself, or from a local folder."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import blob_key
from msrcache.oci.digest import Digest
from tests.scenarios.plays import Got, cache, pull, settled
from tests.scenarios.test_s3_store import BUCKET, SMALL, Ledger
from tests.stage.process import until
from tests.stage.s3services import RunningS3, versitygw
from tests.stage.scripted import Scripted, scripted

pytestmark = pytest.mark.real


@pytest.fixture
async def bucket(tmp_path: Path) -> AsyncIterator[RunningS3]:
    """versitygw with an empty bucket."""
    async with versitygw(tmp_path / "s3") as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture
async def registry() -> AsyncIterator[Scripted]:
    """A registry with a ledger."""
    async with scripted() as server:
        yield server


@asynccontextmanager
async def replica(
    folder: Path, service: RunningS3, upstream: Scripted, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Application]:
    """A cache on the bucket that believes what address its clients say they have."""
    given = {
        "REGISTRY_STORAGE": json.dumps({"s3": service.settings(BUCKET)}),
        "REGISTRY_CACHE_SPOOL_PATH": str(folder / "spool"),
        "REGISTRY_CACHE_TRUSTED": "[127.0.0.1]",
    }
    async with cache(folder, upstream, environ=given | dict(environ or {})) as application:
        yield application


async def from_(address: str, application: Application, path: str, **headers: str) -> Got:
    """A pull by a client of this address."""
    return await pull(application, path, X_Forwarded_For=address, **headers)


async def asked(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """What the service says to whoever has the URL."""
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
        return answer.status, await answer.read()


async def test_what_a_redirected_hit_costs_the_store(
    tmp_path: Path, bucket: RunningS3, registry: Scripted
) -> None:
    """Warm: nothing. Cold belief: one stat, and the link where that is unknown too. The bytes are the client's own."""
    path = registry.publish_blob(SMALL)
    async with (
        replica(tmp_path / "a", bucket, registry) as here,
        replica(tmp_path / "b", bucket, registry) as there,
    ):
        await pull(here, path)
        await settled(here)
        ledger = Ledger(bucket)
        first, hit = [await from_(address, here, path) for address in ("192.0.2.1", "192.0.2.2")]
        assert (first.status, hit.status, hit.body, hit.headers["x-cache"]) == (307, 307, b"", "hit")
        assert ledger.new() == []
        assert await asked(hit.headers["location"]) == (200, SMALL)
        assert await asked(hit.headers["location"], Range="bytes=5-99") == (206, SMALL[5:100])
        assert ledger.new() == ["GET data", "GET data"]
        assert (await from_("192.0.2.3", there, path)).status == 307
        assert ledger.new() == ["HEAD data", "GET link"]
        assert (await from_("192.0.2.4", there, path)).status == 307
        assert ledger.new() == []
        head = await pull(there, path, method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(len(SMALL)))
        assert ledger.new() == ["HEAD data"]
    assert registry.lines == [f"GET {path}"]


async def test_a_url_opens_its_blob_and_nothing_else(
    tmp_path: Path, bucket: RunningS3, registry: Scripted
) -> None:
    """Good for GET of this key for 20 minutes: no other key, no other method, not without its signature."""
    paths = [registry.publish_blob(data) for data in (SMALL, SMALL[::-1])]
    async with replica(tmp_path, bucket, registry) as application:
        for path in paths:
            await pull(application, path)
        await settled(application)
        url = (await pull(application, paths[0])).headers["location"]
        assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["1200"]
        ours, other = (blob_key(Digest.of(data)) for data in (SMALL, SMALL[::-1]))
        assert ours in url
        for wrong in (url.replace(ours, other), url.split("?")[0], url.replace("1200", "9999")):
            assert (await asked(wrong))[0] == 403
        assert (await asked(url, "HEAD"))[0] == (await asked(url, "DELETE"))[0] == 403
        assert await asked(url) == (200, SMALL)


async def test_clients_are_sent_to_the_endpoint_of_their_network(
    tmp_path: Path, bucket: RunningS3, registry: Scripted
) -> None:
    """Signed for the name under which they reach the service, which is not ours; others are streamed to."""
    clients = [
        {"networks": ["192.0.2.0/24"], "endpoint": f"http://localhost:{bucket.port}"},
        {"networks": ["203.0.113.0/24"], "mode": "stream"},
    ]
    path = registry.publish_blob(SMALL)
    environ = {"REGISTRY_CACHE_REDIRECT_CLIENTS": json.dumps(clients)}
    async with replica(tmp_path, bucket, registry, environ) as application:
        await pull(application, path)
        await settled(application)
        url = (await from_("192.0.2.9", application, path)).headers["location"]
        assert urlsplit(url).netloc == f"localhost:{bucket.port}"
        assert await asked(url) == (200, SMALL)
        assert (await from_("203.0.113.9", application, path)).body == SMALL
        ours = (await from_("198.51.100.9", application, path)).headers["location"]
        assert urlsplit(ours).netloc == f"127.0.0.1:{bucket.port}"
        assert await asked(ours) == (200, SMALL)


async def test_what_a_local_hit_costs_the_store(
    tmp_path: Path, bucket: RunningS3, registry: Scripted
) -> None:
    """A stream brings the blob in: the next hits ask the service for nothing, on each replica for itself."""
    path = registry.publish_blob(SMALL)
    streaming = {"REGISTRY_STORAGE_REDIRECT_DISABLE": "true", "REGISTRY_CACHE_LOCAL_SIZE": "1GiB"}
    here_too = streaming | {"REGISTRY_CACHE_LOCAL_PATH": str(tmp_path / "tier")}
    async with (
        replica(tmp_path / "a", bucket, registry, here_too | {"REGISTRY_CACHE_LOCAL_ADMIT": "first"}) as here,
        replica(tmp_path / "b", bucket, registry, here_too) as there,
    ):
        assert (await pull(here, path)).body == SMALL
        await settled(here)
        ledger = Ledger(bucket)
        for headers, body in (({}, SMALL), ({"Range": "bytes=7-99"}, SMALL[7:100])):
            got = await pull(here, path, **headers)
            assert (got.body, got.headers["x-cache"]) == (body, "hit")
        assert ledger.new() == []
        assert (await pull(there, path)).body == SMALL
        assert ledger.new() == ["GET data", "GET link"]
        assert (await pull(there, path)).body == SMALL
        assert ledger.new() == ["GET data"]

        async def kept() -> bool:
            return there.local is not None and there.local.used == len(SMALL) and not there.local._arriving

        await until(kept, what="the blob in the hot tier")
        assert (await pull(there, path)).body == SMALL
        assert ledger.new() == []
        assert {folder.name for folder in (tmp_path / "tier").iterdir()} == {"0", "1"}
    assert registry.lines == [f"GET {path}"]
