"""The figures: each runs its servers, interleaves its pairs, and returns rows with the median of each side."""

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.content import MIB, Blob, Shelf
from bench.servers import Running, Yard

GB = 1e9


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    pairs: int
    hit: int  # bytes of the blob of the hit figures
    times: int  # how often it is pulled for one sample
    herd: int
    huge: int
    slow: float  # seconds of slow reading
    small: int  # seconds of small answers


QUICK = Size(pairs=2, hit=100 * MIB, times=10, herd=2, huge=1024 * MIB, slow=5, small=2)
FULL = Size(pairs=5, hit=100 * MIB, times=30, herd=3, huge=10240 * MIB, slow=20, small=4)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `value` is compared with `limit`; at least it where `least`."""

    figure: str
    target: str
    measured: str
    value: float
    limit: float
    least: bool = False
    aside: bool = False
    """Whether it only stands beside a figure that has a target."""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.limit if self.least else self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Bench:
    """What all figures need."""

    yard: Yard
    shelf: Shelf
    size: Size
    upstream: Running  # the cheapest there is, and it counts
    origin: Running  # a real registry, by https

    def load(self, server: Running, blob: Blob, **told: object) -> dict[str, Any]:
        """Run one load in a process of its own; a failed answer ends the run."""
        plain = {
            "port": server.port,
            "path": blob.path,
            "size": blob.size,
            "clients": 1,
            "times": 1,
            "tls": False,
        }
        argument = json.dumps(plain | told)
        done = subprocess.run(
            [sys.executable, "-m", "bench.client", argument], check=False, capture_output=True, text=True
        )
        found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"errors": [done.stderr]}
        if found["errors"]:
            raise SystemExit(f"{server.name}: {found['errors'][:3]}")
        return found

    def cache(
        self, name: str, *, tls: bool = False, quiet: bool = False, of: Running | None = None
    ) -> Running:
        """A cache with an empty store of that name, of the cheap upstream where none is given."""
        return self.yard.cache(self.yard.folder / name, of or self.upstream, tls=tls, quiet=quiet)

    def proxy(self, name: str, *, of: Running) -> Running:
        """distribution as a pull-through cache with an empty store of that name."""
        return self.yard.registry("registry", self.yard.folder / name, proxy=of.url)

    def origins(self) -> Sequence[tuple[str, Running]]:
        """What is pulled from when it is cold: first what an MSR is like, then the cheapest, for its own sake."""
        return (("", self.origin), (" (upstream: bare sendfile)", self.upstream))


def hits(bench: Bench, *, tls: bool) -> Iterator[Row]:
    """CPU seconds per GB of a blob that is there."""
    size = bench.size
    blob = bench.shelf.blob(size.hit)
    cache = bench.cache(f"hit-{tls}", tls=tls)
    nginx = bench.yard.nginx(bench.shelf.folder)
    names = ("registry",) if tls else ("registry", "docker-registry")
    peers = [bench.yard.registry(name, bench.shelf.folder, tls=tls) for name in names]
    servers = [cache, nginx, *peers]

    def sample(server: Running) -> float:
        before = server.cpu()
        port = server.tls if tls else server.port
        bench.load(server, blob, port=port, times=size.times, tls=tls)
        return (server.cpu() - before) / (blob.size * size.times / GB)

    for server in servers:  # warm: the cache's store, page cache, keep-alive
        bench.load(server, blob, port=server.tls if tls else server.port, tls=tls)
    found = interleaved(size.pairs, {s.name: partial(sample, s) for s in servers})
    stop(*servers)
    ours, told = found["msrcache"], said(found, "s/GB")
    if tls:
        best = min(found["nginx"], found["registry"])
        yield Row(
            "TLS hit, CPU per GB", "<= 1.0x the better of nginx and distribution", told, ours / best, 1.0
        )
        return
    yield Row("hit, CPU per GB, to nginx", "<= 1.0x nginx", told, ours / found["nginx"], 1.0)
    yield Row(
        "hit, CPU per GB, to distribution", "<= 0.40x distribution 3.1", told, ours / found["registry"], 0.40
    )


def cold(bench: Bench) -> Iterator[Row]:
    """One client after another, each of a blob that is not there; CPU of the cache against distribution as proxy."""
    for label, upstream in bench.origins():
        cache = bench.cache(f"cold-cache{upstream.tls}", of=upstream)
        proxy = bench.proxy(f"cold-proxy{upstream.tls}", of=upstream)
        sides = {s.name: partial(_cold, bench, s) for s in (cache, proxy)}
        for side in sides.values():
            side()  # connections, tokens, code: not the first pull of a process
        found = interleaved(bench.size.pairs, sides)
        stop(cache, proxy)
        ratio = found["msrcache"] / found["registry"]
        figure = f"one cold client, CPU per GB{label}"
        target = "<= 0.5x distribution 3.1 as proxy"
        yield Row(figure, target, said(found, "s/GB"), ratio, 0.5, aside=bool(label))


def _cold(bench: Bench, server: Running) -> float:
    blobs = [bench.shelf.blob(200 * MIB) for _ in range(2)]
    before = server.cpu()
    for blob in blobs:
        bench.load(server, blob)
    return (server.cpu() - before) / (sum(b.size for b in blobs) / GB)


def herd(bench: Bench) -> Iterator[Row]:
    """24 clients at once of one blob that is not there."""
    for label, upstream in bench.origins():
        cache = bench.cache(f"herd-cache{upstream.tls}", of=upstream)
        proxy = bench.proxy(f"herd-proxy{upstream.tls}", of=upstream)
        herds = {s.name: _Herd(bench, s, upstream) for s in (cache, proxy)}
        seconds = interleaved(bench.size.herd, {name: one.sample for name, one in herds.items()})
        stop(cache, proxy)
        yield from _herd_rows(herds, seconds, label)


@dataclass(frozen=True, slots=True)
class _Herd:
    """One side of it, and what its samples have cost."""

    bench: Bench
    server: Running
    upstream: Running
    sent: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def sample(self) -> float:
        blob = self.bench.shelf.blob(100_000_000)
        used, before = self.server.cpu(), self._sent()
        seconds: float = self.bench.load(self.server, blob, clients=24)["seconds"]
        self.sent.append((self._sent() - before) / blob.size)
        self.cpu.append(self.server.cpu() - used)
        return seconds

    def _sent(self) -> int:
        return self.upstream.logged() if self.upstream.tls else int(self.upstream.counts()["sent"])


def _herd_rows(herds: Mapping[str, _Herd], seconds: Mapping[str, float], label: str) -> Iterator[Row]:
    sent = {name: statistics.median(one.sent) for name, one in herds.items()}
    used = {name: statistics.median(one.cpu) for name, one in herds.items()}
    what, aside = f"24 cold clients of 100 MB{label}", bool(label)
    yield Row(f"{what}, upstream bytes", "1.00x", said(sent, "x"), sent["msrcache"], 1.004, aside=aside)
    for kind, target, found, unit, limit in (
        ("time", "<= 1/6 of distribution 3.1", seconds, "s", 1 / 6),
        ("CPU", "<= 1/5 of distribution 3.1", used, "s", 1 / 5),
    ):
        ratio = found["msrcache"] / found["registry"]
        yield Row(f"{what}, {kind}", target, said(found, unit), ratio, limit, aside=aside)


def first_byte(bench: Bench) -> Iterator[Row]:
    """How much later a cold blob's first byte comes than from the upstream itself."""
    cache = bench.cache("first")
    bench.load(cache, bench.shelf.blob(MIB))

    def sample(server: Running) -> float:
        blobs = [bench.shelf.blob(20 * MIB) for _ in range(5)]
        firsts: list[float] = [bench.load(server, blob)["first"][0] * 1000 for blob in blobs]
        return statistics.median(firsts)

    found = interleaved(bench.size.pairs, {s.name: partial(sample, s) for s in (bench.upstream, cache)})
    stop(cache)
    late = found["msrcache"] - found["upstream"]
    yield Row("first byte of a cold blob, ms later", "<= upstream + 10 ms", said(found, "ms"), late, 10)


