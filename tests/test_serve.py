"""The serving process: it drains on SIGTERM, re-reads on SIGHUP, survives kill -9, and says in one sentence why not."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.scenarios.plays import configuration, left_behind, pull, pulling, stored
from tests.stage.images import noise
from tests.stage.process import Process, answers, free_port, running, start, until
from tests.stage.scripted import Hold, Scripted, Turn, scripted
from tests.stage.tools import need

PROGRAM = Path(sys.executable).with_name("msrcache")
DATA = noise(3_000_000, 6)
K = 2_000_000


def written(folder: Path, port: int, *upstreams: str, more: str = "") -> Path:
    """A configuration file that listens on this port."""
    path = folder / "config.yml"
    text = configuration(folder, *upstreams, more=more).replace("127.0.0.1:0", f"127.0.0.1:{port}")
    path.write_text(text.replace("level: warn", "level: info"))
    return path


@asynccontextmanager
async def serving(folder: Path, upstream: Scripted) -> AsyncIterator[tuple[Process, int]]:
    """`msrcache serve` as its own process."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    argv: list[str | Path] = [PROGRAM, "serve", written(folder, port, upstream.url)]

    async def ready() -> bool:
        return await answers(f"http://127.0.0.1:{port}/v2/", below=600)

    async with running("msrcache", argv, ready=ready, log=folder / "log") as process:
        yield process, port


async def says(process: Process, words: str) -> None:
    """Returns when the log holds the words."""

    async def told() -> bool:
        return words in process.said(100_000)

    await until(told, what=f"the log to say: {words}")


async def test_sigterm_drains(tmp_path: Path) -> None:
    """SIGTERM in the middle of a body: the body ends well, then the process, with 0."""
    async with scripted() as upstream, serving(tmp_path, upstream) as (process, port):
        path = upstream.publish_blob(DATA)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold))
        async with pulling(port, path) as client:
            assert await client.take(K) == DATA[:K]
            os.kill(process.pid, signal.SIGTERM)
            hold.go.set()
            assert await client.rest() == DATA[K:]
        assert await process.wait() == 0
        assert "Traceback" not in process.said(100_000)


async def test_a_second_sigterm_ends_at_once(tmp_path: Path) -> None:
    """The upstream holds and the drain would wait for it: asked again, it cuts what is left and ends with 0."""
    async with scripted() as upstream, serving(tmp_path, upstream) as (process, port):
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(hold=Hold(K)))
        config = tmp_path / "config.yml"
        config.write_text(config.read_text().replace("draintimeout: 20s", "draintimeout: 10m"))
        os.kill(process.pid, signal.SIGHUP)
        await says(process, "configuration re-read")
        async with pulling(port, path) as client:
            assert await client.take(K) == DATA[:K]
            os.kill(process.pid, signal.SIGTERM)
            await says(process, "draining")
            os.kill(process.pid, signal.SIGTERM)
            assert await client.rest() == b""
        assert await process.wait() == 0
        assert "drain time is up" not in process.said(100_000)
        assert "Traceback" not in process.said(100_000)


async def test_sigterm_right_behind_a_pull(tmp_path: Path) -> None:
    """The last byte has just come when SIGTERM does: the process ends only when the blob is in the store, each time."""
    async with scripted() as upstream:
        for number in range(5):
            data = noise(1_000_000, 60 + number)
            path = upstream.publish_blob(data)
            async with serving(tmp_path, upstream) as (process, port), pulling(port, path) as client:
                assert await client.take(len(data)) == data
                os.kill(process.pid, signal.SIGTERM)
                assert await process.wait() == 0
            assert stored(tmp_path, data) == data
        assert left_behind(tmp_path) == []
        assert [line for line in upstream.lines if line.startswith("HEAD")] == []


async def test_a_drain_whose_time_is_up_cuts_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """The upstream holds at byte k for longer than the drain: a short body that is seen as one, and no byte twice."""
    async with scripted() as upstream:
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(hold=Hold(K)))
        async with serving(tmp_path, upstream) as (process, port):
            config = tmp_path / "config.yml"
            config.write_text(config.read_text().replace("draintimeout: 20s", "draintimeout: 300ms"))
            os.kill(process.pid, signal.SIGHUP)
            await says(process, "configuration re-read")
            async with pulling(port, path) as client:
                assert await client.take(K) == DATA[:K]
                os.kill(process.pid, signal.SIGTERM)
                assert await client.rest() == b""
            assert await process.wait() == 0
            assert "drain time is up" in process.said(100_000)
        assert stored(tmp_path, DATA) is None
        async with serving(tmp_path, upstream) as (_, port):
            assert (await pull(port, path)).body == DATA
        blobs = [line for line in upstream.lines if path in line]
        assert blobs == [f"GET {path}", f"GET {path} bytes={K - 1}-"]


