"""Several workers behind one address: one that dies costs its own connections, all else is as with one process."""

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.scenarios.plays import Pull, opened, pull, stored
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.images import noise
from tests.stage.process import free_port, start, until
from tests.stage.scripted import Hold, Scripted, Turn, scripted
from tests.test_serve import PROGRAM, refused, says

DATA = noise(3_000_000, 16)
K = 2_000_000


@asynccontextmanager
async def crew(
    folder: Path, upstream: Scripted, *, workers: int = 2, **settings: object
) -> AsyncIterator[RunningCache]:
    """A cache with so many workers, all of which serve."""
    own: Mapping[str, object] = {"workers": workers, "access": {"mode": "open"}, **settings}
    sections = {"log": {"accesslog": {"disabled": True}}}
    upstreams = {"url": upstream.url}
    async with cache(folder, upstreams, data=folder / "store", settings=own, sections=sections) as running:
        await complete(running, workers)
        yield running


async def complete(running: RunningCache, workers: int = 2) -> None:
    """Returns when so many workers serve."""

    async def there() -> bool:
        return await counted(running, "msrcache_workers") == workers

    await until(there, what=f"{workers} workers to serve")


async def counted(running: RunningCache, series: str) -> float:
    """The value of a series in what /metrics answers; 0 where it is absent."""
    return value((await pull(running.port, "/metrics")).body.decode(), series)


async def reached(running: RunningCache, series: str, least: float) -> None:
    """Returns when the series has come to this value: a worker that is late counts with what it said last."""

    async def there() -> bool:
        return await counted(running, series) >= least

    await until(there, what=f"{series} to reach {least:g}")


def value(told: str, series: str) -> float:
    """The same of a text."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", told, re.MULTILINE)
    return float(found[1]) if found else 0.0


@asynccontextmanager
async def pulling_at(running: RunningCache, worker: int, path: str) -> AsyncIterator[Pull]:
    """An open pull that this worker serves: the kernel chooses by the client's port, so others are tried and left."""
    for _ in range(200):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        client = writer.get_extra_info("sockname")[1]

        async def accepted(client: int = client) -> bool:
            return running.worker_of(client) is not None

        await until(accepted, what="a worker to accept a connection")
        if running.worker_of(client) == worker:
            async with opened(reader, writer, path) as answer:
                yield answer
            return
        writer.close()
    raise AssertionError(f"200 connections, and none came to worker {worker}")


def held(upstream: Scripted, seed: int) -> tuple[str, Hold, bytes]:
    """A blob whose upstream stops at byte K until it is let go."""
    data = noise(3_000_000, seed)
    path, hold = upstream.publish_blob(data), Hold(K)
    upstream.script(path, Turn(hold=hold))
    return path, hold, data


async def test_kill_nine_of_a_worker(tmp_path: Path) -> None:
    """Its own pull breaks, the other worker's does not notice; nobody is refused meanwhile, and it is back."""
    async with scripted() as upstream, crew(tmp_path, upstream) as running:
        warm = upstream.publish_blob(DATA)
        assert (await pull(running.port, warm)).body == DATA
        doomed, survivor = running.workers
        one, two = held(upstream, 17), held(upstream, 18)
        async with (
            pulling_at(running, doomed, one[0]) as cut,
            pulling_at(running, survivor, two[0]) as whole,
        ):
            assert await cut.take(K) == one[2][:K]
            assert await whole.take(K) == two[2][:K]
            os.kill(doomed, signal.SIGKILL)
            assert await cut.rest() == b""
            # Until its sockets are gone the kernel still sends connections to it, which are reset.
            await says(running.process, "worker ended, it is started anew")
            assert all([(await pull(running.port, warm)).body == DATA for _ in range(20)])
            two[1].go.set()
            assert await whole.rest() == two[2][K:]
        await complete(running)
        assert survivor in running.workers
        assert doomed not in running.workers
        assert await counted(running, "msrcache_worker_restarts_total") == 1
        assert "SIGKILL" in running.process.said()
        assert (await pull(running.port, one[0])).body == one[2]


@pytest.mark.parametrize("asked", ["alone", "group", "interrupt"])
async def test_a_drain_is_of_all_and_lets_bodies_end(tmp_path: Path, asked: str) -> None:
    """SIGTERM to the supervisor, to the whole group, or Ctrl-C: bodies of both workers end well, then all, with 0."""
    async with scripted() as upstream, crew(tmp_path, upstream) as running, AsyncExitStack() as stack:
        blobs = [held(upstream, 20 + number) for number in range(2)]
        clients = []
        for worker, (path, _, data) in zip(running.workers, blobs, strict=True):
            client = await stack.enter_async_context(pulling_at(running, worker, path))
            assert await client.take(K) == data[:K]
            clients.append(client)
        if asked == "alone":
            os.kill(running.process.pid, signal.SIGTERM)
        else:
            os.killpg(running.process.pid, signal.SIGTERM if asked == "group" else signal.SIGINT)
        await says(running.process, "draining")
        for client, (_, hold, data) in zip(clients, blobs, strict=True):
            hold.go.set()
            assert await client.rest() == data[K:]
        assert await running.process.wait() == 0
        assert all(stored(tmp_path, data) == data for _, _, data in blobs)
        assert "Traceback" not in running.process.said(100_000)


