"""The hot tier in the whole cache: hits as files, and disks that are full, read-only and gone."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.assembly import Application
from msrcache.storage.memory import Contents, Memory
from tests.scenarios.plays import cache, pull, settled
from tests.stage.images import noise
from tests.stage.process import until
from tests.stage.scripted import Scripted, scripted
from tests.stage.tools import need_root

DATA = noise(250_000, 21)
BIG = noise(3_000_000, 22)
MIB = 1 << 20


@asynccontextmanager
async def _over(
    folder: Path,
    upstream: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    contents: Contents,
    *,
    admit: str = "first",
) -> AsyncIterator[Application]:
    """A cache over a store in memory, which stands for a remote one, with a hot tier."""
    monkeypatch.setattr("msrcache.assembly.open_driver", lambda section: Memory(contents))
    environ = {
        "REGISTRY_STORAGE": "inmemory",
        "REGISTRY_CACHE_LOCAL_PATH": str(folder / "tier"),
        "REGISTRY_CACHE_LOCAL_SIZE": "100MiB",
        "REGISTRY_CACHE_LOCAL_ADMIT": admit,
        "REGISTRY_CACHE_SPOOL_PATH": str(folder / "spool"),
    }
    async with cache(folder, upstream, environ=environ) as application:
        yield application


def _value(application: Application, name: str, **labels: str) -> float:
    return application.metrics.registry.get_sample_value(f"msrcache_{name}", labels) or 0.0


def _opens(application: Application) -> float:
    return _value(application, "storage_calls_total", operation="open", result="ok")


async def _local(application: Application, path: str, data: bytes) -> None:
    """Returns when the blob is served from the hot tier."""

    async def served() -> bool:
        hits = _value(application, "local_hits_total")
        got = await pull(application, path)
        assert (got.status, got.body) == (200, data)
        return _value(application, "local_hits_total") > hits

    await until(served, what="a hit from the hot tier")


async def test_a_streamed_blob_becomes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill, stream, then files: whole and ranges come without a request to the store, and are hits like any other."""
    async with (
        scripted() as upstream,
        _over(tmp_path, upstream, monkeypatch, Contents(), admit="second") as application,
    ):
        path = upstream.publish_blob(DATA)
        assert (await pull(application, path)).headers["x-cache"] == "miss"
        await settled(application)
        await _local(application, path, DATA)
        opens = _opens(application)
        got = await pull(application, path)
        assert (got.body, got.headers["x-cache"]) == (DATA, "hit")
        part = await pull(application, path, Range="bytes=10-99")
        assert (part.status, part.body) == (206, DATA[10:100])
        assert (await pull(application, path, Range=f"bytes={len(DATA)}-")).status == 416
        assert _opens(application) == opens
        assert _value(application, "local_bytes") == len(DATA)
        assert upstream.lines == [f"GET {path}"]


async def test_a_restart_finds_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a former process kept is served once it was hashed; what rotted is not, and every body is right."""
    contents = Contents()
    async with scripted() as upstream:
        paths = {upstream.publish_blob(data): data for data in (DATA, BIG)}
        async with _over(tmp_path, upstream, monkeypatch, contents) as application:
            for path, data in paths.items():
                await pull(application, path)
                await settled(application)
                await _local(application, path, data)
        (rotten,) = [file for file in (tmp_path / "tier/0").iterdir() if file.stat().st_size == len(BIG)]
        rotten.write_bytes(BIG[:-1] + bytes([BIG[-1] ^ 1]))
        async with _over(tmp_path, upstream, monkeypatch, contents) as application:
            for path, data in paths.items():
                opens = _opens(application)
                assert (await pull(application, path)).body == data
                assert _opens(application) > opens
                await _local(application, path, data)
        assert len(upstream.lines) == 2


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of one mebibyte where the hot tier will be."""
    need_root()
    folder = tmp_path / "tier"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)


@pytest.mark.real
async def test_a_disk_that_is_full_then_read_only_then_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    """Every pull is whole and right; readiness stays, and says in words what is wrong."""
    async with scripted() as upstream, _over(tmp_path, upstream, monkeypatch, Contents()) as application:
        path, big = upstream.publish_blob(DATA), upstream.publish_blob(BIG)
        assert (await pull(application, path)).body == DATA
        await settled(application)
        await _local(application, path, DATA)
        for _ in range(2):
            assert (await pull(application, big)).body == BIG
            await settled(application)

        async def told() -> bool:
            return "local" in application.degraded()

        await until(told, what="the full disk to be told")
        assert "the disk is full" in application.degraded()["local"]
        ready = await pull(application, "/readyz")
        assert ready.status == 200
        assert "the disk is full" in json.dumps(json.loads(ready.body))
        await _local(application, path, DATA)
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        await _local(application, path, DATA)
        subprocess.run(["umount", "-l", small], check=True)
        for _ in range(2):
            assert (await pull(application, path)).body == DATA
            assert (await pull(application, big)).body == BIG
        assert _value(application, "local_failures_total", operation="write") >= 1
