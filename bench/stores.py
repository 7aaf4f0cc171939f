"""The figures of remote stores: real services on this machine, whose CPU is not counted, and the cache before them.

Beside the cache stands distribution 3.1 over the same bucket, as a registry: what the cache stored, it serves.
"""

import asyncio
import re
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError

from bench.content import MIB, Blob
from bench.figures import GB, Bench, Row, interleaved, said, stop
from bench.servers import Running, Storage
from tests.stage.azureservice import azurite
from tests.stage.gcsservices import fakegcs
from tests.stage.s3services import versitygw
from tests.stage.swiftservices import swift

T = TypeVar("T")
BUCKET = "bench"
STREAMED: Storage = {"redirect": {"disable": True}}


@contextmanager
def _running(service: Callable[[Path], AbstractAsyncContextManager[T]], folder: Path) -> Iterator[T]:
    """The service while the context is open, on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    manager = service(folder)
    try:
        yield asyncio.run_coroutine_threadsafe(manager.__aenter__(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(manager.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def _amazon(folder: Path) -> AsyncIterator[Storage]:
    async with versitygw(folder) as service:
        service.make_bucket(BUCKET)
        yield {"s3": service.settings(BUCKET, forcepathstyle=True)}  # distribution 3 wants to be told


@asynccontextmanager
async def _azure(folder: Path) -> AsyncIterator[Storage]:
    async with azurite(folder) as service:
        yield {"azure": service.settings(service.make_container(BUCKET))}


@asynccontextmanager
async def _google(folder: Path) -> AsyncIterator[Storage]:
    async with fakegcs(folder) as service:
        await service.make_bucket(BUCKET)
        yield {"gcs": service.settings(BUCKET)}


@asynccontextmanager
async def _openstack(folder: Path) -> AsyncIterator[Storage]:
    async with swift(folder) as service:
        yield {"swift": service.settings(await service.make_container(BUCKET))}


def s3(bench: Bench) -> Iterator[Row]:
    """Redirects, streams, fills and the hot tier on versitygw."""
    with _running(_amazon, bench.yard.folder / "s3") as storage:
        yield from _redirected(bench, storage)
        yield from _streamed_beside(bench, storage)
        yield from _cold(bench, storage)
        yield from _eight(bench, storage)
        yield from _tier(bench, storage)


def _peer(bench: Bench, storage: Storage, blob: Blob) -> Running:
    """distribution over the bucket, once it has found there what the cache is storing."""
    peer = bench.yard.registry("registry", storage)
    deadline = time.monotonic() + 30
    while True:
        try:
            peer.ask(blob.path)
            return peer
        except HTTPError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"distribution: {error}: {error.read()[:300]!r}") from None
            time.sleep(0.2)


def _redirected(bench: Bench, storage: Storage) -> Iterator[Row]:
    blob = bench.shelf.blob(MIB)
    cache = bench.yard.cache(storage, bench.upstream)
    bench.load(cache, blob)
    peer = _peer(bench, storage, blob)

    def sample(server: Running) -> float:
        before = server.cpu()
        url = f"http://127.0.0.1:{server.port}{blob.path}"
        argv = ["wrk", "-t1", "-c16", f"-d{bench.size.small}", url]
        told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in told:
            raise SystemExit(f"{server.name}: {told}")
        return float(re.findall(r"(\d+) requests in", told)[0]) / (server.cpu() - before)

    found = interleaved(bench.size.pairs, {s.name: partial(sample, s) for s in (cache, peer)})
    stop(cache, peer)
    ratio = found["msrcache"] / found["registry"]
    yield Row(
        "S3: redirected hits per CPU second",
        ">= 2x distribution 3.1",
        said(found, "/s"),
        ratio,
        2,
        least=True,
    )


def _streamed(bench: Bench, server: Running, blob: Blob) -> float:
    before = server.cpu()
    times = max(1, bench.size.times // 5)
    bench.load(server, blob, times=times)
    return (server.cpu() - before) / (blob.size * times / GB)


def _streamed_beside(bench: Bench, storage: Storage) -> Iterator[Row]:
    blob = bench.shelf.blob(bench.size.hit)
    cache = bench.yard.cache({**storage, **STREAMED}, bench.upstream)
    bench.load(cache, blob)
    peer = _peer(bench, {**storage, **STREAMED}, blob)
    found = interleaved(bench.size.pairs, {s.name: partial(_streamed, bench, s, blob) for s in (cache, peer)})
    stop(cache, peer)
    ratio = found["msrcache"] / found["registry"]
    yield Row("S3: streamed hit, CPU per GB", "<= 1.0x distribution 3.1", said(found, "s/GB"), ratio, 1.0)


def _cold(bench: Bench, storage: Storage) -> Iterator[Row]:
    remote = bench.yard.cache(storage, bench.upstream)
    local = bench.cache("cold-beside-s3")

    def sample(server: Running) -> float:
        seconds: float = bench.load(server, bench.shelf.blob(1024 * MIB))["seconds"]
        return seconds

    found = interleaved(bench.size.pairs, {"S3": partial(sample, remote), "files": partial(sample, local)})
    stop(remote, local)
    ratio = found["S3"] / found["files"]
    yield Row("S3: a cold 1 GiB, time to the last byte", "<= 1.05x files", said(found, "s"), ratio, 1.05)


def _eight(bench: Bench, storage: Storage) -> Iterator[Row]:
    cache = bench.yard.cache(storage, bench.upstream)
    blobs = [bench.shelf.blob(min(1024 * MIB, bench.size.huge // 4)) for _ in range(8)]
    bench.load(cache, blobs[0], path=" ".join(b.path for b in blobs), clients=8)
    peak = cache.peak()
    stop(cache)
    size = blobs[0].size // MIB
    yield Row(f"S3: peak memory, eight fills of {size} MiB", "<= 200 MiB", f"{peak:.0f} MiB", peak, 200)


def _tier(bench: Bench, storage: Storage) -> Iterator[Row]:
    blob = bench.shelf.blob(bench.size.hit)
    tier = bench.yard.cache({**storage, **STREAMED}, bench.upstream, local=bench.yard.folder / "tier")
    files = bench.cache("beside-the-tier")
    sides = {"hot tier": tier, "files": files}
    for server in sides.values():
        for _ in range(3):
            bench.load(server, blob)

    def sample(server: Running) -> float:
        before = server.cpu()
        bench.load(server, blob, times=bench.size.times)
        return (server.cpu() - before) / (blob.size * bench.size.times / GB)

    found = interleaved(bench.size.pairs, {name: partial(sample, s) for name, s in sides.items()})
    stop(tier, files)
    ratio = found["hot tier"] / found["files"]
    yield Row("hit in the hot tier, CPU per GB", "= files", said(found, "s/GB"), ratio, 1.1)


def others(bench: Bench) -> Iterator[Row]:
    """Streamed hits of each other store beside S3's."""
    services = {"s3": _amazon, "azure": _azure, "gcs": _google, "swift": _openstack}
    with ExitStack() as stack:
        sections = {
            name: stack.enter_context(_running(service, bench.yard.folder / f"service-{name}"))
            for name, service in services.items()
        }
        found = _each(bench, sections)
    for name, value in found.items():
        if name != "s3":
            told = said({name: value, "s3": found["s3"]}, "s/GB")
            yield Row(f"{name}: streamed hit, CPU per GB", "<= 1.5x S3", told, value / found["s3"], 1.5)


def _each(bench: Bench, sections: Mapping[str, Storage]) -> dict[str, float]:
    blob = bench.shelf.blob(bench.size.hit)
    caches = {
        name: bench.yard.cache({**section, **STREAMED}, bench.upstream) for name, section in sections.items()
    }
    for cache in caches.values():
        bench.load(cache, blob)
    found = interleaved(
        bench.size.pairs, {name: partial(_streamed, bench, cache, blob) for name, cache in caches.items()}
    )
    stop(*caches.values())
    return found


STORES: Mapping[str, Callable[[Bench], Iterator[Row]]] = {"s3": s3, "others": others}
