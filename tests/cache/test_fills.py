"""Fills together: one a digest, bounded in number, stopped when nobody wants them."""

import asyncio
import random
from pathlib import Path

import pytest

from msrcache.cache.endings import Ending, FillLeft
from msrcache.cache.fill import Fill
from msrcache.cache.kitchen import FillSettings
from msrcache.oci.digest import Digest
from msrcache.oci.errors import BlobUnknown
from msrcache.oci.registry import Outcome
from tests.cache.kitchen import Cache, blob_pull, cache

DATA = random.Random(6).randbytes(200_000)
OTHER = DATA[::-1]


async def _held_fill(kept: Cache) -> Fill:
    """A fill that has its place and waits in the middle of its body."""
    kept.upstream.hold_at = 100_000
    fill = kept.pulls.fills.open(blob_pull(kept.upstream.publish("team/a", DATA)))
    await kept.upstream.reached.wait()
    return fill


async def test_a_fill_is_found_while_it_runs(tmp_path: Path) -> None:
    """By its digest, from its opening to its end; then no more."""
    async with cache(tmp_path) as kept:
        fill = await _held_fill(kept)
        assert kept.pulls.fills.find(fill.digest) is fill
        assert kept.pulls.fills.find(Digest.of(OTHER)) is None
        kept.upstream.release.set()
        await kept.pulls.fills.settled()
        assert fill.ending is Ending.COMPLETE
        assert kept.pulls.fills.find(fill.digest) is None
        assert kept.pulls.fills.ended == 1


async def test_the_rows_tell_what_is_going_on(tmp_path: Path) -> None:
    """Who looks at night sees digest, repository, state, size, bytes and readers."""
    async with cache(tmp_path) as kept:
        fill = await _held_fill(kept)
        async with fill.held():
            (row,) = kept.pulls.fills.rows()
            assert row["digest"] == str(fill.digest)
            assert row["repository"] == "team/a"
            assert (row["state"], row["size"], row["readers"]) == ("filling", len(DATA), 1)
        kept.upstream.release.set()
        await kept.pulls.fills.settled()
        assert not kept.pulls.fills.rows()


async def test_no_more_than_allowed_run_at_once(tmp_path: Path) -> None:
    """The second waits for its turn, has not asked the upstream, and ends well."""
    async with cache(tmp_path, settings=FillSettings(concurrency=1)) as kept:
        await _held_fill(kept)
        digest = kept.upstream.publish("team/a", OTHER)
        second = asyncio.create_task(kept.get(blob_pull(digest)))
        await asyncio.wait({second}, timeout=0)
        assert [row["state"] for row in kept.pulls.fills.rows()] == ["filling", "queued"]
        assert len(kept.upstream.fetched()) == 1
        kept.upstream.release.set()
        assert await second == OTHER


async def test_who_waits_too_long_is_passed_through(tmp_path: Path) -> None:
    """No place in time: straight from the upstream, and the fill that nobody waits for is dropped."""
    async with cache(tmp_path, settings=FillSettings(concurrency=1, queue=0)) as kept:
        await _held_fill(kept)
        kept.upstream.hold_at = None
        digest = kept.upstream.publish("team/a", OTHER)
        async with kept.pulls.blob(blob_pull(digest)) as blob:
            assert blob.outcome is Outcome.PASS
            assert await kept.read(blob) == OTHER
        assert kept.pulls.fills.find(digest) is None
        kept.upstream.release.set()
        await kept.pulls.settled()
        assert kept.stored(digest) is None


async def test_a_queued_fill_that_somebody_waits_for_stays(tmp_path: Path) -> None:
    """Dismissed by one, held by another: it keeps its place."""
    async with cache(tmp_path, settings=FillSettings(concurrency=1)) as kept:
        await _held_fill(kept)
        queued = kept.pulls.fills.open(blob_pull(kept.upstream.publish("team/a", OTHER)))
        async with queued.held():
            kept.pulls.fills.dismiss(queued)
            assert kept.pulls.fills.find(queued.digest) is queued
        kept.pulls.fills.dismiss(queued)
        assert kept.pulls.fills.find(queued.digest) is None
        with pytest.raises(FillLeft):
            await queued.opened()
        kept.upstream.release.set()


async def test_a_fill_without_readers_goes_on(tmp_path: Path) -> None:
    """The one who opened it left: the blob comes in all the same."""
    async with cache(tmp_path) as kept:
        kept.upstream.hold_at = 100_000
        digest = kept.upstream.publish("team/a", DATA)
        reader = asyncio.create_task(kept.get(blob_pull(digest)))
        await kept.upstream.reached.wait()
        reader.cancel()
        await asyncio.wait({reader})
        kept.upstream.release.set()
        await kept.pulls.settled()
        assert kept.stored(digest) == DATA
        assert kept.spool.used == 0


async def test_a_fill_that_nobody_reads_and_nothing_feeds_is_stopped(tmp_path: Path) -> None:
    """It ends as left, its file is kept, and the next fill asks for the rest."""
    async with cache(tmp_path, settings=FillSettings(abandon=0)) as kept:
        kept.upstream.hold_at = 100_000
        fill = kept.pulls.fills.open(blob_pull(kept.upstream.publish("team/a", DATA)))
        async with fill.held():
            await kept.upstream.reached.wait()
        await kept.pulls.fills.settled()
        assert fill.ending is Ending.LEFT
        kept.upstream.hold_at = None
        assert await kept.get(blob_pull(fill.digest)) == DATA
        assert kept.upstream.fetched()[-1].range is not None


async def test_a_fill_that_fails_gives_its_place_back(tmp_path: Path) -> None:
    """However fills end, the next ones find room."""
    async with cache(tmp_path, settings=FillSettings(concurrency=1)) as kept:
        for number in range(3):
            with pytest.raises(BlobUnknown):
                await kept.get(blob_pull(Digest.of(b"absent %d" % number)))
        assert await kept.get(blob_pull(kept.upstream.publish("team/a", DATA))) == DATA


async def test_leaving_waits_for_what_is_all_here(tmp_path: Path) -> None:
    """A blob on its way into the store gets there before the process ends."""
    async with cache(tmp_path) as kept:
        kept.sickness.held = "commit"
        digest = kept.upstream.publish("team/a", DATA)
        fill = kept.pulls.fills.open(blob_pull(digest))
        await kept.sickness.reached.wait()
        await _until_publishing(fill)
        closing = asyncio.create_task(kept.pulls.fills.close())
        await asyncio.wait({closing}, timeout=0)
        kept.sickness.release.set()
        await closing
        assert kept.stored(digest) == DATA
        assert fill.ending is Ending.COMPLETE


async def _until_publishing(fill: Fill) -> None:
    async with asyncio.timeout(10):
        while fill.state != "publishing":
            await asyncio.sleep(0)


async def test_leaving_keeps_what_has_come(tmp_path: Path) -> None:
    """A fill in the middle is stopped; its file waits for the next start."""
    async with cache(tmp_path) as kept:
        fill = await _held_fill(kept)
        await kept.pulls.fills.close()
        assert fill.ending is Ending.LEFT
        assert len(list(kept.spool.path.iterdir())) == 1
        assert kept.stored(fill.digest) is None
    async with cache(tmp_path) as again:
        again.upstream.publish("team/a", DATA)
        assert await again.get(blob_pull(fill.digest)) == DATA
        assert again.upstream.fetched()[0].range is not None
