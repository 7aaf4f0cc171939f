"""Faults at every await of a fill: nothing that fails there makes a wrong body, a partial object or a leak.

The awaits are found in the syntax tree, so a new one is a case of its own at once. Each case plays the same scenes: an
outage that leaves a file behind, a fill that continues it, a spool's disk that fills up under its readers, a read
from the store, a fill into one that tells checksums, and fills that follow another replica: to its end, until it breaks
and the store has it, until it is silent and this replica goes on; two readers at a time, the second joins.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from msrcache.cache import fill, following, publish, pump, reading
from msrcache.cache.fills import BROKEN
from msrcache.cache.layout import blob_key
from msrcache.cache.lease import Fetch, Follow, Found, Turn
from msrcache.oci.descriptor import Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.errors import UpstreamUnavailable
from msrcache.oci.peers import Holder, NotFollowed, Sign
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Blob, Chunk, Outcome
from msrcache.storage.errors import NotFound, StorageError
from tests.cache import fleet
from tests.cache.awaits import Point, Trap, points
from tests.cache.fleet import HOLDER, ScriptedLeases
from tests.cache.kitchen import Cache, Local, blob_pull, cache

MODULES = ("fill", "following", "pump", "publish", "reading", "spool", "storing")
POINTS = {"fill": 48, "following": 8, "pump": 8, "publish": 14, "reading": 13, "spool": 7, "storing": 2}
"""How many awaits, steps of an `async for`, and entries into and exits from an `async with` each module has."""

FAULTS: dict[str, type[Exception] | None] = {
    "EIO": OSError,
    "store": StorageError,
    "outage": UpstreamUnavailable,
    "cancel": None,
}

ONLY_CANCELLED = {
    "self._begun.wait()": "an event's wait raises nothing",
    "self._opened.wait()": "an event's wait raises nothing",
    "self._full.wait()": "an event's wait raises nothing",
    "_first(self._room, writing)": "waits for events only",
    "asyncio.wait({waiting, other}, return_when=asyncio.FIRST_COMPLETED)": "asyncio.wait raises nothing",
    "asyncio.wait({task})": "asyncio.wait raises nothing",
    "asyncio.wait({working})": "asyncio.wait raises nothing, and the thread's result would be lost with it",
    "asyncio.shield(opening)": "an error means that the thread opened nothing; one behind it would lose the file",
    "asyncio.sleep(wait)": "sleeping raises nothing",
    "arrival.turn()": "by contract a sick store raises nothing there",
    "turning": "the same",
    "self._turn(arrival, file)": "the same, but for what `_announce` raises",
    "asyncio.wait({turning}, timeout=max(0.0, ANNOUNCED - waited))": "asyncio.wait raises nothing",
}
"""What is awaited and cannot fail, and why: these points are only cancelled."""

CLEANING = {
    "self._let_go()",
    "self._kitchen.spool.release(file)",
    "self._withdraw(self._publishing, error)",
    "finish(publishing)",
    "finish(writing)",
    "finish(turning)",
    "asyncio.shield(self.run(partial(_close, file, keep=keep)))",
}
"""Cleaning up: an error comes behind it. In its place it would leave out what has to be done, as no failure does."""

NOT_PLAYED = {
    "arrival.dead()": "in a task that nobody else has to cancel; by contract a sick store raises nothing there",
    "asyncio.sleep(QUIET)": "in the same task",
    "self.run(lambda: _take_stock(self.path))": "before any pull: where it fails, the process does not start",
    "asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)": "after the last pull: the process ends",
}
"""Points outside the life of a pull, and why."""

PASSAGES = (1, 3)
"""When a fault comes: every point is passed once at least, a third time where it is in a loop or a later scene (errors
there with the slow tests).
"""

SPARED = frozenset({"Spool.run"})
"""Tasks of the spool's own, shielded from those who wait for them: nobody has them to cancel."""

FULL = 131_072
"""Bytes after which the spool's disk is full, where a scene wants it: two of the upstream's chunks."""


FOLLOW = Follow(HOLDER)


def _data(seed: int) -> bytes:
    return random.Random(seed).randbytes(200_000)


