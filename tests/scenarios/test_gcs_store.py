"""The whole cache on Google Cloud Storage: two replicas on one bucket, what pulls cost, redirects, bad networks."""

import asyncio
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
from tests.scenarios.plays import Got, cache, pull, pulling, settled
from tests.stage.gcsfront import refusal
from tests.stage.gcsservices import RunningGcs, fakegcs
from tests.stage.images import noise
from tests.stage.process import until
from tests.stage.scripted import Hold, Scripted, Turn, scripted
from tests.stage.toxics import Toxic, toxic

BUCKET = "replicas"
SMALL = noise(100_000, 1)
LARGE = noise(12_000_000, 2)
"""Two pieces."""
BLOBS, AT_ONCE = 100, 50
BREAKER = "  storage: {breaker: {failures: 3, open: 50ms}}\n"

TOXINS = {
    "reset_peer": {"timeout": 0},
    "limit_data": {"bytes": 5_000_000},
    "latency": {"latency": 50},
    "bandwidth": {"rate": 20_000},
}

pytestmark = pytest.mark.real


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningGcs]:
    """The service with an empty bucket."""
    async with fakegcs(tmp_path / "gcs") as running:
        await running.make_bucket(BUCKET)
        yield running


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    """A registry with a ledger."""
    async with scripted() as server:
        yield server


@pytest.fixture
async def network(service: RunningGcs, tmp_path: Path) -> AsyncIterator[Toxic]:
    """What lies between a replica and the service."""
    async with toxic(tmp_path / "toxics", service.port) as proxy:
        yield proxy


@asynccontextmanager
async def replica(
    folder: Path,
    service: RunningGcs,
    upstream: Scripted,
    *,
    port: int | None = None,
    redirects: bool = False,
    more: Mapping[str, str] | None = None,
) -> AsyncIterator[Application]:
    """A cache on the bucket, whose clients it believes; `port` is that of a proxy before the service."""
    storage = {"gcs": service.settings(BUCKET, port=port), "redirect": {"disable": not redirects}}
    given = {
        "REGISTRY_STORAGE": json.dumps(storage),
        "REGISTRY_CACHE_SPOOL_PATH": str(folder / "spool"),
        "REGISTRY_CACHE_TRUSTED": "[127.0.0.1]",
    }
    async with cache(folder, upstream, more=BREAKER, environ=given | dict(more or {})) as application:
        yield application


def asked(service: RunningGcs) -> list[str]:
    """What the service was asked about blobs and links since the last look: what, and the key's last word."""
    lines = [line.split(" ") for line in service.front.ledger]
    service.front.ledger.clear()
    return [f"{line[0]} {line[1].rpartition('/')[2]}" for line in lines if "docker/" in "".join(line[1:])]


async def stored(service: RunningGcs, data: bytes) -> bool:
    """Whether the bucket has the blob."""
    return (await service.objects(BUCKET)).get(blob_key(Digest.of(data))) == len(data)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("blobs", [BLOBS, pytest.param(1000, marks=pytest.mark.slow)])
async def test_what_one_has_filled_the_other_serves_at_once(
    tmp_path: Path, service: RunningGcs, upstream: Scripted, blobs: int
) -> None:
    """Blobs, each pulled through one replica and, as soon as that has stored it, through the other: every one a hit,
    and the upstream sent each once; a thousand with the slow tests. On the emulator itself, which is faster.
    """
    storage = {"gcs": {"bucket": BUCKET, "endpoint": service.front.behind}, "redirect": {"disable": True}}
    more = {"REGISTRY_STORAGE": json.dumps(storage)}
    async with (
        replica(tmp_path / "a", service, upstream, more=more) as here,
        replica(tmp_path / "b", service, upstream, more=more) as there,
    ):
        for start in range(0, blobs, AT_ONCE):
            contents = [noise(700 + number, number) for number in range(start, start + AT_ONCE)]
            paths = [upstream.publish_blob(data) for data in contents]
            cold = await asyncio.gather(*(pull(here, path) for path in paths))
            await settled(here)
            warm = await asyncio.gather(*(pull(there, path) for path in paths))
            assert [got.body for got in cold] == [got.body for got in warm] == contents
            assert {got.headers["x-cache"] for got in warm} == {"hit"}
    assert len([line for line in upstream.lines if line.startswith("GET")]) == blobs


