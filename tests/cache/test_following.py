"""Following: one fetch for two replicas, going on at any byte from whatever is left, and nobody's rights but one's own.

Here the lease's turns are written by the test; how they are found is the business of the lease's own tests.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.cache import fill
from msrcache.cache.endings import Ending
from msrcache.cache.fills import PUBLISHED_WITHIN
from msrcache.cache.layout import blob_key, layer_link
from msrcache.cache.lease import Fetch, Follow, Found, Turn
from msrcache.oci.digest import Digest
from msrcache.oci.errors import BlobUnknown
from msrcache.oci.peers import NotFollowed, Sign
from msrcache.oci.pulls import BlobPull
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import Blob, Outcome
from tests.cache.fleet import HOLDER, leases
from tests.cache.kitchen import B, Cache, blob_pull, cache
from tests.cache.replicas import DATA, HALF, Two, two_replicas

FOLLOW = Follow(HOLDER)


async def test_a_follower_streams_what_another_replica_fetches(tmp_path: Path) -> None:
    """The first half is there while the second is not: one fetch, right bytes, and nothing stored twice."""
    async with two_replicas(tmp_path, leases(FOLLOW)) as two:
        async with two.b.pulls.blob(blob_pull(two.digest)) as blob:
            assert blob.outcome is Outcome.FOLLOWED
            first = await _up_to(two.b, blob, HALF // 2)
            assert DATA.startswith(first)
            assert not two.fetching.done()
            await two.finished()
            assert first + await two.b.read(blob) == DATA
        two.turns.script.turns.append(Found())
        await two.b.pulls.settled()
        assert two.fetched_here() == []
        assert two.turns.script.told == ["failed: nofill", *two.turns.script.told[1:]]
        assert "stored" not in two.turns.script.told
        assert two.b.spool.used == 0


async def test_a_broken_fill_is_gone_on_with_from_the_upstream(tmp_path: Path) -> None:
    """The holder's stream breaks at byte k; this replica's turn comes: it asks for bytes=k- and stores the whole."""
    async with two_replicas(tmp_path, leases(FOLLOW, Fetch())) as two:
        two.wire.cut_at = 200_001
        assert await two.b.get(blob_pull(two.digest)) == DATA
        await two.b.pulls.settled()
        (asked,) = two.fetched_here()
        assert asked.range == RangeRequest(200_001, None)
        assert two.turns.script.told == ["failed: broken", "stored", "left"]
        assert two.b.stored(two.digest) == DATA


async def test_a_broken_fill_is_gone_on_with_from_a_new_holder(tmp_path: Path) -> None:
    """The same or another one: from byte k, as often as it breaks."""
    async with two_replicas(tmp_path, leases(FOLLOW)) as two:
        two.wire.cut_at = 100_000
        reading = asyncio.create_task(two.b.get(blob_pull(two.digest)))
        while len(two.wire.starts) < 3:
            await asyncio.sleep(0)
        two.wire.cut_at = None
        await two.finished()
        assert await reading == DATA
        assert set(two.wire.starts) == {0, 100_000}
        assert two.fetched_here() == []


async def test_a_broken_fill_is_gone_on_with_from_the_store(tmp_path: Path) -> None:
    """The holder was cut off, and had stored it all the same."""
    turns = leases(FOLLOW, Found())
    async with two_replicas(tmp_path, turns) as two:
        two.wire.cut_at = 200_001
        two.b.sickness.hides = two.digest.hex

        def seen(turn: Turn) -> None:
            two.b.sickness.hides = two.digest.hex if isinstance(turn, Follow) else None

        turns.script.gate = seen
        await two.b.memory.put(blob_key(two.digest), DATA)
        assert await two.b.get(blob_pull(two.digest)) == DATA
        await two.b.pulls.settled()
        assert two.fetched_here() == []
        assert turns.script.told == ["failed: broken", "left"]


async def test_what_the_store_then_cannot_give_comes_from_the_upstream(tmp_path: Path) -> None:
    """It said that the blob is there, and has nothing: bytes=k- from the upstream, and stored again."""
    turns = leases(FOLLOW, Found())
    async with two_replicas(tmp_path, turns) as two:
        two.wire.cut_at = 200_001
        assert await two.b.get(blob_pull(two.digest)) == DATA
        await two.b.pulls.settled()
        assert [asked.range for asked in two.fetched_here()] == [RangeRequest(200_001, None)]
        assert two.b.stored(two.digest) == DATA


async def test_what_was_stored_meanwhile_is_a_hit(tmp_path: Path) -> None:
    """The second look at the store found it: no fill, no fetch."""
    async with two_replicas(tmp_path, leases(Found())) as two:
        await two.finished(follower=False)
        found = two.b.pulls.fills.open(blob_pull(two.digest))
        async with two.b.pulls.blob(blob_pull(two.digest)) as blob:
            assert blob.outcome is Outcome.HIT
            assert await two.b.read(blob) == DATA
        assert found.ending is Ending.FOUND
        assert two.fetched_here() == []


async def test_a_store_that_only_says_so_makes_no_endless_round(tmp_path: Path) -> None:
    """It shows the blob to the lease and to nobody else: fetched, without asking the fleet once more."""
    async with cache(tmp_path, leases=leases(Found())) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        assert await kept.get(blob_pull(digest)) == DATA
        assert len(kept.upstream.fetched()) == 1


async def test_a_holder_that_died_over_its_last_byte_is_succeeded_without_a_fetch(tmp_path: Path) -> None:
    """All bytes are here and verified, the store has nothing: whoever has the whole spool stores it."""
    turns = leases(FOLLOW, FOLLOW, Fetch())
    gate = asyncio.Event()
    turns.script.gate = lambda turn: gate if isinstance(turn, Fetch) else None
    async with two_replicas(tmp_path, turns) as two:
        reading = asyncio.create_task(two.b.get(blob_pull(two.digest)))
        await two.finished()
        assert await reading == DATA
        two.b.memory.contents.objects.pop(blob_key(two.digest))
        gate.set()
        await two.b.pulls.settled()
        assert two.fetched_here() == []
        assert two.b.stored(two.digest) == DATA
        assert two.turns.script.told == ["failed: nofill", "failed: nofill", "stored", "left"]


@asynccontextmanager
async def _watching_the_store(path: Path) -> AsyncIterator[Two]:
    """The second one has all of it, has given it to its client, and watches until the first has stored it: for ever."""
    turns = leases(FOLLOW, Found())
    never = asyncio.Event()
    turns.script.gate = lambda turn: never if isinstance(turn, Found) else None
    async with two_replicas(path, turns) as two:
        reading = asyncio.create_task(two.b.get(blob_pull(two.digest)))
        await two.finished()
        assert await reading == DATA
        await turns.script.asked.wait()
        yield two


async def test_a_follower_that_waits_for_the_store_gives_its_room_away(tmp_path: Path) -> None:
    """It is one of those behind (backlog): given up, it watches no longer, and nobody's pull is cut."""
    async with _watching_the_store(tmp_path) as two:
        waiting = two.b.pulls.fills.find(two.digest)
        assert waiting is not None
        assert waiting.reserved == len(DATA)
        waiting.give_up()
        await two.b.pulls.settled()
        assert two.b.spool.used == 0
        assert two.turns.script.told[-1] == "left"


