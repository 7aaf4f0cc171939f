"""The whole cache on a real Swift: two replicas on one container, what pulls cost, redirects, bad networks, tokens."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import blob_key
from msrcache.oci.digest import Digest
from tests.scenarios.plays import Got, cache, pull, pulling, settled
from tests.stage.images import noise
from tests.stage.process import until
from tests.stage.scripted import Hold, Scripted, Turn, scripted
from tests.stage.swiftservices import RunningSwift
from tests.stage.toxics import Toxic, toxic

PART = 4 << 20
SMALL = noise(100_000, 1)
LARGE = noise(9_000_000, 2)
"""Three segments."""
BLOBS, AT_ONCE = 100, 25
BREAKER = "  storage: {breaker: {failures: 3, open: 50ms}}\n"

TOXINS = {
    "reset_peer": {"timeout": 0},
    "limit_data": {"bytes": 5_000_000},
    "latency": {"latency": 50},
    "bandwidth": {"rate": 20_000},
}

pytestmark = pytest.mark.real


@pytest.fixture
async def container(swift_service: RunningSwift) -> str:
    """An empty one, with a key for signed URLs."""
    return await swift_service.make_container(**{"X-Container-Meta-Temp-URL-Key": "signs"})


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    """A registry with a ledger."""
    async with scripted() as server:
        yield server


@pytest.fixture
async def network(swift_service: RunningSwift, tmp_path: Path) -> AsyncIterator[Toxic]:
    """What lies between a replica and the service."""
    async with toxic(tmp_path / "toxics", swift_service.port) as proxy:
        yield proxy


@asynccontextmanager
async def replica(
    folder: Path,
    upstream: Scripted,
    settings: dict[str, object],
    *,
    redirects: bool = False,
) -> AsyncIterator[Application]:
    """A cache on the container that the settings name, whose clients it believes."""
    storage = {"swift": {**settings, "chunksize": PART}, "redirect": {"disable": not redirects}}
    environ = {
        "REGISTRY_STORAGE": json.dumps(storage),
        "REGISTRY_CACHE_SPOOL_PATH": str(folder / "spool"),
        "REGISTRY_CACHE_TRUSTED": "[127.0.0.1]",
    }
    async with cache(folder, upstream, more=BREAKER, environ=environ) as application:
        yield application


def asked(service: RunningSwift) -> list[str]:
    """What the service was asked about blobs and links since the last look: method and the key's last word."""
    found = []
    for line in service.requests():
        method, _, path = line.partition(" ")
        if "/segments/" in path:
            found.append(f"{method} segment")
        elif "/docker/" in path:
            found.append(f"{method} {path.rpartition('/')[2]}")
    return found


async def stored(service: RunningSwift, container: str, data: bytes) -> bool:
    """Whether the container has the blob whole."""
    status, _, body = await service.ask("GET", f"/{container}/files/{blob_key(Digest.of(data))}")
    return status == 200 and body == data


