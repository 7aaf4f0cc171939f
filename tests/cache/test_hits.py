"""Hits: the ledger of requests to the store, and what is learnt from what is found there."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from msrcache.cache.kitchen import FillSettings
from msrcache.cache.layout import blob_key, layer_link
from msrcache.cache.local import LocalTier
from msrcache.cache.redirects import LIFETIME, RedirectSettings
from msrcache.oci.digest import Digest
from msrcache.oci.errors import BlobUnknown, RangeInvalid
from msrcache.oci.pulls import BlobPull
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import Elsewhere, FileSpan, Outcome
from msrcache.storage import memory
from tests.cache.kitchen import A, B, Cache, Local, blob_pull, cache
from tests.stage.bucket import Bucket, bucket

DATA = bytes(range(256)) * 400
DIGEST = Digest.of(DATA)
KEY, LINK = blob_key(DIGEST), layer_link(A, DIGEST)
STREAMING = RedirectSettings(enabled=False)


@pytest.fixture
async def service() -> AsyncIterator[Bucket]:
    """A storage service."""
    async with bucket() as running:
        yield running


async def _url(kept: Cache, pull: BlobPull) -> str:
    """Where the pull is sent."""
    async with kept.pulls.blob(pull) as blob:
        assert isinstance(blob.body, Elsewhere)
        assert blob.outcome is Outcome.HIT
        assert blob.descriptor.size == len(DATA)
        return blob.body.url


async def _fetched(url: str, wanted: str = "") -> tuple[int, bytes]:
    headers = {"Range": wanted} if wanted else {}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.read()


def _stored(kept: Cache, *, linked: bool = True) -> None:
    """Another replica has filled the blob."""
    kept.upstream.publish("team/a", DATA)
    kept.memory.contents.store(KEY, DATA)
    if linked:
        kept.memory.contents.store(LINK, str(DIGEST).encode())


async def test_the_ledger_of_a_redirected_hit(tmp_path: Path, service: Bucket) -> None:
    """Cold belief: one look, and the link. Warm: nothing at all. The service answers Range and the whole."""
    async with cache(tmp_path, service=service) as kept:
        _stored(kept)
        url = await _url(kept, blob_pull(DIGEST, address="192.0.2.1"))
        assert kept.sickness.calls == [f"stat {KEY}", f"open {LINK}"]
        kept.sickness.calls.clear()
        kept.clock.advance(300)
        again = await _url(kept, blob_pull(DIGEST, address="192.0.2.1"))
        assert kept.sickness.calls == []
        assert await _fetched(url) == (200, DATA)
        assert await _fetched(again, "bytes=7-99") == (206, DATA[7:100])
        assert kept.upstream.ledger == []


async def test_the_ledger_of_a_streamed_hit(tmp_path: Path, service: Bucket) -> None:
    """One request, a range as well as the whole; an unknown link one more, a suffix of an unseen blob another."""
    async with cache(tmp_path, service=service, redirecting=STREAMING) as kept:
        _stored(kept)
        for wanted, calls, data in (
            (RangeRequest(None, 5), [f"stat {KEY}", f"open {KEY}", f"open {LINK}"], DATA[-5:]),
            (None, [f"open {KEY}"], DATA),
            (RangeRequest(2, 9), [f"open {KEY}"], DATA[2:10]),
            (RangeRequest(None, 5), [f"open {KEY}"], DATA[-5:]),
        ):
            assert await kept.get(blob_pull(DIGEST, wanted=wanted)) == data
            assert kept.sickness.calls == calls
            kept.sickness.calls.clear()


async def test_a_fill_is_a_sighting(tmp_path: Path, service: Bucket) -> None:
    """What this replica has just stored and seen there is redirected at once, without a request."""
    async with cache(tmp_path, service=service) as kept:
        kept.upstream.publish("team/a", DATA)
        assert await kept.get(blob_pull(DIGEST)) == DATA
        await kept.pulls.settled()
        kept.sickness.calls.clear()
        assert await _fetched(await _url(kept, blob_pull(DIGEST))) == (200, DATA)
        assert kept.sickness.calls == []
        assert len(kept.upstream.ledger) == 1


async def test_head_is_answered_here_and_is_a_sighting(tmp_path: Path, service: Bucket) -> None:
    """A signed URL is for GET alone; what HEAD found is not looked at again."""
    async with cache(tmp_path, service=service) as kept:
        _stored(kept)
        resolution = await kept.pulls.resolve(blob_pull(DIGEST))
        assert (resolution.outcome, resolution.descriptor.size) == (Outcome.HIT, len(DATA))
        kept.sickness.calls.clear()
        await _url(kept, blob_pull(DIGEST))
        assert kept.sickness.calls == []


async def test_a_404_there_is_a_miss_for_who_comes_back(tmp_path: Path, service: Bucket) -> None:
    """Somebody deleted the bucket's objects: one redirect leads nowhere, the retry fills, link and all."""
    async with cache(tmp_path, service=service) as kept:
        _stored(kept)
        await _url(kept, blob_pull(DIGEST, address="192.0.2.1"))
        kept.memory.contents.objects.clear()
        kept.clock.advance(5)
        assert (await _fetched(await _url(kept, blob_pull(DIGEST, address="192.0.2.2"))))[0] == 404
        kept.clock.advance(5)
        assert await kept.get(blob_pull(DIGEST, address="192.0.2.2")) == DATA
        await kept.pulls.settled()
        assert {KEY, LINK} <= set(kept.memory.contents.objects)
        assert await _fetched(await _url(kept, blob_pull(DIGEST, address="192.0.2.2"))) == (200, DATA)


