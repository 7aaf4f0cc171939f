"""Faults at every await of the hot tier: nothing that fails there reaches a reader, or leaves the tier at odds with
its folder.

As test_every_await, over a scene of its own: a fill that feeds the tier, a stream that is kept, hits from it, a
restart's verification, and a recheck after a failure.
"""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from msrcache.cache.layout import blob_key, layer_link
from msrcache.cache.local import RECHECK, LocalTier, Trouble
from msrcache.oci.digest import Digest
from msrcache.storage.errors import StorageError
from tests.cache.awaits import Point, Trap, points
from tests.cache.kitchen import A, Cache, Local, blob_pull, cache

MODULES = ("local", "incoming")
POINTS = {"local": 23, "incoming": 9}

FAULTS: dict[str, Exception | None] = {
    "disk": StorageError("cache.local", "k", None, "sick"),
    "cancel": None,
}

ONLY_CANCELLED = {
    "self._claim()": "tells its failures itself",
    "self._opened(digest)": "tells its failures itself",
    "aclosing(chunks)": "raises nothing of its own",
    "self._change.wait()": "an event's wait raises nothing",
    "self._one_at_a_time": "a lock raises nothing",
    "asyncio.timeout(PATIENCE)": "raises TimeoutError where what is within is cancelled",
    "asyncio.timeout(WRITTEN_WITHIN)": "as above",
    "asyncio.timeout(CLAIMED_WITHIN)": "as above",
}

NOT_PLAYED = {
    "start": "before the first pull: where it fails, the tier is away",
    "close": "after the last pull",
    "_sweep": "an hour later",
}
"""Functions outside the scene, and why."""

READERS = {"chunks": "the store's own failure, which cuts the reader as without a tier"}

FILLED, STREAMED = (random.Random(seed).randbytes(200_000) for seed in (1, 2))


def _cases() -> Iterator[object]:
    for point in (point for name in MODULES for point in points(name) if point.function not in NOT_PLAYED):
        for fault, error in FAULTS.items():
            if error is None or point.text not in ONLY_CANCELLED:
                yield pytest.param(point, fault, id=f"{point}-{fault}")


def test_every_await_has_been_looked_at() -> None:
    """A new await changes this table, and is thereby looked at; what the tables name is there."""
    assert {name: len(points(name)) for name in MODULES} == POINTS
    texts = {point.text for name in MODULES for point in points(name)}
    assert {*ONLY_CANCELLED, *READERS} <= texts
    assert NOT_PLAYED.keys() <= {point.function for name in MODULES for point in points(name)}


async def _read(kept: Cache, data: bytes) -> bytes:
    return await kept.get(blob_pull(Digest.of(data)))


async def _settled(kept: Cache, local: LocalTier) -> None:
    """Returns when nothing but the sweep is under way."""
    await kept.pulls.settled()
    while len(local._tasks) > 1 or local._disk._jobs or local._disk._tidying:
        await asyncio.sleep(0)


async def _scene(kept: Cache, local: LocalTier, point: Point) -> None:
    """Every body is right; only a fault in the reader's own steps may end it otherwise."""
    for data in (FILLED, STREAMED, FILLED, STREAMED):
        (end,) = await asyncio.gather(asyncio.create_task(_read(kept, data)), return_exceptions=True)
        if not isinstance(end, BaseException):
            assert end == data
        else:
            cancelled = isinstance(end, asyncio.CancelledError)
            assert cancelled or point.text in READERS, f"a fault of the tier reached its reader: {end!r}"
        await _settled(kept, local)
    for known in local._kept.values():
        known.stamp = None  # as after a restart
    for _ in range(2):
        (end,) = await asyncio.gather(asyncio.create_task(_read(kept, STREAMED)), return_exceptions=True)
        assert end == STREAMED or isinstance(end, asyncio.CancelledError) or point.text in READERS
        await _settled(kept, local)
    local._trouble = Trouble(0.0, "failed", closed=False)
    kept.clock.advance(RECHECK)
    (local.folder / "lock").unlink()  # it is not ours any more: claimed anew
    for _ in range(2):
        (end,) = await asyncio.gather(asyncio.create_task(_read(kept, STREAMED)), return_exceptions=True)
        assert end == STREAMED or isinstance(end, asyncio.CancelledError) or point.text in READERS
        await _settled(kept, local)


def _accounted(local: LocalTier) -> None:
    """The tier's books and its folder say the same."""
    files = {file.name: file.stat().st_size for file in local.folder.iterdir() if file.name != "lock"}
    known = {f"{digest.algorithm}-{digest.hex}": one.size for digest, one in local._kept.items()}
    assert files == known
    assert (local.used, local._queue.held, local._arriving) == (sum(known.values()), 0, set())


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(("point", "fault"), list(_cases()))
async def test_a_fault_at_an_await(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Point, fault: str
) -> None:
    """Whatever fails there: right bodies, a folder that is as the tier thinks it is, and all well in the end."""
    trap = Trap(point, FAULTS[fault], behind=False)
    with capture_logs():
        async with cache(tmp_path, local=Local()) as kept, asyncio.timeout(20):
            local = kept.local
            assert local is not None
            kept.upstream.publish("team/a", FILLED)
            kept.memory.contents.store(blob_key(Digest.of(STREAMED)), STREAMED)
            kept.memory.contents.store(layer_link(A, Digest.of(STREAMED)), str(Digest.of(STREAMED)).encode())
            kept.upstream.publish("team/a", STREAMED)
            before = _descriptors()
            with monkeypatch.context() as patch:
                trap.set(patch)
                await _scene(kept, local, point)
            assert trap.sprung
            kept.clock.advance(2 * RECHECK)
            for _ in range(3):
                for data in (FILLED, STREAMED):
                    assert await _read(kept, data) == data
                    await _settled(kept, local)
            assert local.degraded() is None
            assert all(one.stamp is not None for one in local._kept.values())
            assert len(local._kept) == 2
            _accounted(local)
            assert _descriptors() <= before + 1
