"""The ledger: journals merged into what is known, by the store's own clock."""

import pytest

from msrcache.cache.expiry import Holdings
from msrcache.cache.journal import UseRecord, read_merged
from msrcache.cache.layout import MERGED, SHARDS, USES, merged_key
from msrcache.cache.ledger import Blocked, Ledger
from msrcache.oci.digest import Digest
from msrcache.storage.errors import StorageError
from tests.cache.aging import DAY, HOUR, Aging, aging


def _ledger(stage: Aging) -> Ledger:
    return Ledger(stage.store, replica="here-00000001")


async def _merged(stage: Aging) -> Holdings:
    ledger = _ledger(stage)
    return await ledger.holdings(await ledger.used(), now=await ledger.moment(), write=True)


def _records(stage: Aging) -> dict[Digest, UseRecord]:
    found: dict[Digest, UseRecord] = {}
    for key in stage.keys(MERGED):
        found |= read_merged(stage.memory.contents.objects[key].data)
    return found


async def test_the_moment_is_the_stores() -> None:
    """Whatever the clock here says; nothing is left behind."""
    async with aging() as stage:
        before = stage.clock.time()
        stage.clock.advance(DAY)
        assert before + DAY == pytest.approx(await _ledger(stage).moment(), abs=1)
        assert stage.keys() == []


async def test_a_use_is_as_old_as_its_journal() -> None:
    """What no journal names was first seen now; journals go once they are merged, records of what has gone go too."""
    async with aging() as stage:
        used, unused, gone = (stage.hold(data) for data in (b"used", b"unused", b"gone"))
        stage.clock.advance(DAY)
        stage.use(used, gone)
        stage.use(used, replica="there-00000002")
        first = stage.clock.time()
        stage.clock.advance(HOUR)
        assert len(await _merged(stage)) == 3
        seen = _records(stage)
        assert {digest: record.used for digest, record in seen.items()} == pytest.approx(
            dict.fromkeys((used, unused, gone), stage.clock.time()), abs=1
        )
        del first
        assert [key for key in stage.keys(USES) if not key.startswith(MERGED)] == []
        stage.clock.advance(HOUR)
        stage.use(used)
        later = stage.clock.time()
        stage.memory.contents.objects = {
            key: found for key, found in stage.memory.contents.objects.items() if gone.hex not in key
        }
        stage.clock.advance(HOUR)
        await _merged(stage)
        now = _records(stage)
        assert set(now) == {used, unused}
        assert now[unused] == seen[unused]
        assert now[used].used == pytest.approx(later, abs=1)


async def test_looking_writes_nothing() -> None:
    """A dry run leaves journals and records as they were."""
    async with aging() as stage:
        used = stage.hold(b"used")
        await _merged(stage)
        stage.clock.advance(DAY)
        stage.use(used)
        before = dict(stage.memory.contents.objects)
        ledger = _ledger(stage)
        found = await ledger.holdings(await ledger.used(), now=await ledger.moment(), write=False)
        assert found.record(0).used == pytest.approx(stage.clock.time(), abs=1)
        assert stage.memory.contents.objects == before


async def test_a_shard_that_did_not_change_is_not_written_again() -> None:
    """An idle store costs no writes but the one that asks for the time."""
    async with aging() as stage:
        stage.hold(b"one")
        await _merged(stage)
        del stage.sickness.calls[:]
        await _merged(stage)
        assert [call.split("/")[1] for call in stage.sickness.calls if call.startswith("put")] == ["probe"]


@pytest.mark.parametrize("data", [b"torn", b'{"v": 2}\n'])
async def test_a_record_that_cannot_be_read_blocks(data: bytes) -> None:
    """A journal or a merged one, torn or of a later version; the message names it."""
    async with aging() as stage:
        digest = stage.hold(b"one")
        for key in (stage.use(digest), merged_key(digest.hex[:2])):
            stage.memory.contents.store(key, data)
            with pytest.raises(Blocked, match=key):
                await _merged(stage)
            stage.memory.contents.objects.pop(key)
        assert len(await _merged(stage)) == 1


async def test_a_listing_that_lags_costs_nothing() -> None:
    """A journal that was merged and is listed still; a blob that is not listed yet counts as used when it is."""
    async with aging() as stage:
        one = stage.hold(b"one")
        stage.use(one)
        stage.memory.contents.lag()
        await _merged(stage)
        assert len(await _merged(stage)) == 1
        other = stage.hold(b"other")
        stage.use(other)
        stage.clock.advance(DAY)
        assert len(await _merged(stage)) == 1
        stage.memory.contents.catch_up()
        await _merged(stage)
        assert _records(stage)[other].used == pytest.approx(stage.clock.time(), abs=1)


@pytest.mark.parametrize("operation", ["put", "list", "open", "delete"])
async def test_a_store_that_fails_ends_the_look(operation: str) -> None:
    """And what was not merged is there the next time."""
    async with aging() as stage:
        one = stage.hold(b"one")
        await _merged(stage)
        stage.clock.advance(DAY)
        stage.use(one)
        used = stage.clock.time()
        where = {"put": MERGED, "list": "", "open": MERGED, "delete": USES}[operation]
        stage.sickness.fails[operation] = where
        with pytest.raises(StorageError):
            await _merged(stage)
        stage.sickness.fails.clear()
        stage.clock.advance(DAY)
        await _merged(stage)
        assert _records(stage)[one].used == pytest.approx(used, abs=1)


async def test_it_tells_how_far_it_is() -> None:
    """What is done, how much, and of how much."""
    async with aging() as stage:
        stage.use(stage.hold(b"one"))
        told: list[tuple[str, int, int]] = []
        ledger = Ledger(stage.store, replica="here", progress=lambda *row: told.append(row))
        await ledger.holdings(await ledger.used(), now=0.0, write=False)
        assert told[0] == ("journals read", 0, 1)
        assert told[-1] == ("blobs listed", 255, len(SHARDS))
