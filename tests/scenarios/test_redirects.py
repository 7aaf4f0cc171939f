"""Hits that the storage service sends: the whole cache over a small service with signed URLs, by plain HTTP."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import blob_key
from msrcache.config.load import parse
from msrcache.oci.digest import Digest
from tests.cache.kitchen import Sickness
from tests.scenarios.plays import cache, configuration, pull, settled
from tests.stage.bucket import Bucket, Signing, bucket
from tests.stage.images import noise
from tests.stage.process import until
from tests.stage.scripted import Scripted, Turn, scripted

DATA = noise(250_000, 11)
SMALL = noise(1_000, 12)
KEY = blob_key(Digest.of(DATA))
ALICE = {"Authorization": "Bearer alice"}


@asynccontextmanager
async def _over(
    folder: Path,
    upstream: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    *,
    more: str = "",
    environ: Mapping[str, str] | None = None,
    faults: Sickness | None = None,
) -> AsyncIterator[tuple[Application, Bucket]]:
    async with bucket() as service:
        monkeypatch.setattr("msrcache.assembly.open_driver", lambda section: Signing(service, faults=faults))
        async with cache(folder, upstream, more=more, environ=environ) as application:
            yield application, service


async def _followed(url: str, **headers: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.read()


def _value(application: Application, name: str, **labels: str) -> float:
    return application.metrics.registry.get_sample_value(f"msrcache_{name}", labels) or 0.0


def _calls(application: Application) -> float:
    """Requests that asked the store for something; a probe of an absent key is not among them."""
    return sum(
        _value(application, "storage_calls_total", operation=name, result="ok") for name in ("stat", "open")
    )


async def test_a_warm_pull_is_sent_to_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fill comes from here, the hit from there: whole or a range; HEAD and conditions are answered here."""
    async with scripted() as upstream, _over(tmp_path, upstream, monkeypatch) as (application, service):
        path = upstream.publish_blob(DATA)
        assert (await pull(application, path)).body == DATA
        await settled(application)
        calls = _calls(application)
        hit = await pull(application, path)
        assert (hit.status, hit.body, hit.headers["x-cache"]) == (307, b"", "hit")
        assert hit.headers["cache-control"] == "no-cache"
        assert await _followed(hit.headers["location"]) == (200, DATA)
        assert await _followed(hit.headers["location"], Range="bytes=100-199") == (206, DATA[100:200])
        assert service.ledger == [f"GET {KEY}", f"GET {KEY} bytes=100-199"]
        assert _calls(application) == calls
        head = await pull(application, path, method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(len(DATA)))
        known = await pull(application, path, If_None_Match=f'"{Digest.of(DATA)}"')
        assert known.status == 304
        assert upstream.lines == [f"GET {path}"]
        sent = {"kind": "blob", "outcome": "hit", "status": "307"}
        assert _value(application, "pulls_total", **sent) == 1
        assert _value(application, "bytes_total", outcome="hit") == 0
        assert _value(application, "redirected_bytes_total") == len(DATA)
        assert _value(application, "redirects_total", result="believed") == 1


async def test_small_blobs_and_manifests_are_sent_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below cache.redirect.threshold a second connection costs more than the bytes; manifests are in memory."""
    async with scripted() as upstream, _over(tmp_path, upstream, monkeypatch) as (application, service):
        blob = upstream.publish_blob(SMALL)
        media_type = "application/vnd.oci.image.manifest.v1+json"
        tag = upstream.publish_manifest(b'{"schemaVersion":2,"layers":[]}', media_type, "1")
        for path in (blob, tag):
            assert (await pull(application, path)).status == 200
            await settled(application)
            hit = await pull(application, path)
            assert (hit.status, hit.headers["x-cache"]) == (200, "hit")
        assert service.ledger == []


@pytest.mark.parametrize(
    "more",
    ["  redirect: {clients: [{networks: [127.0.0.0/8], mode: stream}]}\n", "  redirect: {threshold: 1MiB}\n"],
    ids=["network", "threshold"],
)
async def test_what_is_not_sent_is_streamed_with_one_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    """By the client's network or the blob's size: 200 from here, and the store is asked once."""
    async with (
        scripted() as upstream,
        _over(tmp_path, upstream, monkeypatch, more=more) as (application, service),
    ):
        path = upstream.publish_blob(DATA)
        await pull(application, path)
        await settled(application)
        calls = _calls(application)
        got = await pull(application, path)
        assert (got.status, got.body) == (200, DATA)
        assert service.ledger == []
        assert _calls(application) == calls + 1


async def test_a_network_has_an_endpoint_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients outside reach the service by another name than we do."""
    more = "  redirect: {clients: [{networks: [127.0.0.0/8], endpoint: 'https://s3.example.test:8443'}]}\n"
    async with scripted() as upstream, _over(tmp_path, upstream, monkeypatch, more=more) as (application, _):
        path = upstream.publish_blob(DATA)
        await pull(application, path)
        await settled(application)
        where = urlsplit((await pull(application, path)).headers["location"])
        assert (where.scheme, where.netloc, where.path) == ("https", "s3.example.test:8443", f"/{KEY}")


