"""Whole caches on one folder: one of them fetches, the others follow it, and go on when it is gone."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import LEASES
from tests.scenarios.plays import cache, pull, pulling, settled, stored
from tests.stage.process import until
from tests.stage.scripted import Hold, Scripted, Turn, scripted

DATA = random.Random(7).randbytes(3 << 20)
SECRET = {"REGISTRY_HTTP_SECRET": "equal on all replicas"}
MORE = "  peer: {addr: '127.0.0.1:0'}\n  lease: {ttl: 1m, patience: 20s}\n"
"""Nobody dies here: a replica that the machine held up must not be succeeded, nor a slow store be done without."""


@asynccontextmanager
async def replicas(
    folder: Path, upstream: Scripted, *, environ: dict[str, str]
) -> AsyncIterator[tuple[Application, Application]]:
    """Two on one store; each has a spool of its own."""
    async with (
        cache(folder, upstream, heartbeat="1s", more=MORE, environ=_spool(folder, "a", environ)) as one,
        cache(folder, upstream, heartbeat="1s", more=MORE, environ=_spool(folder, "b", environ)) as other,
    ):
        yield one, other


def _spool(folder: Path, name: str, environ: dict[str, str]) -> dict[str, str]:
    return {**environ, "REGISTRY_CACHE_SPOOL_PATH": str(folder / name)}


def rungs(folder: Path) -> list[Path]:
    """The records of leases that stand in the store."""
    return [path for path in (folder / "store" / LEASES).rglob("*") if path.is_file()]


@pytest.mark.parametrize("environ", [SECRET, {}], ids=["followed", "polled"])
async def test_two_replicas_fetch_once(tmp_path: Path, environ: dict[str, str]) -> None:
    """The other's client gets the bytes out of the holder's fill, or from the store; no record is left."""
    hold = Hold(1 << 20)
    async with scripted() as upstream, replicas(tmp_path, upstream, environ=environ) as (one, other):
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(hold=hold))
        first = asyncio.create_task(pull(one, path))
        await hold.reached.wait()
        async with asyncio.timeout(60):
            second = asyncio.create_task(pull(other, path))
            if environ:
                await until(lambda: _follows(other), what="a follower")
        hold.go.set()
        assert (await first).body == DATA
        assert (await second).body == DATA
        await settled(one)
        await settled(other)
        gets = [line for line in upstream.lines if line.startswith("GET") and "/blobs/" in line]
        assert len(gets) == 1
        assert stored(tmp_path, DATA) == DATA
    assert rungs(tmp_path) == []


async def test_a_holder_whose_upstream_fails_is_followed_by_the_other(tmp_path: Path) -> None:
    """Its follower takes the lease and asks for the rest only; both clients get right bytes or an honest cut."""
    hold = Hold(1 << 20)
    async with scripted() as upstream, replicas(tmp_path, upstream, environ=SECRET) as (one, other):
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(hold=hold))
        async with pulling(one, path) as first:
            await first.take(1000)
            await hold.reached.wait()
            second = asyncio.create_task(pull(other, path))
            await until(lambda: _follows(other), what="a follower")
            await one.pulls.fills.close()
            assert (await second).body == DATA
        await settled(other)
        assert stored(tmp_path, DATA) == DATA
    assert rungs(tmp_path) == []


async def test_without_exclusive_creates_a_home_keeps_the_leases(tmp_path: Path) -> None:
    """One fetch all the same; the records stand in a replica's memory, and none in the store."""
    hold = Hold(1 << 20)
    async with scripted() as upstream, replicas(tmp_path, upstream, environ=SECRET) as (one, other):
        for application in (one, other):
            application.store.create_is_exclusive = False
            await until(lambda at=application: _sees_both(at), what="replicas that see each other")  # type: ignore[misc]
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(hold=hold))
        first = asyncio.create_task(pull(one, path))
        await hold.reached.wait()
        second = asyncio.create_task(pull(other, path))
        await until(lambda: _follows(other), what="a follower")
        assert rungs(tmp_path) == []
        hold.go.set()
        assert (await first).body == (await second).body == DATA
        await settled(one)
        await settled(other)
        assert len([line for line in upstream.lines if line.startswith("GET") and "/blobs/" in line]) == 1


async def _sees_both(application: Application) -> bool:
    return len(application.fleet.alive()) == 2


async def _follows(application: Application) -> bool:
    return any(row["source"] not in ("", "upstream", "store") for row in application.pulls.fills.rows())
