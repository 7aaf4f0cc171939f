"""The figures of a fleet: three replicas on one folder, that follow each other's fills."""

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from bench.content import MIB, Blob
from bench.crowd import Seen
from bench.figures import GB, Bench, Row, interleaved, said, stop
from bench.servers import Running

LAYER = 100_000_000
TTL = 10.0
"""Seconds; cache.lease.ttl's default."""


def _replicas(bench: Bench, name: str, upstream: Running, count: int = 3) -> list[Running]:
    return [bench.yard.cache(bench.yard.folder / name, upstream, fleet=True) for _ in range(count)]


def _crowd(servers: Sequence[Running], blob: Blob, clients: int) -> "subprocess.Popen[str]":
    told = {"ports": [one.port for one in servers], "path": blob.path, "size": blob.size, "clients": clients}
    argv = [sys.executable, "-m", "bench.crowd", json.dumps(told)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def _seen(crowd: "subprocess.Popen[str]") -> list[Seen]:
    return [Seen(**one) for one in json.loads(crowd.communicate()[0])]


def _all_well(seen: Sequence[Seen]) -> Sequence[Seen]:
    if errors := [one.error for one in seen if one.error]:
        raise SystemExit(f"a fleet: {len(errors)} of {len(seen)} clients: {errors[:3]}")
    return seen


def _sent(upstream: Running) -> int:
    return int(upstream.counts()["sent"])


def cold(bench: Bench) -> Iterator[Row]:
    """48 cold clients on three replicas: how often the upstream is asked, and how long the last one waits."""
    replicas = _replicas(bench, "fleet-cold", bench.upstream)
    times, lates = [], []
    for _ in range(bench.size.pairs):
        blob, before = bench.shelf.blob(LAYER), _sent(bench.upstream)
        seen = _all_well(_seen(_crowd(replicas, blob, 48)))
        times.append((_sent(bench.upstream) - before) / LAYER)
        firsts = {
            server.port: min(one.first for one in seen if one.port == server.port) for server in replicas
        }
        lates.append((max(firsts.values()) - min(firsts.values())) * 1000)
    stop(*replicas)
    sent, late = max(times), statistics.median(lates)
    yield Row("48 cold clients on three replicas, upstream bytes", "1.00x", f"{sent:.4f}x", sent, 1.004)
    told = f"first bytes {late:.0f} ms apart"
    yield Row("first byte at a follower, ms later than at the holder", "<= 50 ms", told, late, 50)
    yield from _limited(bench)


def _limited(bench: Bench) -> Iterator[Row]:
    """The same from an upstream that gives 10 MB/s, beside one client of one replica."""
    slow = bench.yard.upstream(bench.shelf.folder, rate=10_000_000)
    alone, replicas = _replicas(bench, "fleet-alone", slow, 1), _replicas(bench, "fleet-limited", slow)

    def sample(servers: Sequence[Running], clients: int) -> float:
        seen = _all_well(_seen(_crowd(servers, bench.shelf.blob(LAYER), clients)))
        return max(one.end for one in seen)

    sides = {"48 on three": partial(sample, replicas, 48), "one on one": partial(sample, alone, 1)}
    found = interleaved(max(1, bench.size.pairs // 2), sides)
    stop(slow, *alone, *replicas)
    ratio = found["48 on three"] / found["one on one"]
    figure = "the last of 48 on three replicas, upstream of 10 MB/s"
    yield Row(figure, "<= 1.3x one client of one", said(found, "s"), ratio, 1.3)


def holder(bench: Bench) -> Iterator[Row]:
    """The replica that fills is killed, or stopped, at half of a layer, from an upstream of 50 MB/s."""
    for what, number, limit in (("killed", signal.SIGKILL, 2.0), ("stopped", signal.SIGSTOP, 1.25 * TTL + 1)):
        slow = bench.yard.upstream(bench.shelf.folder, rate=50_000_000)
        replicas = _replicas(bench, f"fleet-{what}", slow)
        blob = bench.shelf.blob(1024 * MIB)
        crowd = _crowd(replicas, blob, 9)
        gone = _at_half(slow, blob, replicas)
        gone.popen.send_signal(number)
        others = _others(crowd, gone, number)
        sent = _sent(slow) / blob.size
        if number == signal.SIGSTOP:
            gone.popen.kill()
        stop(slow, *replicas)
        well = sum(not one.error for one in others) / len(others)
        pause = max(one.pause for one in others)
        yield Row(
            f"holder {what} at half of 1 GiB: clients of others that end well",
            "all",
            f"{well:.0%}",
            well,
            1,
            least=True,
        )
        yield Row(f"holder {what}: upstream bytes", "<= 1.05x", f"{sent:.3f}x", sent, 1.05)
        yield Row(f"holder {what}: longest pause", f"<= {limit:g} s", f"{pause:.1f} s", pause, limit)


def _others(crowd: "subprocess.Popen[str]", gone: Running, number: int) -> list[Seen]:
    """What those saw that were at another replica; a stopped one is let go when they have ended."""
    if number == signal.SIGSTOP:
        time.sleep(1024 * MIB / 50_000_000 + 1.25 * TTL + 5)
        gone.popen.kill()
    return [one for one in _seen(crowd) if one.port != gone.port]


def _at_half(upstream: Running, blob: Blob, replicas: Sequence[Running]) -> Running:
    """Waits until half of it was sent; the replica that fetches."""
    while _sent(upstream) < blob.size / 2:
        time.sleep(0.05)
    for one in replicas:
        rows: list[dict[str, Any]] = json.loads(one.ask("/debug/fills", debug=True))
        if any(row["source"] == "upstream" for row in rows):
            return one
    raise SystemExit("no replica fetches")


def throughput(bench: Bench) -> Iterator[Row]:
    """Bytes of hits per CPU second of three replicas together and of one."""
    three, one = (
        _replicas(bench, "fleet-hits", bench.upstream),
        _replicas(bench, "one-hits", bench.upstream, 1),
    )
    blob = bench.shelf.blob(bench.size.hit)
    for server in (*three, *one):
        bench.load(server, blob)

    def sample(servers: Sequence[Running]) -> float:
        before = sum(server.cpu() for server in servers)
        for server in servers:
            bench.load(server, blob, times=bench.size.times)
        used = sum(server.cpu() for server in servers) - before
        return blob.size * bench.size.times * len(servers) / GB / used

    found = interleaved(bench.size.pairs, {"three": partial(sample, three), "one": partial(sample, one)})
    stop(*three, *one)
    ratio = found["three"] / found["one"]
    yield Row(
        "hits, bytes per CPU second through three replicas",
        "= one",
        said(found, "GB/s"),
        ratio,
        0.9,
        least=True,
    )


def idle(bench: Bench) -> Iterator[Row]:
    """What an idle replica of three holds and asks of its store."""
    replicas = _replicas(bench, "fleet-idle", bench.upstream)
    time.sleep(12)  # the start's proof of the store is over
    before = [_asked(one) for one in replicas]
    seconds = 20.0
    time.sleep(seconds)
    asked = max(_asked(one) - was for one, was in zip(replicas, before, strict=True)) / seconds
    peak = max(one.resident() for one in replicas)
    stop(*replicas)
    yield Row("idle replica of three, storage requests a second", "<= 1", f"{asked:.2f} /s", asked, 1)
    yield Row("idle replica on files, resident memory", "<= 60 MiB", f"{peak:.0f} MiB", peak, 60)


def _asked(server: Running) -> float:
    text = server.ask("/metrics").decode()
    lines = (line for line in text.splitlines() if line.startswith("msrcache_storage_calls_total"))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


FLEETS: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    "fleet": cold,
    "holder": holder,
    "three": throughput,
    "idle": idle,
}
