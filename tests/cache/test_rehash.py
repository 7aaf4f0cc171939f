"""Stored objects are hashed once more; what is wrong is told, or removed."""

import asyncio
import json
from pathlib import Path

import pytest

from msrcache.cache.layout import blob_key, quarantine_key
from msrcache.cache.rehash import Looked, Pace, held, rehashed
from msrcache.oci.digest import Digest
from msrcache.storage.filesystem import Filesystem
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.aging import Aging, Meddling, aging
from tests.stage.clock import FakeClock


async def _all(stage: Aging, *, after: Digest | None = None, repair: bool = False) -> list[Looked]:
    pace = Pace(0, stage.clock)
    return [one async for one in rehashed(stage.store, pace=pace, after=after, repair=repair)]


def _spoil(stage: Aging, digest: Digest) -> None:
    stage.memory.contents.store(blob_key(digest), b"spoilt")


async def test_everything_is_hashed_in_order() -> None:
    """sha256 and sha512, what is right and what is not; nothing is written."""
    async with aging() as stage:
        digests = [stage.hold(b"%d" % number) for number in range(20)]
        long = Digest.of(b"long", "sha512")
        stage.memory.contents.store(blob_key(long), b"long")
        _spoil(stage, digests[3])
        before = dict(stage.memory.contents.objects)
        found = await _all(stage)
        assert [one.digest for one in found] == [*sorted(digests, key=str), long]
        assert [(one.digest, one.wrong) for one in found if one.wrong] == [
            (digests[3], f"holds other bytes, those of {Digest.of(b'spoilt')}")
        ]
        assert stage.memory.contents.objects == before
        assert await held(stage.store) == (21, sum(one.size for one in found))


async def test_it_can_be_gone_on_with_anywhere() -> None:
    """What is behind a digest is exactly what would have come."""
    async with aging() as stage:
        for number in range(20):
            stage.hold(b"%d" % number)
        stage.memory.contents.store(blob_key(Digest.of(b"long", "sha512")), b"long")
        whole = await _all(stage)
        for place in (0, 7, 19, 20):
            assert await _all(stage, after=whole[place].digest) == whole[place + 1 :]


async def test_what_is_wrong_is_removed_on_demand() -> None:
    """And written down: when it was stored, and what was found."""
    async with aging() as stage:
        right, wrong = stage.hold(b"right"), stage.hold(b"wrong")
        _spoil(stage, wrong)
        assert [one.removed for one in await _all(stage, repair=True) if one.wrong] == [True]
        objects = stage.memory.contents.objects
        assert (blob_key(wrong) in objects, blob_key(right) in objects) == (False, True)
        record = json.loads(objects[quarantine_key(wrong)].data)
        assert (record["v"], record["size"]) == (1, 6)
        assert str(Digest.of(b"spoilt")) in record["found"]
        assert await _all(stage, repair=True) == [Looked(right, 5)]


async def test_what_was_replaced_meanwhile_stays() -> None:
    """Somebody has brought it in again between the look and the removal."""
    async with aging() as stage:
        digest = stage.hold(b"right")
        _spoil(stage, digest)

        def replace(operation: str, key: str) -> None:
            if operation == "stat":
                stage.memory.contents.store(blob_key(digest), b"right")

        stage.memory.faults = Meddling(replace)
        assert [(bool(one.wrong), one.removed) for one in await _all(stage, repair=True)] == [(True, False)]
        assert stage.memory.contents.objects[blob_key(digest)].data == b"right"


async def test_what_cannot_be_read_is_told() -> None:
    """It is not removed for it; what has gone meanwhile is no trouble."""
    async with aging() as stage:
        sick, gone = stage.hold(b"sick"), stage.hold(b"gone")
        stage.memory.contents.lag()
        del stage.memory.contents.objects[blob_key(gone)]
        stage.sickness.fails["open"] = sick.hex
        found = {one.digest: one for one in await _all(stage, repair=True)}
        assert found[sick].wrong.startswith("cannot be read")
        assert not found[sick].removed
        assert found[gone] == Looked(gone, 0)


async def test_files_are_read_where_they_lie(tmp_path: Path) -> None:
    """Piece by piece, and one that became shorter is wrong."""
    store = Store(Filesystem(tmp_path), metrics=Metrics(), clock=FakeClock())
    try:
        data = b"x" * (3 << 20)
        digest = Digest.of(data)
        await store.put(blob_key(digest), data)
        pace = Pace(0, FakeClock())
        assert [one async for one in rehashed(store, pace=pace, after=None, repair=False)] == [
            Looked(digest, len(data))
        ]
        (tmp_path / blob_key(digest)).write_bytes(data[:-1])
        found = [one async for one in rehashed(store, pace=pace, after=None, repair=True)]
        assert [(bool(one.wrong), one.removed) for one in found] == [(True, True)]
    finally:
        await store.close()


async def test_it_leaves_room_for_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a rate of 100 a second a thousand bytes take nine seconds and the one that was free; 0 is no limit."""
    clock, slept = FakeClock(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    for rate in (100, 0):
        pace = Pace(rate, clock)
        clock.advance(60)
        for _ in range(10):
            await pace.read(100)
    assert sum(slept) == pytest.approx(9.0)
