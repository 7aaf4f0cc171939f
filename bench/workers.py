"""The figures of several workers: the same cache with 1, 2 and 4 of them, on the same cores."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from bench.figures import GB, Bench, Row, interleaved, stop
from bench.servers import Running

COUNTS = (1, 2, 4)
CONNECTIONS = 64
CLIENTS = 16


def workers(bench: Bench) -> Iterator[Row]:
    """Small hits per second, and CPU per GB of large ones, to one worker's."""
    manifest = bench.shelf.manifest("workers", bench.shelf.blob(1000))
    path = manifest.path.replace("/blobs/", "/manifests/")
    blob = bench.shelf.blob(bench.size.hit)
    caches = {count: _cache(bench, count) for count in COUNTS}

    def hits(cache: Running) -> float:
        return wrk(cache, path, seconds=bench.size.small)

    def cost(cache: Running) -> float:
        before = cache.cpu()
        bench.load(cache, blob, clients=CLIENTS, times=max(1, bench.size.times // 5))
        return (cache.cpu() - before) / (blob.size * CLIENTS * max(1, bench.size.times // 5) / GB)

    for cache in caches.values():
        for _ in range(4):  # each worker has its own to remember
            cache.ask(path)
            bench.load(cache, blob, clients=4)
    rates = interleaved(bench.size.pairs, {str(n): partial(hits, cache) for n, cache in caches.items()})
    costs = interleaved(bench.size.pairs, {str(n): partial(cost, cache) for n, cache in caches.items()})
    stop(*caches.values())
    told = _told(rates, "/s")
    for count in COUNTS[1:]:
        ratio = rates[str(count)] / rates["1"]
        yield Row(f"hits per second, {count} workers to 1", "more", told, ratio, 1.0, least=True, aside=True)
    told = _told(costs, "s/GB")
    for count in COUNTS[1:]:
        ratio = costs[str(count)] / costs["1"]
        yield Row(f"hit, CPU per GB, {count} workers to 1", "= 1 worker", told, ratio, 1.1, aside=True)


def _cache(bench: Bench, count: int) -> Running:
    cache = bench.yard.cache(
        bench.yard.folder / f"workers-{count}", bench.upstream, quiet=True, workers=count
    )
    deadline = time.monotonic() + 20
    while f"\nmsrcache_workers {count}.0\n" not in cache.ask("/metrics").decode():
        if time.monotonic() > deadline:
            raise SystemExit(f"{count} workers did not start: {cache.log.read_text()[-2000:]}")
    return cache


def wrk(server: Running, path: str, *, seconds: int) -> float:
    """Answers per second over many kept connections."""
    accept = "Accept: application/vnd.oci.image.manifest.v1+json"
    url = f"http://127.0.0.1:{server.port}{path}"
    # Of low priority: where cores are few, the load would else take what the workers are to have.
    argv = ["nice", "-n", "10", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "-H", accept, url]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told:
        raise SystemExit(f"{server.name}: {told}")
    return float(re.findall(r"Requests/sec: +([\d.]+)", told)[0])


def _told(found: Mapping[str, float], unit: str) -> str:
    return ", ".join(
        f"{count}: {value:,.0f} {unit}" if value > 1000 else f"{count}: {value:.3g} {unit}"
        for count, value in found.items()
    )


WORKERS: Mapping[str, Callable[[Bench], Iterator[Row]]] = {"workers": workers}