async def test_what_a_pull_costs_the_store(tmp_path: Path, service: RunningGcs, upstream: Scripted) -> None:
    """Exactly: a fill of one part four requests, one of them to check it; a hit one; a link that is not believed yet
    one more.
    """
    path = upstream.publish_blob(SMALL)
    async with (
        replica(tmp_path / "a", service, upstream) as here,
        replica(tmp_path / "b", service, upstream) as there,
    ):
        asked(service)
        await pull(here, path)
        await settled(here)
        assert asked(service) == ["read data", "write data", "stat data", "write link"]
        await pull(here, path)
        assert asked(service) == ["read data"]
        await pull(there, path)
        assert asked(service) == ["read data", "read link"]
        await pull(there, path)
        assert asked(service) == ["read data"]
        await pull(there, path, method="HEAD")
        assert asked(service) == ["stat data"]


async def test_a_large_fill_costs_its_pieces(tmp_path: Path, service: RunningGcs, upstream: Scripted) -> None:
    """A beginning and each piece; and the same look before, check and link after."""
    path = upstream.publish_blob(LARGE)
    async with replica(tmp_path / "a", service, upstream) as here:
        asked(service)
        assert (await pull(here, path)).body == LARGE
        await settled(here)
        pieces = ["begin data", "piece data", "piece data"]
        assert asked(service) == ["read data", *pieces, "stat data", "write link"]
    assert await stored(service, LARGE)