async def test_sighup_re_reads_and_a_bad_file_keeps_the_old(tmp_path: Path) -> None:
    """SIGHUP takes over new headers; after one with a broken file the process serves on as before and says so."""
    async with scripted() as upstream, serving(tmp_path, upstream) as (process, port):
        config = tmp_path / "config.yml"
        text = config.read_text()
        config.write_text(text.replace("http: {", "http: {headers: {X-Site: [lyon]}, "))
        os.kill(process.pid, signal.SIGHUP)
        await says(process, "configuration re-read")
        assert (await pull(port, "/v2/")).headers["x-site"] == "lyon"
        config.write_text("version: [")
        os.kill(process.pid, signal.SIGHUP)
        await says(process, "the old one stays")
        assert (await pull(port, "/v2/")).headers["x-site"] == "lyon"
        assert not process.ended
        told = (await pull(port, "/metrics")).body.decode()
        assert 'msrcache_config_reloads_total{result="failed"} 1.0' in told
        assert 'msrcache_config_reloads_total{result="loaded"} 1.0' in told


async def test_sighup_takes_other_upstreams_and_names_what_it_cannot_take(tmp_path: Path) -> None:
    """The next pull is asked of the new upstream; a spool elsewhere has to wait for the next start, in words."""
    async with scripted() as one, scripted() as two, serving(tmp_path, one) as (process, port):
        config = tmp_path / "config.yml"
        text = config.read_text().replace(one.url, two.url)
        config.write_text(f"{text}  spool: {{path: {tmp_path / 'elsewhere'}}}\n")
        os.kill(process.pid, signal.SIGHUP)
        await says(process, "configuration re-read")
        assert "cache.spool.path" in process.said(100_000)
        path = two.publish_blob(DATA)
        got = await pull(port, path)
        assert (got.body, got.whole) == (DATA, True)
        assert two.lines == [f"GET {path}"]


async def test_sighup_with_an_authority_that_is_missing_keeps_all(tmp_path: Path) -> None:
    """The file is right but the CA that it names is not there: one loud line, and the old upstream is asked on."""
    async with scripted() as upstream, serving(tmp_path, upstream) as (process, port):
        config = tmp_path / "config.yml"
        text = config.read_text()
        config.write_text(
            text.replace(f"- url: {upstream.url}", "- {url: 'https://b.test', ca: [/no/such.pem]}")
        )
        os.kill(process.pid, signal.SIGHUP)
        await says(process, "the old one stays")
        assert "/no/such.pem" in process.said(100_000)
        path = upstream.publish_blob(DATA)
        assert (await pull(port, path)).body == DATA
        assert "Traceback" not in process.said(100_000)


async def test_kill_nine_while_filling(tmp_path: Path) -> None:
    """kill -9 at byte k: nothing partial in the store; started again, the fill goes on with a Range: right bytes."""

    async def clean() -> bool:
        return left_behind(tmp_path) == []

    async with scripted() as upstream:
        path = upstream.publish_blob(DATA)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold))
        async with serving(tmp_path, upstream) as (process, port), pulling(port, path) as client:
            assert await client.take(K) == DATA[:K]
            process.kill()
        assert stored(tmp_path, DATA) is None
        async with serving(tmp_path, upstream) as (_, port):
            got = await pull(port, path)
            assert (got.body, got.whole) == (DATA, True)
            await until(clean, what="the spool to be empty")
        blobs = [line for line in upstream.lines if path in line]
        assert blobs == [f"GET {path}", f"GET {path} bytes={K - 1}-"]
        assert stored(tmp_path, DATA) == DATA