async def test_a_second_sigterm_ends_all_at_once(tmp_path: Path) -> None:
    """Bodies under way are cut, the upstream that holds is not waited for; still 0."""
    async with scripted() as upstream, crew(tmp_path, upstream) as running:
        path, _, data = held(upstream, 23)
        async with pulling_at(running, running.workers[0], path) as client:
            assert await client.take(K) == data[:K]
            os.kill(running.process.pid, signal.SIGTERM)
            await says(running.process, "draining")
            os.kill(running.process.pid, signal.SIGTERM)
            assert await client.rest() == b""
        assert await running.process.wait() == 0
        assert "Traceback" not in running.process.said(100_000)


async def test_sighup_reaches_all_and_those_that_come_later(tmp_path: Path) -> None:
    """New headers in every worker, also in one that is started after; a broken file changes nothing in any."""
    async with scripted() as upstream, crew(tmp_path, upstream) as running:
        path = tmp_path / "cache.yml"
        config = json.loads(path.read_text())
        config["http"] |= {"headers": {"X-Site": ["lyon"]}, "addr": "127.0.0.1:1"}
        path.write_text(json.dumps(config))
        os.kill(running.process.pid, signal.SIGHUP)

        async def taken(result: str) -> bool:
            series = f'msrcache_config_reloads_total{{result="{result}"}}'
            return await counted(running, series) == 2

        await until(lambda: taken("loaded"), what="both workers to re-read")
        path.write_text("version: [")
        os.kill(running.process.pid, signal.SIGHUP)
        await until(lambda: taken("failed"), what="both workers to refuse")
        os.kill(running.workers[0], signal.SIGKILL)
        await says(running.process, "worker ended, it is started anew")
        await complete(running)
        for worker in running.workers:
            async with pulling_at(running, worker, "/v2/") as answer:
                assert answer.headers["x-site"] == "lyon"


async def test_metrics_are_those_of_all(tmp_path: Path) -> None:
    """Whoever is asked tells the same sums, exactly; they outlive a worker that had counted a part of them."""
    hits = 'msrcache_pulls_total{kind="blob",outcome="hit",status="200"}'
    sent = 'msrcache_bytes_total{outcome="hit"}'
    async with scripted() as upstream, crew(tmp_path, upstream) as running:
        path = upstream.publish_blob(DATA)
        assert (await pull(running.port, path)).body == DATA
        await reached(running, 'msrcache_fills_total{ending="complete"}', 1)  # until then a pull is no hit
        for worker, times in zip(running.workers, (3, 4), strict=True):
            for _ in range(times):
                async with pulling_at(running, worker, path) as client:
                    assert await client.rest() == DATA
        await reached(running, hits, 7)  # counted behind the last byte that the client has read
        for worker in running.workers:
            async with pulling_at(running, worker, "/metrics") as answer:
                told = (await answer.rest()).decode()
            assert (value(told, hits), value(told, sent)) == (7, 7 * len(DATA))
            assert told.count("# TYPE msrcache_pulls_total counter") == 1
        os.kill(running.workers[0], signal.SIGKILL)
        await says(running.process, "worker ended, it is started anew")
        await complete(running)
        assert await counted(running, hits) == 7
        assert await counted(running, 'msrcache_build_info{version="0.1.0"}') == 1


async def test_two_workers_and_one_leftover(tmp_path: Path) -> None:
    """What a killed cache left is continued by one worker: the upstream is asked once for the rest, both are right."""
    async with scripted() as upstream:
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(hold=Hold(K)))
        async with crew(tmp_path, upstream) as running:
            workers = running.workers
            async with pulling_at(running, workers[0], path) as client:
                assert await client.take(K) == DATA[:K]
                running.process.kill()
        holds = [Hold(0), Hold(0)]
        upstream.script(path, *(Turn(hold=hold) for hold in holds))
        async with crew(tmp_path, upstream) as running, AsyncExitStack() as stack:
            pulls = [
                await stack.enter_async_context(pulling_at(running, worker, path))
                for worker in running.workers
            ]
            for hold in holds:
                hold.go.set()
            for answer in pulls:
                assert await answer.rest() == DATA
        continued = [line for line in upstream.lines if line == f"GET {path} bytes={K - 1}-"]
        assert len(continued) == 1


