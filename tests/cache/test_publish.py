"""Publishing: the store gets verified bytes, or nothing that anybody can see."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from msrcache.cache.publish import NotVisible, publish
from msrcache.cache.tail import Spilled, Tail
from msrcache.oci.digest import Hasher
from msrcache.oci.errors import UpstreamUnavailable
from msrcache.storage.errors import StorageError
from msrcache.storage.memory import Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import Sickness
from tests.stage.clock import FakeClock

DATA = b"0123456789" * 1000
KEY = "docker/registry/v2/blobs/sha256/aa/aa/data"


@dataclass(slots=True)
class Stage:
    """One file that grows, and a store."""

    memory: Memory
    sickness: Sickness
    store: Store
    clock: FakeClock
    tail: Tail
    path: Path

    def start(self, *, timeout: float = 0) -> "asyncio.Task[None]":
        """Publish it."""
        return asyncio.create_task(
            publish(self.store, KEY, self.tail, self.path, timeout=timeout, clock=self.clock)
        )

    def stored(self) -> bytes | None:
        """What the store shows."""
        found = self.memory.contents.objects.get(KEY)
        return None if found is None else found.data


@asynccontextmanager
async def _stage(path: Path) -> AsyncIterator[Stage]:
    file = path / "file"
    file.write_bytes(DATA)
    sickness, clock = Sickness(), FakeClock()
    memory = Memory(faults=sickness)
    store = Store(memory, metrics=Metrics(), clock=clock)
    fd = os.open(file, os.O_RDWR)
    try:
        yield Stage(memory, sickness, store, clock, Tail(fd, len(DATA)), file)
    finally:
        os.close(fd)
        await store.close()


async def test_nothing_is_visible_before_verification(tmp_path: Path) -> None:
    """All bytes are here and even written: without the verdict nobody sees an object."""
    async with _stage(tmp_path) as stage:
        stage.sickness.held = "write"
        task = stage.start()
        stage.tail.advance(len(DATA))
        await stage.sickness.reached.wait()
        stage.sickness.release.set()
        await asyncio.wait({task}, timeout=0)
        assert stage.stored() is None
        assert not task.done()
        stage.tail.verify()
        await task
        assert stage.stored() == DATA


@pytest.mark.parametrize("end", [UpstreamUnavailable("gone"), Spilled(5000, Hasher(), OSError(28, "full"))])
async def test_a_fill_that_ended_leaves_nothing(tmp_path: Path, end: Exception) -> None:
    """What was written before the ending is taken back."""
    async with _stage(tmp_path) as stage:
        task = stage.start()
        stage.tail.advance(5000)
        await asyncio.wait({task}, timeout=0)
        stage.tail.end(end)
        with pytest.raises(type(end)):
            await task
        assert stage.stored() is None
        assert not stage.memory.contents.staged


async def test_a_cancelled_publisher_leaves_nothing(tmp_path: Path) -> None:
    """Stopped before the commit: no object, and nothing staged."""
    async with _stage(tmp_path) as stage:
        stage.sickness.held = "commit"
        task = stage.start()
        stage.tail.advance(len(DATA))
        stage.tail.verify()
        await stage.sickness.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stage.stored() is None
        assert not stage.memory.contents.staged


@pytest.mark.parametrize("operation", ["writer", "write", "commit"])
async def test_a_store_that_fails_is_told(tmp_path: Path, operation: str) -> None:
    """The store's own error, and nothing staged."""
    async with _stage(tmp_path) as stage:
        stage.sickness.fails = {operation: ""}
        task = stage.start()
        stage.tail.advance(len(DATA))
        stage.tail.verify()
        with pytest.raises(StorageError, match="sick"):
            await task
        assert stage.stored() is None
        assert not stage.memory.contents.staged


async def test_an_object_that_cannot_be_seen_is_told(tmp_path: Path) -> None:
    """Read-after-write is checked, and the message says what to look at."""
    async with _stage(tmp_path) as stage:
        stage.sickness.fails = {"stat": ""}
        stage.tail.advance(len(DATA))
        stage.tail.verify()
        with pytest.raises(NotVisible, match=r"showed nothing there.*Check the mount options"):
            await stage.start()


async def test_an_object_that_shows_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is tried again, with waits that double, until the deadline."""
    waits: list[float] = []
    async with _stage(tmp_path) as stage:

        async def wait(seconds: float) -> None:
            waits.append(seconds)
            stage.clock.advance(seconds)
            if len(waits) == 3:
                stage.sickness.fails = {}

        monkeypatch.setattr(asyncio, "sleep", wait)
        stage.sickness.fails = {"stat": ""}
        stage.tail.advance(len(DATA))
        stage.tail.verify()
        await stage.start(timeout=5)
        assert waits == [0.05, 0.1, 0.2]


async def test_an_empty_blob_is_published(tmp_path: Path) -> None:
    """No byte to wait for, but the verdict still is."""
    async with _stage(tmp_path) as stage:
        stage.tail = Tail(stage.tail.fd, 0)
        task = stage.start()
        await asyncio.wait({task}, timeout=0)
        assert stage.stored() is None
        stage.tail.verify()
        await task
        assert stage.stored() == b""
