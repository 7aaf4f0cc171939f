"""What this process's fills are to the replicas that follow them: bytes of a spool, and nothing else."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from msrcache.cache.endings import Ending
from msrcache.cache.lease import Follow, Found
from msrcache.oci.digest import Digest
from msrcache.oci.errors import Denied, UpstreamUnavailable
from msrcache.oci.peers import NotFollowed, Sign
from tests.cache.fleet import HOLDER, Wire, holding, leases
from tests.cache.kitchen import Cache, blob_pull, cache
from tests.cache.replicas import DATA, HALF, two_replicas

FOLLOW = Follow(HOLDER)


async def _followed(there: Cache, digest: Digest, start: int = 0, nonce: str = HOLDER.nonce) -> bytes:
    holder = replace(HOLDER, nonce=nonce)
    async with there.pulls.own_fills.follow(digest, holder, start) as blob:
        return await there.read(blob)


async def _sign(there: Cache, digest: Digest, start: int = 0, nonce: str = HOLDER.nonce) -> Sign:
    with pytest.raises(NotFollowed) as caught:
        await _followed(there, digest, start, nonce)
    return caught.value.sign


async def test_another_nonce_is_another_process(tmp_path: Path) -> None:
    """410, whatever is being filled here."""
    async with two_replicas(tmp_path, leases(FOLLOW)) as two:
        assert await _sign(two.a, two.digest, nonce="other") is Sign.REPLACED


async def test_a_lease_without_a_fill_is_told(tmp_path: Path) -> None:
    """404: it may be about to begin."""
    async with cache(tmp_path, leases=holding()) as kept:
        assert await _sign(kept, Digest.of(DATA)) is Sign.NOFILL


async def test_a_fill_is_followed_from_any_byte(tmp_path: Path) -> None:
    """From the first, from the middle, from the last; not from behind it."""
    async with two_replicas(tmp_path, leases(FOLLOW)) as two:
        followers = [asyncio.create_task(_followed(two.a, two.digest, at)) for at in (0, HALF, len(DATA) - 1)]
        assert await _sign(two.a, two.digest, len(DATA)) is Sign.BROKEN
        await two.finished(follower=False)
        assert await asyncio.gather(*followers) == [DATA, DATA[HALF:], DATA[-1:]]


async def test_a_fill_that_breaks_cuts_its_followers(tmp_path: Path) -> None:
    """Whatever broke it; no question is put for them."""
    async with cache(tmp_path, leases=holding()) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        kept.upstream.hold_at = HALF
        kept.upstream.breaks[HALF + 100_000] = UpstreamUnavailable("gone")
        fetching = asyncio.create_task(kept.get(blob_pull(digest)))
        await kept.upstream.reached.wait()
        following = asyncio.create_task(_sign(kept, digest, HALF))
        await asyncio.sleep(0)
        kept.upstream.release.set()
        assert await following is Sign.BROKEN
        with pytest.raises(UpstreamUnavailable):
            await fetching
        assert len(kept.upstream.fetched()) == 1


async def test_a_refusal_of_the_holders_caller_is_nobody_elses(tmp_path: Path) -> None:
    """The follower is told that there is no fill, and asks with its own caller."""
    async with cache(tmp_path, leases=holding()) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        kept.upstream.refused[None] = Denied("not you")
        refused = kept.pulls.fills.open(blob_pull(digest))
        assert await _sign(kept, digest) is Sign.NOFILL
        assert refused.ending is Ending.REFUSED


async def test_an_empty_blob_can_be_followed(tmp_path: Path) -> None:
    """It has no byte that could be held back, and ends when it is verified."""
    async with cache(tmp_path / "a", leases=holding()) as a:
        digest = a.upstream.publish("team/a", b"")
        a.sickness.held = "commit"
        fetching = asyncio.create_task(a.get(blob_pull(digest)))
        await a.sickness.reached.wait()
        turns = leases(FOLLOW, Found())
        wire = Wire(a)
        async with cache(tmp_path / "b", contents=a.memory.contents, leases=turns, peers=wire) as b:
            b.upstream.publish("team/a", b"")
            assert await b.get(blob_pull(digest)) == b""
            a.sickness.release.set()
            await b.pulls.settled()
        assert turns.script.told == ["failed: nofill", "left"], "it had all, and waited for the store"
        assert await fetching == b""