async def test_the_spool_is_bounded_for_all_together(tmp_path: Path) -> None:
    """Six blobs of 3 MB at once in a spool of 8 MB: each worker keeps one, the others pass; every byte is right."""
    async with scripted() as upstream, crew(tmp_path, upstream, spool={"size": "8MB"}) as running:
        blobs = [held(upstream, 30 + number) for number in range(6)]
        async with AsyncExitStack() as stack:
            clients = []
            for number, (path, _, data) in enumerate(blobs):
                worker = running.workers[number % 2]
                client = await stack.enter_async_context(pulling_at(running, worker, path))
                assert await client.take(1000) == data[:1000]
                clients.append(client)
            await reached(running, "msrcache_spool_bytes", 6_000_000)
            await reached(running, "msrcache_spool_full_total", 4)
            assert await counted(running, "msrcache_spool_bytes") == 6_000_000
            assert await counted(running, "msrcache_spool_full_total") == 4
            for client, (_, hold, data) in zip(clients, blobs, strict=True):
                hold.go.set()
                assert await client.rest() == data[1000:]


async def test_a_supervisor_that_is_killed_leaves_nobody_behind(tmp_path: Path) -> None:
    """Its workers notice, drain, and are gone."""
    async with scripted() as upstream, crew(tmp_path, upstream) as running:
        workers = running.workers
        os.kill(running.process.pid, signal.SIGKILL)

        async def gone() -> bool:
            return not any(Path(f"/proc/{pid}/stat").exists() and _alive(pid) for pid in workers)

        await until(gone, what="the workers to end")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_supervisor_is_small(tmp_path: Path) -> None:
    """What it has for itself, beside what it shares with its workers, after many questions: below 30 MiB."""
    async with scripted() as upstream, crew(tmp_path, upstream) as running:
        for _ in range(50):
            assert await counted(running, "msrcache_workers") == 2
        told = Path(f"/proc/{running.process.pid}/smaps_rollup").read_text()
        own = sum(int(size) for size in re.findall(r"^Private_\w+: +(\d+) kB", told, re.MULTILINE))
        assert own < 30 * 1024


async def test_a_worker_that_cannot_start_ends_all_with_its_sentence(tmp_path: Path) -> None:
    """A CA file that is not there: said once, exit code 2, no restarts."""
    upstream = {"url": "https://b.test", "ca": ["/no/such.pem"]}
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}},
        "http": {"addr": f"127.0.0.1:{free_port()}"},
        "cache": {"workers": 2, "upstreams": [upstream], "drain": {"delay": "0s"}},
    }
    path = tmp_path / "config.yml"
    path.write_text(json.dumps(config))
    said = await refused(path, tmp_path / "log")
    assert said.count("cannot start") == 1
    assert "/no/such.pem" in said
    assert "started anew" not in said


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """By whomever, also by one that would share it: one sentence, exit code 2; the one that has it serves on."""
    async with scripted() as upstream, crew(tmp_path, upstream) as running:
        process = start("msrcache", [PROGRAM, "serve", tmp_path / "cache.yml"], log=tmp_path / "second.log")
        assert await process.wait(30) == 2
        assert f"127.0.0.1:{running.port}" in process.said()
        assert "another process has it" in process.said()
        assert "Traceback" not in process.said()
        assert (await pull(running.port, "/v2/")).status == 200


async def test_one_worker_has_no_supervisor(tmp_path: Path) -> None:
    """workers: 1 is one process, whose port nobody can share."""
    async with scripted() as upstream, crew(tmp_path, upstream, workers=1) as running:
        assert running.workers == []
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", running.port))


async def test_two_workers_fetch_a_blob_once(tmp_path: Path) -> None:
    """Both are asked for a blob that is not there: one fills, the other follows it over its peer port."""
    async with scripted() as upstream, crew(tmp_path, upstream) as running, AsyncExitStack() as stack:
        path, hold, data = held(upstream, 40)
        clients = []
        for worker in running.workers:
            client = await stack.enter_async_context(pulling_at(running, worker, path))
            assert await client.take(K) == data[:K]
            clients.append(client)
        hold.go.set()
        for client in clients:
            assert await client.rest() == data[K:]
        assert [line for line in upstream.lines if line.startswith("GET")] == [f"GET {path}"]
        followed = 'msrcache_pulls_total{kind="blob",outcome="followed",status="200"}'
        await reached(running, followed, 1)
        assert await counted(running, followed) == 1


async def test_a_worker_that_dies_while_it_fills_is_succeeded(tmp_path: Path) -> None:
    """The client of the worker that followed it notices nothing: the rest comes from the upstream, from byte k on."""
    async with scripted() as upstream, crew(tmp_path, upstream) as running:
        path, _, data = held(upstream, 41)
        holder, follower = running.workers
        async with (
            pulling_at(running, holder, path) as cut,
            pulling_at(running, follower, path) as whole,
        ):
            assert await cut.take(K) == data[:K]
            assert await whole.take(K) == data[:K]
            os.kill(holder, signal.SIGKILL)
            assert await cut.rest() == b""
            assert await whole.rest() == data[K:]
        asked = [line for line in upstream.lines if line.startswith("GET")]
        assert asked == [f"GET {path}", f"GET {path} bytes={K}-"]