async def test_a_read_that_finds_nothing_ends_the_belief_for_all(tmp_path: Path, service: Bucket) -> None:
    """Not only the one who met it: the next client is looked after too."""
    async with cache(tmp_path, service=service) as kept:
        _stored(kept)
        await _url(kept, blob_pull(DIGEST, address="192.0.2.1"))
        del kept.memory.contents.objects[KEY]
        assert (await kept.pulls.resolve(blob_pull(DIGEST))).outcome is Outcome.MISS
        assert await kept.get(blob_pull(DIGEST, address="192.0.2.9")) == DATA


async def test_nobody_is_sent_before_the_upstream_has_confirmed_the_blob_there(
    tmp_path: Path, service: Bucket
) -> None:
    """A digest is no permission: another repository has no link, and what the upstream says is the answer."""
    async with cache(tmp_path, service=service) as kept:
        _stored(kept)
        await _url(kept, blob_pull(DIGEST))
        with pytest.raises(BlobUnknown):
            await _url(kept, blob_pull(DIGEST, repository=B))
        kept.upstream.publish("team/b", DATA)
        await _url(kept, blob_pull(DIGEST, repository=B))
        await kept.pulls.settled()
        assert layer_link(B, DIGEST) in kept.memory.contents.objects


async def test_a_url_ends(tmp_path: Path, service: Bucket) -> None:
    """After 20 minutes, as Docker Registry's; and it is for its object alone."""
    async with cache(tmp_path, service=service) as kept:
        _stored(kept)
        url = await _url(kept, blob_pull(DIGEST))
        assert (await _fetched(url.replace(DIGEST.hex, "0" * 64)))[0] == 403
        for later, status in ((LIFETIME - 5, 200), (LIFETIME + 5, 403)):
            service.ahead = later
            assert (await _fetched(url))[0] == status


async def test_a_sick_store_is_a_miss_not_a_redirect(tmp_path: Path, service: Bucket) -> None:
    """Warm beliefs do not send clients to a store that fails us: the upstream serves them."""
    async with cache(tmp_path, service=service) as kept:
        _stored(kept)
        await _url(kept, blob_pull(DIGEST))
        kept.sickness.fails = {"stat": "", "open": "", "writer": ""}
        kept.clock.advance(120)
        assert (await kept.pulls.resolve(replace(blob_pull(DIGEST), head=True))).outcome is Outcome.MISS
        assert await kept.get(blob_pull(DIGEST)) == DATA
        assert len(kept.upstream.fetched()) == 1


@pytest.mark.parametrize("wanted", [None, RangeRequest(10, 90_000)])
async def test_a_stream_that_breaks_for_good_goes_on_from_a_fill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: RangeRequest | None
) -> None:
    """A store that goes away under a pull costs one fetch, not the pull."""
    monkeypatch.setattr(memory, "CHUNK", 10_000)
    async with cache(tmp_path, settings=FillSettings(verify_timeout=0)) as kept:
        _stored(kept)
        async with kept.pulls.blob(blob_pull(DIGEST, wanted=wanted)) as blob:
            assert blob.outcome is Outcome.HIT
            assert not isinstance(blob.body, Elsewhere)
            found = b""
            async for chunk in blob.body:
                assert not isinstance(chunk, FileSpan)
                found += chunk
                kept.sickness.fails = {"read": "", "open": ""}
        assert found == DATA[blob.span.start : blob.span.stop]
        assert len(kept.upstream.fetched()) == 1


async def test_beyond_the_end_is_told_after_the_verdict(tmp_path: Path, service: Bucket) -> None:
    """416 tells the size: to those who may read only."""
    async with cache(tmp_path, service=service, redirecting=STREAMING) as kept:
        _stored(kept)
        beyond = RangeRequest(len(DATA), None)
        with pytest.raises(BlobUnknown):
            await kept.get(blob_pull(DIGEST, repository=B, wanted=beyond))
        with pytest.raises(RangeInvalid) as refused:
            await kept.get(blob_pull(DIGEST, wanted=beyond))
        assert refused.value.size == len(DATA)


