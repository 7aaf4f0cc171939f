"""The pull-through cache: what is shared by a flight, what is never, and what the store is left with."""

import asyncio
import random
from pathlib import Path

import pytest

from msrcache.oci.errors import BlobUnknown, ContentMismatch, RangeInvalid, UpstreamUnavailable
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import Outcome
from tests.cache.kitchen import B, blob_pull, cache

DATA = random.Random(1).randbytes(300_000)


async def test_a_cold_herd_costs_the_upstream_one_fetch(tmp_path: Path) -> None:
    """However many ask at once, the upstream sends a blob once, and the store has it afterwards."""
    async with cache(tmp_path) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        bodies = await asyncio.gather(*(kept.get(blob_pull(digest)) for _ in range(20)))
        await kept.pulls.settled()
        assert set(bodies) == {DATA}
        assert len(kept.upstream.fetched()) == 1
        assert kept.stored(digest) == DATA
        async with kept.pulls.blob(blob_pull(digest, wanted=RangeRequest(None, 7))) as blob:
            assert blob.outcome is Outcome.HIT
            assert await kept.read(blob) == DATA[-7:]
        assert kept.spool.used == 0
        assert not list(kept.spool.path.iterdir())


async def test_a_fill_is_no_permission_in_another_repository(tmp_path: Path) -> None:
    """Whoever guesses a digest that is being filled for another repository gets what the upstream says there."""
    async with cache(tmp_path) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        kept.upstream.hold_at = 200_000
        async with kept.pulls.blob(blob_pull(digest)) as blob:
            with pytest.raises(BlobUnknown):
                await kept.get(blob_pull(digest, repository=B))
            with pytest.raises(BlobUnknown):
                await kept.pulls.resolve(blob_pull(digest, repository=B))
            assert (await kept.pulls.resolve(blob_pull(digest))).outcome is Outcome.JOINED
            kept.upstream.release.set()
            assert await kept.read(blob) == DATA


async def test_an_impossible_suffix_tells_nothing_before_the_verdict(tmp_path: Path) -> None:
    """bytes=-0 of a stored blob is 416 to those who may read it, and unknown elsewhere."""
    async with cache(tmp_path) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        await kept.get(blob_pull(digest))
        await kept.pulls.settled()
        with pytest.raises(BlobUnknown):
            await kept.get(blob_pull(digest, repository=B, wanted=RangeRequest(None, 0)))
        with pytest.raises(RangeInvalid):
            await kept.get(blob_pull(digest, wanted=RangeRequest(None, 0)))


@pytest.mark.parametrize("wrong", [DATA[:-1] + b"!", DATA[:100] + b"?" + DATA[101:]])
async def test_a_corrupt_body_never_ends_well(tmp_path: Path, wrong: bytes) -> None:
    """Wrong bytes cut every reader and leave nothing in the store or the spool."""
    async with cache(tmp_path) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        kept.upstream.corrupt[digest] = wrong if wrong != DATA else DATA[::-1]
        with pytest.raises(ContentMismatch):
            await kept.get(blob_pull(digest))
        await kept.pulls.settled()
        assert kept.stored(digest) is None
        assert not list(kept.spool.path.iterdir())


async def test_what_came_before_an_outage_is_continued(tmp_path: Path) -> None:
    """An outage cuts the reader; the next fill asks for the rest only."""
    async with cache(tmp_path) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        kept.upstream.breaks[200_000] = UpstreamUnavailable("gone")
        with pytest.raises(UpstreamUnavailable):
            await kept.get(blob_pull(digest))
        await kept.pulls.settled()
        assert kept.stored(digest) is None
        kept.upstream.breaks.clear()
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert kept.upstream.fetched()[-1].range is not None
        assert kept.stored(digest) == DATA
        assert kept.spool.used == 0


async def test_closing_waits_for_nobody_and_strands_nobody(tmp_path: Path) -> None:
    """A fill that is cancelled before its first step still tells those who wait."""
    async with cache(tmp_path) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        fill = kept.pulls.fills.open(blob_pull(digest))
        await kept.pulls.fills.close()
        await kept.pulls.settled()
        assert fill.closed
        assert fill.state == "ended"
        assert kept.pulls.fills.find(digest) is None