def _cases() -> Iterator[object]:
    for point in (point for name in MODULES for point in points(name) if point.text not in NOT_PLAYED):
        for fault, error in FAULTS.items():
            if error is None or point.text not in ONLY_CANCELLED:
                for passage in PASSAGES:
                    # Whoever cancels may do so at any time; an error in a later scene is rarely another one.
                    marks = [pytest.mark.slow] if passage > 1 and error is not None else []
                    yield pytest.param(point, fault, passage, id=f"{point}-{fault}-{passage}", marks=marks)


def _error(fault: str) -> Exception | None:
    match FAULTS[fault]:
        case None:
            return None
        case kind if kind is OSError:
            return OSError(5, "EIO")
        case kind if kind is StorageError:
            return StorageError("inmemory", "k", None, "sick")
    return UpstreamUnavailable("gone")


class _Lagging:
    """A store that shows what it was given at the second look only."""

    def __init__(self) -> None:
        self._hidden: set[str] = set()

    async def before(self, operation: str, key: str) -> None:
        if operation == "open" and key in self._hidden:
            self._hidden.discard(key)
            raise NotFound("inmemory", key)

    async def after(self, operation: str, key: str) -> None:
        if operation == "commit":
            self._hidden.add(key)


class _Peer:
    """Another replica that has a blob: it breaks at a byte, or falls silent there."""

    def __init__(self) -> None:
        self.data = b""
        self.breaks_at = self.silent_at = -1
        self.refuses = False

    @asynccontextmanager
    async def follow(self, digest: Digest, holder: Holder, start: int) -> AsyncIterator[Blob]:
        """As Followable."""
        if self.refuses:
            raise NotFollowed(Sign.UNREACHED, "nobody listens")
        size = len(self.data)
        descriptor = Descriptor("application/octet-stream", digest, size)
        yield Blob(descriptor, Span(start, size), Outcome.FOLLOWED, self._body(start))

    async def _body(self, start: int) -> AsyncIterator[Chunk]:
        for at in range(start, len(self.data), 10_000):
            if at == self.breaks_at:
                self.breaks_at = -1
                raise NotFollowed(Sign.BROKEN, "cut")
            if at == self.silent_at:
                await asyncio.Event().wait()
            yield self.data[at : at + 10_000]