async def _kept(kept: Cache) -> None:
    """Returns when the hot tier has done its part."""
    assert kept.local is not None
    while kept.local._arriving or kept.local._disk._jobs:
        await asyncio.sleep(0)


async def test_the_ledger_of_a_local_hit(tmp_path: Path) -> None:
    """Once it came in with a stream, the whole and every range of it are a file, and the store is not asked."""
    async with cache(tmp_path, local=Local()) as kept:
        _stored(kept)
        assert await kept.get(blob_pull(DIGEST)) == DATA
        await _kept(kept)
        kept.sickness.calls.clear()
        for wanted, data in (
            (None, DATA),
            (RangeRequest(2, 9), DATA[2:10]),
            (RangeRequest(None, 5), DATA[-5:]),
        ):
            async with kept.pulls.blob(blob_pull(DIGEST, wanted=wanted)) as blob:
                assert (blob.outcome, blob.descriptor.size) == (Outcome.HIT, len(DATA))
                assert not isinstance(blob.body, Elsewhere)
                (part,) = [chunk async for chunk in blob.body]
                assert isinstance(part, FileSpan)
                assert os.pread(part.fd, part.stop - part.start, part.start) == data
        with pytest.raises(RangeInvalid):
            await kept.get(blob_pull(DIGEST, wanted=RangeRequest(len(DATA), None)))
        assert (kept.sickness.calls, kept.upstream.ledger) == ([], [])
        assert kept.metrics.local_hits_total._value.get() == 4


async def test_a_local_file_is_no_permission(tmp_path: Path) -> None:
    """Another repository has no link: the upstream's word first, also for the 416 that tells the size."""
    async with cache(tmp_path, local=Local()) as kept:
        _stored(kept)
        await kept.get(blob_pull(DIGEST))
        await _kept(kept)
        for wanted in (None, RangeRequest(len(DATA), None)):
            with pytest.raises(BlobUnknown):
                await kept.get(blob_pull(DIGEST, repository=B, wanted=wanted))


@pytest.mark.parametrize("sick", [False, True], ids=["store", "upstream"])
async def test_a_local_file_that_cannot_be_read_is_healed_under_its_reader(
    tmp_path: Path, *, sick: bool
) -> None:
    """EIO under sendfile: the rest comes from the store, or from the upstream where that fails too; the file goes."""
    async with cache(tmp_path, local=Local()) as kept:
        _stored(kept)
        await kept.get(blob_pull(DIGEST))
        await _kept(kept)
        async with kept.pulls.blob(blob_pull(DIGEST)) as blob:
            assert blob.resume is not None
            kept.sickness.fails = {"open": KEY} if sick else {}
            assert b"".join([chunk async for chunk in blob.resume(70_000)]) == DATA[70_000:]
        assert len(kept.upstream.fetched()) == sick
        kept.sickness.fails = {}
        kept.sickness.calls.clear()
        await kept.pulls.settled()
        assert await kept.get(blob_pull(DIGEST)) == DATA
        assert f"open {KEY}" in kept.sickness.calls


async def test_fills_feed_the_hot_tier(tmp_path: Path) -> None:
    """A fill of one reader is one use, of two readers two: then the next hit asks the store for nothing."""
    async with cache(tmp_path, local=Local(eager=False)) as kept:
        alone = kept.upstream.publish("team/a", b"x" * 1000)
        assert await kept.get(blob_pull(alone)) == b"x" * 1000
        kept.upstream.publish("team/a", DATA)
        assert {*await asyncio.gather(*(kept.get(blob_pull(DIGEST)) for _ in range(2)))} == {DATA}
        await kept.pulls.settled()
        kept.sickness.calls.clear()
        assert await kept.get(blob_pull(DIGEST)) == DATA
        assert kept.sickness.calls == []
        assert await kept.get(blob_pull(alone)) == b"x" * 1000
        assert kept.sickness.calls == [f"open {blob_key(alone)}"]


async def test_who_is_redirected_needs_no_local_file(tmp_path: Path, service: Bucket) -> None:
    """The store sends it; only what is streamed from here takes local room."""
    async with cache(tmp_path, service=service, local=Local()) as kept:
        _stored(kept)
        await _url(kept, blob_pull(DIGEST))
        assert kept.local is not None
        assert kept.local.used == 0


async def test_a_fill_that_is_given_up_while_it_feeds_the_hot_tier_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has the blob: it is not counted as unstored because its copy took too long."""
    reached = asyncio.Event()

    async def take(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(LocalTier, "take", take)
    async with cache(tmp_path, local=Local()) as kept:
        kept.upstream.publish("team/a", DATA)
        assert await kept.get(blob_pull(DIGEST)) == DATA
        await reached.wait()
        fill = kept.pulls.fills.find(DIGEST)
        assert fill is not None
        fill.give_up()
        await kept.pulls.settled()
        assert kept.stored(DIGEST) == DATA
        assert kept.metrics.unstored_total.labels("slow")._value.get() == 0