def manifests(bench: Bench, *, quiet: bool) -> Iterator[Row]:
    """Manifest hits by digest per CPU second, over 16 kept connections (wrk)."""
    manifest = bench.shelf.manifest("small", bench.shelf.blob(1000))
    cache = bench.cache(f"manifests-{quiet}", quiet=quiet)
    peer = bench.yard.registry("registry", bench.shelf.folder, quiet=quiet)
    path = manifest.path.replace("/blobs/", "/manifests/")

    def sample(server: Running) -> float:
        server.ask(path)
        before = server.cpu()
        url = f"http://127.0.0.1:{server.port}{path}"
        accept = "Accept: application/vnd.oci.image.manifest.v1+json"
        argv = ["wrk", "-t1", "-c16", f"-d{bench.size.small}", "-H", accept, url]
        told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in told:
            raise SystemExit(f"{server.name}: {told}")
        return float(re.findall(r"(\d+) requests in", told)[0]) / (server.cpu() - before)

    found = interleaved(bench.size.pairs, {s.name: partial(sample, s) for s in (cache, peer)})
    stop(cache, peer)
    least = 2.5 if quiet else 1.7
    name = f"manifest hits per CPU second, {'without' if quiet else 'with'} access log"
    ratio = found["msrcache"] / found["registry"]
    yield Row(name, f">= {least}x distribution 3.1", said(found, "/s"), ratio, least, least=True)