def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    """A read from a file server that is away never ends: the process does, with its code and what it has said."""
    program = (
        "import threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from msrcache.serve import leave\n"
        "leave(3, patience=0.0)\n"
        "ThreadPoolExecutor(1).submit(threading.Event().wait)\n"
        "print('said')\n"
        "leave(3, patience=0.0)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (3, b"said")


async def refused(config: Path, log: Path) -> str:
    """What a start that must fail says; it ends with 2 and without a traceback."""
    process = start("msrcache", [PROGRAM, "serve", config], log=log)
    try:
        assert await process.wait(20) == 2, process.said()
    finally:
        process.kill()
    assert "Traceback" not in process.said(100_000)
    return process.said(100_000)


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """One sentence that names the address; exit code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = await refused(written(tmp_path, port, "http://127.0.0.1:1"), tmp_path / "log")
    assert f"127.0.0.1:{port}" in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("  nosuchkey: 1\n", "nosuchkey"),
        ("  fill: {concurrency: many}\n", "concurrency"),
    ],
    ids=["unknown-key", "bad-value"],
)
async def test_a_bad_configuration(tmp_path: Path, more: str, words: str) -> None:
    """The key, its line, and nothing started."""
    said = await refused(written(tmp_path, free_port(), "http://127.0.0.1:1", more=more), tmp_path / "log")
    assert words in said
    assert "config.yml" in said


async def test_no_upstream(tmp_path: Path) -> None:
    """Without an upstream there is nothing to cache: one sentence that says how to name one."""
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}}}}}\n")
    assert "proxy.remoteurl" in await refused(config, tmp_path / "log")


async def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    """A certificate file of rubbish: the file is named; exit code 2."""
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("rubbish\n")
    config = written(tmp_path, free_port(), "http://127.0.0.1:1")
    tls = f"tls: {{certificate: {tmp_path / 'cert.pem'}, key: {tmp_path / 'key.pem'}}}"
    config.write_text(config.read_text().replace("http: {", f"http: {{{tls}, "))
    assert "cert.pem" in await refused(config, tmp_path / "log")


async def test_a_missing_configuration(tmp_path: Path) -> None:
    """A file that is not there is named; exit code 2."""
    assert "absent.yml" in await refused(tmp_path / "absent.yml", tmp_path / "log")


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"], ids=["away", "no-dns"])
async def test_an_upstream_that_is_away_at_start(tmp_path: Path, host: str) -> None:
    """The cache starts; a pull is told 503 in the specification's JSON, and the log shows no traceback."""
    port = free_port()
    more = "  upstream: {retries: 0, retrybudget: 1s, connecttimeout: 2s}\n"
    argv: list[str | Path] = [PROGRAM, "serve", written(tmp_path, port, f"http://{host}", more=more)]

    async def ready() -> bool:
        return await answers(f"http://127.0.0.1:{port}/v2/", below=600)

    async with running("msrcache", argv, ready=ready, log=tmp_path / "log") as process:
        got = await pull(port, f"/v2/team/app/blobs/sha256:{'0' * 64}")
        assert got.status == 503
        assert b'"errors"' in got.body
    assert "Traceback" not in process.said(100_000)


async def test_a_store_that_cannot_be_made_starts_degraded(tmp_path: Path) -> None:
    """The store's folder cannot be made (a file stands there): pulls are passed through, and that is said."""
    (tmp_path / "store").write_text("a file where a folder should be\n")
    async with scripted() as upstream, serving(tmp_path, upstream) as (process, port):
        path = upstream.publish_blob(DATA)
        got = await pull(port, path)
        assert (got.body, got.whole) == (DATA, True)
        assert "store" in process.said(100_000)
    assert "Traceback" not in process.said(100_000)


def powerless(*argv: str | Path) -> list[str | Path]:
    """The program without root's right to pass over permissions; the same where we are not root."""
    if os.geteuid() != 0:
        return list(argv)
    return [need("setpriv"), "--bounding-set=-dac_override,-dac_read_search", *argv]


@pytest.mark.parametrize("place", ["store", "spool"])
async def test_a_folder_that_may_not_be_written(tmp_path: Path, place: str) -> None:
    """Started degraded: folder and reason stand in the log and in readiness; pulls are passed through."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    port = free_port()

    async def ready() -> bool:
        return await answers(f"http://127.0.0.1:{port}/v2/", below=600)

    async with scripted() as upstream:
        config = written(tmp_path, port, upstream.url, more=f"  spool: {{path: {tmp_path / 'spool'}}}\n")
        config.write_text(config.read_text().replace(str(tmp_path / place), str(closed / place)))
        argv = powerless(PROGRAM, "serve", config)
        async with running("msrcache", argv, ready=ready, log=tmp_path / "log") as process:
            got = await pull(port, upstream.publish_blob(DATA))
            assert (got.status, got.body) == (200, DATA)
            health = (await pull(port, "/readyz")).body.decode()
            for told in (process.said(100_000), health):
                assert str(closed / place) in told
                assert "ermission denied" in told
        assert "Traceback" not in process.said(100_000)


async def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    """Store and spool in folders that are not there yet: made, and nothing is degraded."""
    async with scripted() as upstream, serving(tmp_path / "not" / "yet", upstream) as (_, port):
        assert (await pull(port, upstream.publish_blob(DATA))).body == DATA
        assert b"degraded" not in (await pull(port, "/readyz")).body


async def test_a_socket_in_a_folder_that_is_missing(tmp_path: Path) -> None:
    """http.net unix: one sentence that names the place and says to create the folder; exit code 2."""
    config = written(tmp_path, free_port(), "http://127.0.0.1:1")
    lines = config.read_text().splitlines(keepends=True)
    place = tmp_path / "absent" / "cache.sock"
    http = f"http: {{net: unix, addr: {place}}}\n"
    config.write_text("".join(http if line.startswith("http:") else line for line in lines))
    said = await refused(config, tmp_path / "log")
    assert str(place) in said
    assert "create it" in said


async def test_a_configuration_that_may_not_be_read(tmp_path: Path) -> None:
    """The file is named, and why; exit code 2, nothing started."""
    config = written(tmp_path, free_port(), "http://127.0.0.1:1")
    config.chmod(0)
    process = start("msrcache", powerless(PROGRAM, "serve", config), log=tmp_path / "log")
    assert await process.wait(20) == 2
    assert "config.yml" in process.said()
    assert "ermission denied" in process.said()
    assert "Traceback" not in process.said()