class _Disk:
    """The spool's disk; full beyond byte FULL where a test says so."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._write = pump._write
        patch.setattr(pump, "_write", self.write)

    def write(self, fd: int, batch: list[bytes], offset: int, hasher: object) -> None:
        """As pump._write."""
        if self.full and offset + sum(len(chunk) for chunk in batch) > FULL:
            raise OSError(28, "no space left")
        self._write(fd, batch, offset, hasher)  # type: ignore[arg-type]


class _Stage:
    """One cache and the scenes played on it; each leaves it checked."""

    def __init__(self, kept: Cache, disk: _Disk, leases: ScriptedLeases, peer: _Peer) -> None:
        self._kept = kept
        self._disk = disk
        self._script = leases.script
        self._peer = peer
        self._tasks = len(asyncio.all_tasks())
        self._descriptors = _descriptors()

    async def played(self) -> None:
        """Outage, continuation, full disk, from the store, and into a store that tells checksums."""
        await self._scene(_data(1), breaks_at=150_000)
        await self._scene(_data(1))
        await self._scene(_data(2), full=True)
        await self._scene(_data(1))
        self._kept.memory.contents.checksums = True
        await self._scene(_data(3))
        await self._followed(_data(4), FOLLOW, FOLLOW, Found(), stored=True)
        await self._followed(_data(5), FOLLOW, Found(), breaks_at=100_000, stored=True)
        await self._followed(_data(6), FOLLOW, Fetch(), silent_at=50_000)
        await self._followed(_data(7), FOLLOW, Fetch())
        await self._late(_data(8))

    async def _late(self, data: bytes) -> None:
        """A replica that can't be followed, and a turn that is long in coming."""
        self._peer.refuses = True
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fill, "ANNOUNCED", 0)
            await self._followed(data, FOLLOW, Fetch())
        self._peer.refuses = False

    async def _followed(
        self, data: bytes, *turns: Turn, breaks_at: int = -1, silent_at: int = -1, stored: bool = False
    ) -> None:
        """A blob that another replica fills; ``stored``: it comes into the store just before it is found there."""

        def due(turn: Turn) -> asyncio.Event | None:
            if isinstance(turn, Found):
                self._kept.memory.contents.objects.update(there)
            return _soon() if self._peer.refuses and isinstance(turn, Fetch) else None

        await self._kept.memory.put(key := blob_key(Digest.of(data)), data)
        there = {key: self._kept.memory.contents.objects.pop(key)} if stored else {}
        self._kept.memory.contents.objects.pop(key, None)
        self._peer.data, self._peer.breaks_at, self._peer.silent_at = data, breaks_at, silent_at
        self._script.turns, self._script.gate = deque(turns), due
        if silent_at >= 0:
            self._script.silent.set()
        try:
            await self._scene(data)
        finally:
            self._script.turns = deque([Fetch()])
            self._script.silent.clear()

    async def healed(self) -> None:
        """Without the fault, all is there again."""
        for seed in (1, 2, 4, 5, 6, 7, 8):
            assert await self._read(_data(seed)) == _data(seed)
        await self._kept.pulls.settled()
        await self._clean()
        names = {leftover.path for leftover in self._kept.spool._leftovers.values()}
        assert set(self._kept.spool.path.iterdir()) == names, "only what is to be continued stays"

    async def _scene(self, data: bytes, *, breaks_at: int | None = None, full: bool = False) -> None:
        self._kept.upstream.breaks = {} if breaks_at is None else {breaks_at: UpstreamUnavailable("gone")}
        self._disk.full = full
        # Cancelling at a last step, which waits for nothing, ends a reader's task as cancelled after its body.
        ends = await asyncio.gather(self._task(data), self._task(data), return_exceptions=True)
        assert all(isinstance(end, BaseException) or end == data for end in ends)
        await self._kept.pulls.settled()
        self._kept.upstream.breaks, self._disk.full = {}, False
        assert self._kept.stored(Digest.of(data)) in (None, data)
        await self._clean()

    def _task(self, data: bytes) -> "asyncio.Task[bytes]":
        return asyncio.create_task(self._read(data))

    async def _read(self, data: bytes) -> bytes:
        return await self._kept.get(blob_pull(self._kept.upstream.publish("team/a", data)))

    async def _clean(self) -> None:
        # What a cancelled reader let go is closed behind it, by a task and a thread of the spool's own.
        while len(asyncio.all_tasks()) > self._tasks or _descriptors() > self._descriptors:
            await asyncio.sleep(0)
        assert self._kept.memory.contents.staged == {}
        assert (self._kept.spool.used, self._kept.spool._unwritten) == (0, 0)


def _soon() -> asyncio.Event:
    """Set after whatever was to happen at once."""
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, event.set)
    return event


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_every_await_has_been_looked_at() -> None:
    """A new await changes this table, and is thereby looked at; what the tables name is there."""
    assert {name: len(points(name)) for name in MODULES} == POINTS
    texts = {point.text for name in MODULES for point in points(name)}
    assert {*ONLY_CANCELLED, *CLEANING, *NOT_PLAYED} <= texts


@pytest.mark.parametrize(("point", "fault", "passage"), list(_cases()))
async def test_a_fault_at_an_await(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Point, fault: str, passage: int
) -> None:
    """Readers get all or an error, the store all or nothing, everybody is told, and what was opened is closed."""
    monkeypatch.setattr(pump, "QUEUED", 100_000)
    monkeypatch.setattr(reading, "LARGE", 10_000)
    monkeypatch.setattr(publish, "FIRST_WAIT", 0)
    monkeypatch.setattr(following, "QUIET", 0)
    disk = _Disk(monkeypatch)
    trap = Trap(point, _error(fault), passage=passage, behind=point.text in CLEANING, spares=SPARED)
    leases, peer = fleet.leases(Fetch()), _Peer()
    with capture_logs() as told:
        async with (
            cache(tmp_path, local=Local(size=1), leases=leases, peers=peer) as kept,
            asyncio.timeout(60),
        ):
            kept.memory.faults = _Lagging()
            await kept.get(
                blob_pull(kept.upstream.publish("team/a", b"warm"))
            )  # the threads' own descriptors
            await kept.pulls.settled()
            stage = _Stage(kept, disk, leases, peer)
            with monkeypatch.context() as patch:
                trap.set(patch)
                await stage.played()
            assert trap.sprung or passage > 1
            await stage.healed()
    assert not [entry for entry in told if entry["event"] == BROKEN]