def memory(bench: Bench) -> Iterator[Row]:
    """Peak memory under slow clients, and while a huge layer is filled."""
    blob = bench.shelf.blob(bench.size.hit)
    for tls, limit in ((False, 100), (True, 350)):
        cache = bench.cache(f"slow-{tls}", tls=tls)
        bench.load(cache, blob, tls=tls)
        bench.load(cache, blob, tls=tls, clients=1000, slow=bench.size.slow)
        peak = cache.peak()
        stop(cache)
        kind = "TLS" if tls else "plain"
        yield Row(
            f"peak memory, 1,000 slow {kind} clients", f"<= {limit} MiB", f"{peak:.0f} MiB", peak, limit
        )
    cache = bench.cache("huge")
    bench.load(cache, bench.shelf.blob(bench.size.huge))
    peak = cache.peak()
    stop(cache)
    size = bench.size.huge // (1024 * MIB)
    yield Row(f"peak memory, a cold layer of {size} GiB", "<= 100 MiB", f"{peak:.0f} MiB", peak, 100)


def warm_tag(bench: Bench) -> Iterator[Row]:
    """What a warm pull by tag asks of the upstream."""
    layers = [bench.shelf.blob(MIB) for _ in range(3)]
    manifest = bench.shelf.manifest("warm", *layers)
    cache = bench.cache("warm")
    tag = "/v2/bench/image/manifests/warm"

    def pull() -> None:
        cache.ask("/v2/")
        cache.ask(tag)
        cache.ask(manifest.path.replace("/blobs/", "/manifests/"))
        for layer in layers:
            cache.ask(layer.path)

    pull()
    before = bench.upstream.counts()["requests"]
    pull()
    after = bench.upstream.counts()["requests"]
    stop(cache)
    asked = {
        what: count - before.get(what, 0) for what, count in after.items() if count != before.get(what, 0)
    }
    told = ", ".join(f"{count} {what}" for what, count in asked.items())
    yield Row("warm pull of a tag, upstream requests", "one HEAD in all", told, sum(asked.values()), 1)


def lag(bench: Bench) -> Iterator[Row]:
    """The event loop's own lag while 16 blobs are filled at once, from its histogram."""
    cache = bench.cache("lag")
    before = _lags(cache)
    for _ in range(2 * bench.size.pairs):
        blobs = [bench.shelf.blob(100 * MIB) for _ in range(16)]
        bench.load(cache, blobs[0], path=" ".join(b.path for b in blobs), clients=16)
    found = {edge: count - before.get(edge, 0) for edge, count in _lags(cache).items()}
    stop(cache)
    total = max(found.values())
    edge = min(e for e, count in found.items() if count >= 0.99 * total) * 1000
    told = f"<= {edge:g} ms of {total:.0f} samples"
    yield Row("loop lag p99 while 16 cold fills run, ms", "< 20 ms", told, edge, 20)


def _lags(cache: Running) -> dict[float, float]:
    text = cache.ask("/metrics").decode()
    found = re.findall(r'msrcache_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', text)
    return {float(edge): float(count) for edge, count in found}


def interleaved(pairs: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Each side once in turn, so many times, every other round backwards; the medians."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(pairs):
        order = list(sides) if number % 2 == 0 else list(reversed(list(sides)))
        for name in order:
            found[name].append(sides[name]())
    return {name: statistics.median(values) for name, values in found.items()}


def said(found: Mapping[str, float], unit: str) -> str:
    """What was found, side by side."""
    names = {"msrcache": "cache", "registry": "distribution 3.1", "docker-registry": "docker-registry 2.8"}
    return ", ".join(
        f"{names.get(name, name)} {value:,.3g} {unit}"
        if value < 1000
        else f"{names.get(name, name)} {value:,.0f} {unit}"
        for name, value in found.items()
    )


def stop(*servers: Running) -> None:
    """End them all."""
    for server in servers:
        server.stop()


ONE_STORE: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    "hit": lambda bench: hits(bench, tls=False),
    "tls": lambda bench: hits(bench, tls=True),
    "cold": cold,
    "herd": herd,
    "first": first_byte,
    "quiet": lambda bench: manifests(bench, quiet=True),
    "logged": lambda bench: manifests(bench, quiet=False),
    "memory": memory,
    "warm": warm_tag,
    "lag": lag,
}