@pytest.mark.timeout(900)
@pytest.mark.parametrize("blobs", [BLOBS, pytest.param(1000, marks=pytest.mark.slow)])
async def test_what_one_has_filled_the_other_serves_at_once(
    tmp_path: Path, swift_service: RunningSwift, container: str, upstream: Scripted, blobs: int
) -> None:
    """Blobs, each pulled through one replica and, as soon as that has stored it, through the other: every one a hit,
    and the upstream sent each once; a thousand with the slow tests.
    """
    settings = swift_service.settings(container)
    async with (
        replica(tmp_path / "a", upstream, settings) as here,
        replica(tmp_path / "b", upstream, settings) as there,
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


async def test_what_a_pull_costs_the_store(
    tmp_path: Path, swift_service: RunningSwift, container: str, upstream: Scripted
) -> None:
    """Exactly: a fill of one part four requests, one of them to check it; a hit one; a link that is not believed yet
    one more.
    """
    path, settings = upstream.publish_blob(SMALL), swift_service.settings(container)
    async with (
        replica(tmp_path / "a", upstream, settings) as here,
        replica(tmp_path / "b", upstream, settings) as there,
    ):
        asked(swift_service)
        await pull(here, path)
        await settled(here)
        assert asked(swift_service) == ["GET data", "PUT data", "HEAD data", "PUT link"]
        await pull(here, path)
        assert asked(swift_service) == ["GET data"]
        await pull(there, path)
        assert asked(swift_service) == ["GET data", "GET link"]
        await pull(there, path)
        assert asked(swift_service) == ["GET data"]
        await pull(there, path, method="HEAD")
        assert asked(swift_service) == ["HEAD data"]


async def test_a_large_fill_costs_its_segments(
    tmp_path: Path, swift_service: RunningSwift, container: str, upstream: Scripted
) -> None:
    """Each segment and the manifest; and the same look before, check and link after."""
    path = upstream.publish_blob(LARGE)
    async with replica(tmp_path, upstream, swift_service.settings(container)) as here:
        asked(swift_service)
        assert (await pull(here, path)).body == LARGE
        await settled(here)
        manifest = "PUT data?multipart-manifest=put"
        assert asked(swift_service) == [
            "GET data", *["PUT segment"] * 3, manifest, "HEAD data", "PUT link",
        ]  # fmt: skip
        got = await pull(here, path)
        assert (got.headers["x-cache"], got.body) == ("hit", LARGE)
        assert asked(swift_service) == ["GET data"]
    assert await stored(swift_service, container, LARGE)


async def by_url(url: str, **headers: str) -> tuple[int, bytes]:
    """What the service says to whoever has the URL."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.read()


async def from_(address: str, application: Application, path: str) -> Got:
    """A pull by a client of this address."""
    return await pull(application, path, X_Forwarded_For=address)


async def test_what_a_redirected_hit_costs_the_store(
    tmp_path: Path, swift_service: RunningSwift, container: str, upstream: Scripted
) -> None:
    """Warm: nothing. Cold belief: one stat, and the link where that is unknown too. The bytes are the client's own."""
    path, settings = upstream.publish_blob(LARGE), swift_service.settings(container)
    async with (
        replica(tmp_path / "a", upstream, settings, redirects=True) as here,
        replica(tmp_path / "b", upstream, settings, redirects=True) as there,
    ):
        await pull(here, path)
        await settled(here)
        asked(swift_service)
        first, hit = [await from_(address, here, path) for address in ("192.0.2.1", "192.0.2.2")]
        assert (first.status, hit.status, hit.body, hit.headers["x-cache"]) == (307, 307, b"", "hit")
        assert asked(swift_service) == []
        assert await by_url(hit.headers["location"]) == (200, LARGE)
        span = slice(PART - 5, PART + 5)
        wanted = f"bytes={span.start}-{span.stop - 1}"
        assert await by_url(hit.headers["location"], Range=wanted) == (206, LARGE[span])
        asked(swift_service)
        assert (await from_("192.0.2.3", there, path)).status == 307
        assert asked(swift_service) == ["HEAD data", "GET link"]
        assert (await from_("192.0.2.4", there, path)).status == 307
        assert asked(swift_service) == []
    assert upstream.lines == [f"GET {path}"]


@pytest.mark.parametrize("toxin", ["reset_peer", "limit_data", "latency", "bandwidth"])
async def test_hits_over_a_bad_network(
    tmp_path: Path,
    swift_service: RunningSwift,
    container: str,
    upstream: Scripted,
    network: Toxic,
    toxin: str,
) -> None:
    """Whatever the network does while a hit is served: the right bytes, from the store or from the upstream."""
    path = upstream.publish_blob(LARGE)
    async with replica(tmp_path, upstream, swift_service.settings(container, port=network.port)) as here:
        await pull(here, path)
        await settled(here)
        assert await stored(swift_service, container, LARGE)
        await network.add(toxin, TOXINS[toxin])
        got = await pull(here, path)
        assert (got.status, got.whole) == (200, True)
        assert got.body == LARGE
        await network.remove(toxin)
        await settled(here)
        await back(here, path)


@pytest.mark.parametrize("toxin", ["reset_peer", "latency", "bandwidth", "down"])
async def test_fills_over_a_bad_network(
    tmp_path: Path,
    swift_service: RunningSwift,
    container: str,
    upstream: Scripted,
    network: Toxic,
    toxin: str,
) -> None:
    """Whatever it does while a blob is stored: the client has every byte, the store all of it or nothing."""
    path, hold = upstream.publish_blob(LARGE), Hold(8_500_000)
    upstream.script(path, Turn(hold=hold))
    async with replica(tmp_path, upstream, swift_service.settings(container, port=network.port)) as here:
        async with pulling(here, path) as answer:
            await asyncio.wait_for(hold.reached.wait(), 20)
            if toxin == "down":
                await network.enable(up=False)
            else:
                await network.add(toxin, TOXINS[toxin], upstream=True)
            hold.go.set()
            assert await answer.rest() == LARGE
        await settled(here)
        assert await stored(swift_service, container, LARGE) is (toxin not in ("down", "reset_peer"))
        if toxin == "down":
            await network.enable(up=True)
        else:
            await network.remove(toxin)
        assert (await pull(here, path)).body == LARGE
        await back(here, path)


async def test_tokens_that_are_forgotten_are_nobodys_trouble(
    tmp_path: Path, swift_service: RunningSwift, container: str, upstream: Scripted
) -> None:
    """Whatever kept them was restarted: the next hit, and the next fill, go on as if nothing had been."""
    hit, fill = upstream.publish_blob(SMALL), upstream.publish_blob(LARGE)
    async with replica(tmp_path, upstream, swift_service.settings(container)) as here:
        await pull(here, hit)
        await settled(here)
        swift_service.forget_tokens()
        got = await pull(here, hit)
        assert (got.headers["x-cache"], got.body) == ("hit", SMALL)
        swift_service.forget_tokens()
        assert (await pull(here, fill)).body == LARGE
        await settled(here)
        assert await stored(swift_service, container, LARGE)
        assert here.degraded() == {}


async def test_a_full_container_is_one_sentence_and_heals(
    tmp_path: Path, swift_service: RunningSwift, container: str, upstream: Scripted
) -> None:
    """Pulls go on, readiness says why nothing is stored; with room again blobs are, and nobody restarts anything."""
    path, quota = upstream.publish_blob(SMALL), "X-Container-Meta-Quota-Bytes"
    async with replica(tmp_path, upstream, swift_service.settings(container)) as here:
        await swift_service.ask("POST", f"/{container}", headers={quota: "1000"})
        for _ in range(3):
            assert (await pull(here, path)).body == SMALL
            await settled(here)
        assert "quota" in here.degraded()["store"]
        await swift_service.ask("POST", f"/{container}", headers={quota: ""})
        await back(here, path)


async def test_a_container_that_is_deleted_is_made_again(
    tmp_path: Path, swift_service: RunningSwift, container: str, upstream: Scripted
) -> None:
    """Somebody emptied and removed it: pulls go on, what is pulled is stored again, and nobody restarts anything."""
    path = upstream.publish_blob(SMALL)
    async with replica(tmp_path, upstream, swift_service.settings(container)) as here:
        await pull(here, path)
        await settled(here)

        async def removed() -> bool:  # the container may hear of what was stored and deleted a moment later
            for name in await swift_service.names(container):
                await swift_service.ask("DELETE", f"/{container}/{name}")
            return (await swift_service.ask("DELETE", f"/{container}"))[0] == 204

        await until(removed, what="the container to be empty, and gone")
        got = await pull(here, path)
        assert (got.headers["x-cache"], got.body) == ("miss", SMALL)
        await back(here, path)
    assert await stored(swift_service, container, SMALL)


@pytest.mark.parametrize("moment", ["hit", "fill"])
async def test_a_service_that_stops_and_starts_fails_no_pull(
    tmp_path: Path,
    swift_service: RunningSwift,
    container: str,
    upstream: Scripted,
    network: Toxic,
    moment: str,
) -> None:
    """Gone in the middle of a body, refused for a while, and back: every pull meanwhile has the right bytes."""
    path, hold = upstream.publish_blob(LARGE), Hold(5_000_000)
    async with replica(tmp_path, upstream, swift_service.settings(container, port=network.port)) as here:
        if moment == "hit":
            await pull(here, path)
            await settled(here)
            await network.add("bandwidth", {"rate": 8000})
        else:
            upstream.script(path, Turn(hold=hold))
        async with pulling(here, path) as answer:
            if moment == "fill":
                await asyncio.wait_for(hold.reached.wait(), 20)
            await network.enable(up=False)
            hold.go.set()
            if moment == "hit":
                await network.enable(up=True)
            assert await answer.rest() == LARGE
        await network.enable(up=False)
        for _ in range(3):
            assert (await pull(here, path)).body == LARGE
        if moment == "hit":
            await network.remove("bandwidth")
        await network.enable(up=True)
        await back(here, path)


async def back(application: Application, path: str) -> None:
    """Returns when the blob is a hit, and all is well."""

    async def well() -> bool:
        got = await pull(application, path)
        await settled(application)
        return got.headers["x-cache"] == "hit" and application.degraded() == {}

    await until(well, what="a store that is back")