async def test_leaving_waits_for_no_store_that_another_replica_writes_to(tmp_path: Path) -> None:
    """All of it is here and somebody else stores it: a drain is not held up by that."""
    async with _watching_the_store(tmp_path) as two:
        async with asyncio.timeout(PUBLISHED_WITHIN / 2):
            await two.b.pulls.close()
        assert two.turns.script.told == ["failed: nofill", "left"]


async def test_a_holder_that_neither_beats_nor_sends_is_left(tmp_path: Path) -> None:
    """It stopped at HALF and its beat is old: the turn goes on, at byte HALF."""
    turns = leases(FOLLOW, Fetch())
    async with two_replicas(tmp_path, turns) as two:
        turns.script.silent.set()
        assert await two.b.get(blob_pull(two.digest)) == DATA
        (asked,) = two.fetched_here()
        assert asked.range is not None
        assert asked.range.first is not None
        assert HALF // 2 < asked.range.first <= HALF
        assert turns.script.told[0] == "failed: broken"


@pytest.mark.parametrize("sign", [Sign.UNREACHED, Sign.REPLACED, Sign.NOFILL])
async def test_what_was_seen_of_the_holder_is_told_to_the_lease(tmp_path: Path, sign: Sign) -> None:
    """It alone knows what that means."""
    turns = leases(FOLLOW, Fetch())
    async with two_replicas(tmp_path, turns) as two:
        two.wire.refuses = NotFollowed(sign, "no")
        assert await two.b.get(blob_pull(two.digest)) == DATA
        assert turns.script.told[0] == f"failed: {sign}"


