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
from msrcache.storage.memory import Contents, Memory
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


class Shows:
    """A store that shows something else than what was committed; its calls are counted from the commit on."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data
        self.contents = Contents()
        self.calls: list[str] = []

    async def before(self, operation: str, key: str) -> None:
        """As Faults."""
        self.calls.append(operation)

    async def after(self, operation: str, key: str) -> None:
        """As Faults."""
        if operation == "commit":
            self.calls.clear()
            if self.data is None:
                del self.contents.objects[key]
            else:
                self.contents.store(key, self.data)


SIZE = len(DATA)
LONG = os.urandom(300_000)


async def _published(
    path: Path, data: bytes, *, shows: bytes | None, checksums: bool = False, elsewhere: Memory | None = None
) -> Shows:
    """Publish these bytes to a store that shows something else; raises what publish does."""
    file = path / "file"
    file.write_bytes(data)
    faults, clock = Shows(shows), FakeClock()
    faults.contents.checksums = checksums
    memory = Memory(faults.contents, faults=faults)
    store = Store(memory, metrics=Metrics(), clock=clock, twin=lambda: elsewhere or memory.twin())
    fd = os.open(file, os.O_RDWR)
    try:
        tail = Tail(fd, len(data))
        tail.advance(len(data))
        tail.verify()
        await publish(store, KEY, tail, file, timeout=0, clock=clock)
    finally:
        os.close(fd)
        await store.close()
    return faults


@pytest.mark.parametrize(
    ("data", "shows", "found"),
    [
        (DATA, None, "nothing"),
        (DATA, DATA[:-1], f"{SIZE - 1} bytes"),
        (DATA, b"", "0 bytes"),
        (LONG, LONG[:10], "10 bytes"),
        (DATA, bytes([DATA[0] ^ 1]) + DATA[1:], f"other bytes \\(at 0 to {SIZE}\\)"),
        (LONG, LONG[:-1] + b"\0", "other bytes \\(at 234464 to 300000\\)"),
        (b"", b"1", "1 bytes"),
    ],
    ids=["nothing", "cut", "empty", "cut-before-its-end", "first-byte", "last-byte", "not-empty"],
)
async def test_what_the_store_shows_instead_is_told(
    tmp_path: Path, data: bytes, shows: bytes | None, found: str
) -> None:
    """Read-after-write is checked by size and by the bytes at both ends, and the message says what to look at."""
    with pytest.raises(NotVisible, match=rf"showed {found} there.*Check the mount options"):
        await _published(tmp_path, data, shows=shows)


async def test_a_checksum_is_compared_where_the_store_tells_it(tmp_path: Path) -> None:
    """Then also a byte in the middle counts, and one stat is the whole check."""
    spoiled = LONG[:150_000] + b"\0\0" + LONG[150_002:]
    with pytest.raises(NotVisible, match=r"other bytes \(checksum crc32:"):
        await _published(tmp_path, LONG, shows=spoiled, checksums=True)
    faults = await _published(tmp_path, LONG, shows=LONG, checksums=True)
    assert faults.calls == ["stat"]


@pytest.mark.parametrize(("data", "opens"), [(DATA, 1), (LONG[: 128 << 10], 1), (LONG, 2)])
async def test_the_check_costs_two_requests_at_most(tmp_path: Path, data: bytes, opens: int) -> None:
    """Without a checksum: one request for a blob that is no longer than both ends, two for any other."""
    faults = await _published(tmp_path, data, shows=data)
    assert [call for call in faults.calls if call != "read"] == ["open"] * opens


async def test_the_check_asks_on_another_connection(tmp_path: Path) -> None:
    """The instance that wrote sees it, the second one does not: that is no success."""
    with pytest.raises(NotVisible, match="showed nothing there"):
        await _published(tmp_path, DATA, shows=DATA, elsewhere=Memory())


async def test_a_store_that_cannot_be_asked_has_broken_no_promise(tmp_path: Path) -> None:
    """Its own error is told, after the deadline, and no broken promise is counted against it."""
    async with _stage(tmp_path) as stage:
        stage.sickness.fails = {"open": ""}
        stage.tail.advance(len(DATA))
        stage.tail.verify()
        with pytest.raises(StorageError, match="sick"):
            await stage.start()
        assert stage.stored() == DATA


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
        stage.sickness.fails = {"open": ""}
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