async def by_url(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """What the service says to whoever has the URL."""
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
        return answer.status, await answer.read()


async def from_(address: str, application: Application, path: str) -> Got:
    """A pull by a client of this address."""
    return await pull(application, path, X_Forwarded_For=address)


async def test_what_a_redirected_hit_costs_the_store(
    tmp_path: Path, service: RunningGcs, upstream: Scripted
) -> None:
    """Warm: nothing. Cold belief: one stat, and the link where that is unknown too. The bytes are the client's own."""
    path = upstream.publish_blob(SMALL)
    async with (
        replica(tmp_path / "a", service, upstream, redirects=True) as here,
        replica(tmp_path / "b", service, upstream, redirects=True) as there,
    ):
        await pull(here, path)
        await settled(here)
        asked(service)
        first, hit = [await from_(address, here, path) for address in ("192.0.2.1", "192.0.2.2")]
        assert (first.status, hit.status, hit.body, hit.headers["x-cache"]) == (307, 307, b"", "hit")
        assert asked(service) == []
        assert await by_url(hit.headers["location"]) == (200, SMALL)
        assert await by_url(hit.headers["location"], Range="bytes=5-99") == (206, SMALL[5:100])
        assert asked(service) == ["url data"] * 2
        assert (await from_("192.0.2.3", there, path)).status == 307
        assert asked(service) == ["stat data", "read link"]
        assert (await from_("192.0.2.4", there, path)).status == 307
        assert asked(service) == []
    assert upstream.lines == [f"GET {path}"]


async def test_a_url_opens_its_blob_and_nothing_else(
    tmp_path: Path, service: RunningGcs, upstream: Scripted
) -> None:
    """Good for GET of this key for 20 minutes, at the host that it is signed for; not without its signature."""
    paths = [upstream.publish_blob(data) for data in (SMALL, SMALL[::-1])]
    async with replica(tmp_path, service, upstream, redirects=True) as application:
        for path in paths:
            await pull(application, path)
        await settled(application)
        url = (await pull(application, paths[0])).headers["location"]
    assert parse_qs(urlsplit(url).query)["X-Goog-Expires"] == ["1200"]
    ours, other = (blob_key(Digest.of(data)) for data in (SMALL, SMALL[::-1]))
    assert ours in url
    elsewhere = url.replace("127.0.0.1", "localhost")
    for wrong in (url.replace(ours, other), url.split("?")[0], url.replace("=1200", "=9999"), elsewhere):
        assert (await by_url(wrong))[0] == 403
    assert (await by_url(url, "HEAD"))[0] == (await by_url(url, "DELETE"))[0] == 403
    assert await by_url(url) == (200, SMALL)


async def test_clients_are_sent_to_the_endpoint_of_their_network(
    tmp_path: Path, service: RunningGcs, upstream: Scripted
) -> None:
    """Signed for the name under which they reach the service, which is not ours."""
    clients = [{"networks": ["192.0.2.0/24"], "endpoint": f"http://localhost:{service.port}"}]
    path = upstream.publish_blob(SMALL)
    more = {"REGISTRY_CACHE_REDIRECT_CLIENTS": json.dumps(clients)}
    async with replica(tmp_path, service, upstream, redirects=True, more=more) as application:
        await pull(application, path)
        await settled(application)
        url = (await from_("192.0.2.9", application, path)).headers["location"]
        assert urlsplit(url).netloc == f"localhost:{service.port}"
        assert await by_url(url) == (200, SMALL)


async def test_without_a_signature_hits_are_streamed(
    tmp_path: Path, service: RunningGcs, upstream: Scripted
) -> None:
    """An emulator without credentials, like an account that may not sign: redirects are on, and nobody is sent."""
    storage = {"gcs": {"bucket": BUCKET, "endpoint": service.front.behind}}
    path = upstream.publish_blob(SMALL)
    more = {"REGISTRY_STORAGE": json.dumps(storage)}
    async with replica(tmp_path, service, upstream, redirects=True, more=more) as application:
        await pull(application, path)
        await settled(application)
        got = await pull(application, path)
        assert (got.status, got.headers["x-cache"], got.body) == (200, "hit", SMALL)


@pytest.mark.parametrize("toxin", ["reset_peer", "limit_data", "latency", "bandwidth"])
async def test_hits_over_a_bad_network(
    tmp_path: Path, service: RunningGcs, upstream: Scripted, network: Toxic, toxin: str
) -> None:
    """Whatever the network does while a hit is served: the right bytes, from the store or from the upstream."""
    path = upstream.publish_blob(LARGE)
    async with replica(tmp_path / "a", service, upstream, port=network.port) as here:
        await pull(here, path)
        await settled(here)
        assert await stored(service, LARGE)
        await network.add(toxin, TOXINS[toxin])
        got = await pull(here, path)
        assert (got.status, got.whole) == (200, True)
        assert got.body == LARGE
        await network.remove(toxin)
        await settled(here)
        await back(here, path)


@pytest.mark.parametrize("toxin", ["reset_peer", "latency", "bandwidth", "down"])
async def test_fills_over_a_bad_network(
    tmp_path: Path, service: RunningGcs, upstream: Scripted, network: Toxic, toxin: str
) -> None:
    """Whatever it does while a blob is stored: the client has every byte, the store all of it or nothing."""
    path, hold = upstream.publish_blob(LARGE), Hold(11_000_000)
    upstream.script(path, Turn(hold=hold))
    async with replica(tmp_path / "a", service, upstream, port=network.port) as here:
        async with pulling(here, path) as answer:
            await asyncio.wait_for(hold.reached.wait(), 20)
            if toxin == "down":
                await network.enable(up=False)
            else:
                await network.add(toxin, TOXINS[toxin], upstream=True)
            hold.go.set()
            assert await answer.rest() == LARGE
        await settled(here)
        assert await stored(service, LARGE) is (toxin not in ("down", "reset_peer"))
        if toxin == "down":
            await network.enable(up=True)
        else:
            await network.remove(toxin)
        assert (await pull(here, path)).body == LARGE
        await back(here, path)


async def test_a_denial_is_one_sentence_and_heals(
    tmp_path: Path, service: RunningGcs, upstream: Scripted
) -> None:
    """The account may not create, then may: pulls go on, readiness names the permission, nothing is restarted."""
    path = upstream.publish_blob(SMALL)
    message = "cache@project does not have storage.objects.create access to the Google Cloud Storage object."
    async with replica(tmp_path, service, upstream) as application:
        service.front.turn = lambda line: (
            refusal(403, "forbidden", message) if line.startswith("write") else None
        )
        for _ in range(3):
            assert (await pull(application, path)).body == SMALL
            await settled(application)
        assert "allow storage.objects.create" in application.degraded()["store"]
        service.front.turn = lambda line: None
        await back(application, path)


async def back(application: Application, path: str) -> None:
    """Returns when the blob is a hit, and all is well."""

    async def well() -> bool:
        got = await pull(application, path)
        await settled(application)
        return got.headers["x-cache"] == "hit" and application.degraded() == {}

    await until(well, what="a store that is back")
