"""A store slower than the upstream: it holds up no pull, what waits for it is bounded, the rest is not stored."""

import asyncio
import random
from pathlib import Path

import pytest

from msrcache.cache.kitchen import FillSettings
from msrcache.oci.digest import Digest
from msrcache.oci.registry import Outcome
from tests.cache.kitchen import Cache, blob_pull, cache

SIZE = 200_000
ONE = FillSettings(concurrency=1, queue=3600.0)
"""One place, and endless patience for it: a fill that kept its place would hang the test."""


def _data(seed: int) -> bytes:
    return random.Random(seed).randbytes(SIZE)


async def _pulled(kept: Cache, seed: int) -> Outcome:
    """Pull a blob whole; how it was answered."""
    digest = kept.upstream.publish("team/a", _data(seed))
    async with kept.pulls.blob(blob_pull(digest)) as blob:
        assert await kept.read(blob) == _data(seed)
        return blob.outcome


def _count(kept: Cache, name: str, **labels: str) -> float:
    return kept.metrics.registry.get_sample_value(f"msrcache_{name}", labels) or 0.0


def _stored(kept: Cache, *seeds: int) -> list[bool]:
    return [kept.stored(Digest.of(_data(seed))) == _data(seed) for seed in seeds]


async def _until_behind(kept: Cache, number: int) -> None:
    async with asyncio.timeout(10):
        while _count(kept, "fills_behind") != number:
            await asyncio.sleep(0)


async def test_a_store_that_takes_for_ever_keeps_no_place(tmp_path: Path) -> None:
    """The first blob waits for its commit; the second has the only place meanwhile, and is a miss like any other."""
    async with cache(tmp_path, settings=ONE) as kept:
        kept.sickness.held = "commit"
        assert await _pulled(kept, 1) is Outcome.MISS
        await kept.sickness.reached.wait()
        assert await _pulled(kept, 2) is Outcome.MISS
        kept.sickness.release.set()
        await kept.pulls.settled()
        assert _stored(kept, 2) == [True]
        assert (_count(kept, "fills_behind"), kept.spool.used) == (0, 0)


async def test_what_lags_longest_is_given_up(tmp_path: Path) -> None:
    """As many as have places may stand behind; one more, and the first of them goes unstored, whole to its readers."""
    async with cache(tmp_path, settings=FillSettings(concurrency=2, queue=3600.0)) as kept:
        kept.sickness.held = "commit"
        for seed in (1, 2):
            await _pulled(kept, seed)
            await _until_behind(kept, seed)
        assert _count(kept, "unstored_total", reason="slow") == 0
        await _pulled(kept, 3)
        await _until_behind(kept, 2)
        assert _count(kept, "unstored_total", reason="slow") == 1
        assert len(kept.memory.contents.staged) == 2
        assert kept.spool.used == 2 * SIZE
        kept.sickness.release.set()
        await kept.pulls.settled()
        assert _stored(kept, 1, 2, 3) == [False, True, True]
        assert await _pulled(kept, 1) is Outcome.MISS
        await kept.pulls.settled()
        assert _stored(kept, 1) == [True]


async def test_a_hundred_pulls_leave_bounded_writers_and_bytes(tmp_path: Path) -> None:
    """However many blobs come while the store stands still: right bytes, and never more than its bounds."""
    async with cache(tmp_path, settings=FillSettings(concurrency=3, queue=3600.0)) as kept:
        kept.sickness.held = "write"
        for seed in range(100):
            await _pulled(kept, seed)
            assert len(kept.memory.contents.staged) <= 2 * 3 + 1
            assert kept.spool.used <= (2 * 3 + 1) * SIZE
        kept.sickness.release.set()
        await kept.pulls.settled()
        assert (kept.memory.contents.staged, kept.spool.used) == ({}, 0)
        assert _count(kept, "unstored_total", reason="slow") == 97
        assert _stored(kept, *range(97, 100)) == [True] * 3


async def test_a_full_spool_makes_room_of_those_behind(tmp_path: Path) -> None:
    """Two blobs stand behind and fill it; the third is no pass: the one behind longest is given up for it."""
    async with cache(tmp_path, spool_size=int(2.5 * SIZE)) as kept:
        kept.sickness.held = "commit"
        for seed in (1, 2):
            await _pulled(kept, seed)
            await _until_behind(kept, seed)
        assert await _pulled(kept, 3) is Outcome.MISS
        assert _count(kept, "unstored_total", reason="slow") == 1
        assert _count(kept, "spool_full_total") == 0
        kept.sickness.release.set()
        await kept.pulls.settled()
        assert _stored(kept, 1, 2, 3) == [False, True, True]


async def test_nothing_is_given_up_in_vain(tmp_path: Path) -> None:
    """Neither for a blob that would not fit all the same, nor where somebody still reads: those are passed through."""
    async with cache(tmp_path, spool_size=int(1.5 * SIZE)) as kept:
        kept.sickness.held = "commit"
        await _pulled(kept, 1)
        await _until_behind(kept, 1)
        large = kept.upstream.publish("team/a", _data(2) * 10)
        async with kept.pulls.blob(blob_pull(large)) as blob:
            assert blob.outcome is Outcome.PASS
            assert await kept.read(blob) == _data(2) * 10
        first = blob_pull(kept.upstream.publish("team/a", _data(1)))
        async with kept.pulls.blob(first) as read:
            assert read.outcome is Outcome.JOINED
            assert await _pulled(kept, 3) is Outcome.PASS
            assert await kept.read(read) == _data(1)
        assert _count(kept, "unstored_total", reason="slow") == 0
        kept.sickness.release.set()
        await kept.pulls.settled()
        assert _stored(kept, 1) == [True]


@pytest.mark.parametrize(
    ("operation", "reason"), [("commit", "failed"), ("writer", "failed"), ("write", "failed")]
)
async def test_what_was_not_stored_is_counted_by_reason(tmp_path: Path, operation: str, reason: str) -> None:
    """Whatever kept it out."""
    async with cache(tmp_path) as kept:
        kept.sickness.fails = {operation: ""}
        await _pulled(kept, 1)
        await kept.pulls.settled()
        assert _count(kept, "unstored_total", reason=reason) == 1


async def test_given_up_while_its_link_is_written(tmp_path: Path) -> None:
    """Stored and checked, the link hangs: giving up ends the fill well all the same."""
    async with cache(tmp_path, settings=ONE) as kept:
        kept.sickness.held = "put"
        await _pulled(kept, 1)
        await kept.sickness.reached.wait()
        await _until_behind(kept, 1)
        assert await _pulled(kept, 2) is Outcome.MISS
        kept.sickness.release.set()
        await kept.pulls.settled()
        assert _stored(kept, 1, 2) == [True, True]
        assert _count(kept, "fills_total", ending="complete") == 2