async def test_another_size_is_not_the_rest(tmp_path: Path) -> None:
    """A replica that gives the blob another size is not followed any further."""
    turns = leases(FOLLOW, FOLLOW, Fetch())
    async with two_replicas(tmp_path, turns) as two:
        two.wire.cut_at = 100_000
        reading = asyncio.create_task(two.b.get(blob_pull(two.digest)))
        while len(two.wire.starts) < 1:
            await asyncio.sleep(0)
        two.wire.size = 7
        assert await reading == DATA
        assert turns.script.told[:2] == ["failed: broken", "failed: broken"]


async def test_without_a_peer_port_the_lease_is_waited_for(tmp_path: Path) -> None:
    """A holder without an address is told to the lease like one that broke."""
    turns = leases(FOLLOW, Fetch())
    async with cache(tmp_path, leases=turns) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert turns.script.told == ["failed: broken", "stored", "left"]


async def test_clients_of_a_fill_that_cannot_be_followed_are_told_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers come while the lease is waited for: from the upstream's HEAD, which is the opener's own question."""
    monkeypatch.setattr(fill, "ANNOUNCED", 0.0)
    turns, gate = leases(FOLLOW, Fetch()), asyncio.Event()
    turns.script.gate = lambda turn: gate if isinstance(turn, Fetch) else None
    async with cache(tmp_path, leases=turns) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        async with kept.pulls.blob(blob_pull(digest)) as blob:
            assert (blob.outcome, blob.descriptor.size) == (Outcome.MISS, len(DATA))
            assert [pull.head for pull in kept.upstream.ledger if isinstance(pull, BlobPull)] == [True]
            gate.set()
            assert await kept.read(blob) == DATA
        with pytest.raises(BlobUnknown):
            await kept.get(blob_pull(Digest.of(b"nobody has it")))


# Rights: a followed fill shares bytes, never a permission.


async def test_a_follower_asks_with_its_own_right(tmp_path: Path) -> None:
    """Another replica's caller may read it; this one's may not, and gets what the upstream says."""
    async with two_replicas(tmp_path, leases(FOLLOW)) as two:
        pull = blob_pull(two.digest, repository=B)
        with pytest.raises(BlobUnknown):
            await two.b.get(pull)
        assert await _admitted(two.b, two.digest)
        with pytest.raises(BlobUnknown):
            await two.b.get(pull)
        assert two.fetched_here() == []


async def test_who_joins_a_followed_fill_is_vouched_for_by_nobody(tmp_path: Path) -> None:
    """In the repository of the one who opened it as well: that one's own question may still be open."""
    async with two_replicas(tmp_path, leases(FOLLOW)) as two:
        two.b.upstream.blobs.clear()
        opener = asyncio.create_task(two.b.get(blob_pull(two.digest)))
        joiner = asyncio.create_task(two.b.get(blob_pull(two.digest)))
        for asked in (opener, joiner):
            with pytest.raises(BlobUnknown):
                await asked


async def test_a_followed_blob_is_linked_by_its_own_callers_question(tmp_path: Path) -> None:
    """The holder links the repository that it was asked in, the follower the one that it was."""
    async with two_replicas(tmp_path, leases(FOLLOW)) as two:
        two.b.upstream.publish("team/b", DATA)
        reading = asyncio.create_task(two.b.get(blob_pull(two.digest, repository=B)))
        await two.finished()
        assert await reading == DATA
        assert layer_link(B, two.digest) in two.b.memory.contents.objects


async def _up_to(kept: Cache, blob: Blob, count: int) -> bytes:
    """At least so many of its bytes."""
    data = b""
    assert hasattr(blob.body, "__anext__")
    while len(data) < count:
        chunk = await anext(blob.body)
        data += b"".join([piece async for piece in kept.spool.read(chunk)])  # type: ignore[arg-type]
    return data


async def _admitted(kept: Cache, digest: Digest) -> bool:
    """Whether one who may read it in the first repository can open it there."""
    async with kept.pulls.blob(blob_pull(digest)) as blob:
        return blob.descriptor.size == len(DATA)