async def test_nobody_is_sent_while_the_upstream_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With grace the hit is streamed, no URL that outlives it is given; when the upstream is back, the URL is."""
    environ = {
        "REGISTRY_CACHE_ACCESS_MODE": "upstream",
        "REGISTRY_CACHE_ACCESS_VERDICT": "0s",
        "REGISTRY_CACHE_FRESHNESS_BREAKER_OPEN": "100ms",
    }
    async with (
        scripted() as upstream,
        _over(tmp_path, upstream, monkeypatch, environ=environ) as (application, service),
    ):
        path = upstream.publish_blob(DATA)
        assert (await pull(application, path, **ALICE)).body == DATA
        await settled(application)
        assert (await pull(application, path, **ALICE)).status == 307
        upstream.always(path, Turn(status=503), method="HEAD")
        graced = await pull(application, path, **ALICE)
        assert (graced.status, graced.body) == (200, DATA)
        assert service.ledger == []
        assert _value(application, "redirects_total", result="grace") == 1
        stranger = await pull(application, path, Authorization="Bearer bob")
        assert (stranger.status, "location" in stranger.headers) == (503, False)
        upstream.always(path, Turn(), method="HEAD")

        async def sent() -> bool:
            return (await pull(application, path, **ALICE)).status == 307

        await until(sent, what="the upstream to be asked again")


async def test_a_refused_caller_is_given_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upstream says no: its answer, and not a word of where the blob is."""
    environ = {"REGISTRY_CACHE_ACCESS_MODE": "upstream"}
    async with (
        scripted() as upstream,
        _over(tmp_path, upstream, monkeypatch, environ=environ) as (application, _),
    ):
        path = upstream.publish_blob(DATA)
        upstream.guard = lambda request: None if request.authorization == "Bearer alice" else Turn(status=403)
        assert (await pull(application, path, **ALICE)).body == DATA
        await settled(application)
        for method in ("GET", "HEAD"):
            refused = await pull(application, path, method=method, Authorization="Bearer bob")
            assert (refused.status, refused.headers.keys() & {"location", "x-cache"}) == (403, set())


async def test_a_store_that_is_away_is_noticed_though_no_pull_asks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where clients are sent there it is looked at now and then: when it fails, hits are misses and no dead URLs."""
    sickness, often = Sickness(), {"REGISTRY_HEALTH_STORAGEDRIVER_INTERVAL": "100ms"}
    async with (
        scripted() as upstream,
        _over(tmp_path, upstream, monkeypatch, environ=often, faults=sickness) as (application, _),
    ):
        path = upstream.publish_blob(DATA)
        await pull(application, path)
        await settled(application)
        assert (await pull(application, path)).status == 307
        sickness.fails = dict.fromkeys(("stat", "open", "writer"), "")

        async def noticed() -> bool:
            return not application.store.readable

        await until(noticed, what="the look at the store")
        got = await pull(application, path)
        assert (got.status, got.body, got.headers["x-cache"]) == (200, DATA, "miss")


async def test_the_middleware_of_docker_registry(tmp_path: Path) -> None:
    """`redirect` with its baseurl: scheme and host of it, then the object's key, whatever the driver."""
    environ = {
        "REGISTRY_MIDDLEWARE_STORAGE": "[{name: redirect, options: {baseurl: https://blobs.example.test}}]"
    }
    async with scripted() as upstream, cache(tmp_path, upstream, environ=environ) as application:
        path = upstream.publish_blob(DATA)
        await pull(application, path)
        await settled(application)
        hit = await pull(application, path)
        assert (hit.status, hit.headers["location"]) == (307, f"https://blobs.example.test/{KEY}")


async def test_switched_off_every_byte_flows_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """storage.redirect.disable."""
    environ = {"REGISTRY_STORAGE_REDIRECT_DISABLE": "true"}
    async with (
        scripted() as upstream,
        _over(tmp_path, upstream, monkeypatch, environ=environ) as (application, _),
    ):
        path = upstream.publish_blob(DATA)
        await pull(application, path)
        await settled(application)
        assert (await pull(application, path)).body == DATA


async def test_a_reload_changes_where_clients_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that clients do not reach is put right without a restart."""
    async with scripted() as upstream, _over(tmp_path, upstream, monkeypatch) as (application, _):
        path = upstream.publish_blob(DATA)
        await pull(application, path)
        await settled(application)
        assert (await pull(application, path)).status == 307
        text = configuration(tmp_path, upstream.url)
        for environ, status in (({"REGISTRY_STORAGE_REDIRECT_DISABLE": "true"}, 200), ({}, 307)):
            await application.reload(parse(text, "config.yml", environ))
            assert (await pull(application, path)).status == status
