"""The janitor: condemns, waits, looks again, deletes; whatever is used meanwhile stays."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from msrcache.cache import ledger
from msrcache.cache.expiry import Terms
from msrcache.cache.janitor import Done, Janitor, Policy, wait_of
from msrcache.cache.layout import CONDEMNED, REPOSITORIES, USES, blob_key, condemned_key
from msrcache.cache.ledger import Blocked, Ledger
from msrcache.oci.digest import Digest
from msrcache.storage.errors import StorageError
from tests.cache.aging import DAY, HOUR, Aging, Meddling, aging

WAIT = HOUR


@dataclass(slots=True)
class Stage:
    """A janitor beside an aging store; `mine` False: its lease is lost."""

    aging: Aging
    terms: Terms
    mine: bool = True

    async def look(self) -> Done:
        """One look, of a janitor that remembers nothing of the one before."""
        policy = Policy(terms=self.terms, wait=WAIT)
        books = Ledger(self.aging.store, replica="here-00000001")
        janitor = Janitor(
            self.aging.store, books, policy, metrics=self.aging.metrics, lost=lambda: not self.mine
        )
        return await janitor.look()

    def stands(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        return blob_key(digest) in self.aging.memory.contents.objects

    def condemned(self, digest: Digest) -> bool:
        """Whether it has a mark."""
        return condemned_key(digest) in self.aging.memory.contents.objects


@asynccontextmanager
async def stage(terms: Terms | None = None) -> AsyncIterator[Stage]:
    """With a ttl of a day."""
    async with aging() as made:
        yield Stage(made, terms or Terms(ttl=DAY))


def test_the_wait_is_longer_than_anything_that_is_believed() -> None:
    """A belief and a URL after it, a use that is written and listed; two intervals until a mark is known everywhere."""
    assert wait_of(belief=600, lifetime=1200, journal=300) == 600 + 1200 + 2 * 300
    assert wait_of(belief=1, lifetime=1, journal=300) == 4 * 300


async def test_what_is_unused_is_condemned_then_deleted() -> None:
    """With its links, its tag and its mark; not before the wait is over."""
    async with stage() as here:
        digest = here.aging.hold(b"one")
        await here.look()
        here.aging.clock.advance(DAY + 1)
        assert (await here.look()).condemned == 1
        assert here.condemned(digest)
        here.aging.clock.advance(WAIT - 10)
        assert (await here.look()).deleted == 0
        here.aging.clock.advance(11)
        done = await here.look()
        assert (done.deleted, done.bytes, done.condemned) == (1, 3, 0)
        assert here.aging.keys(CONDEMNED) == here.aging.keys(REPOSITORIES) == []
        assert not here.stands(digest)
        assert here.aging.metrics.expired_total.labels("blobttl")._value.get() == 1
        assert here.aging.metrics.expired_bytes_total._value.get() == 3


@pytest.mark.parametrize("written", ["before the merge", "after the plan"])
async def test_what_is_used_meanwhile_stays(written: str) -> None:
    """Whether its journal is there when the look begins or only at its end; its mark is removed."""
    async with stage(Terms(ttl=1.0)) as here:
        digest = here.aging.hold(b"one")
        await here.look()
        here.aging.clock.advance(DAY)
        await here.look()
        assert here.condemned(digest)
        here.aging.clock.advance(WAIT + 1)
        if written == "after the plan":
            _when(here, "list", CONDEMNED, lambda: here.aging.use(digest))
        else:
            here.aging.use(digest)
            here.aging.clock.advance(2)
        done = await here.look()
        assert (done.deleted, done.kept) == (0, 1)
        assert here.stands(digest)
        assert not here.condemned(digest)
        assert here.aging.metrics.rescued_total.labels("janitor")._value.get() == 1


def _when(here: Stage, operation: str, below: str, then: Callable[[], object]) -> None:
    """Have something happen before an operation of the store, once."""
    waiting = [then]

    def meddle(name: str, key: str) -> None:
        if name == operation and key.startswith(below.rstrip("/")) and waiting:
            waiting.pop()()

    here.aging.memory.faults = Meddling(meddle)


async def test_a_mark_that_was_removed_saves_the_blob() -> None:
    """A replica rescued it after everything was read: the mark is looked at last of all."""
    async with stage() as here:
        digest, other = here.aging.hold(b"one"), here.aging.hold(b"other")
        await here.look()
        here.aging.clock.advance(DAY + 1)
        await here.look()
        here.aging.clock.advance(WAIT + 1)
        objects = here.aging.memory.contents.objects
        here.aging.memory.contents.lag()  # the listing shows the mark still
        objects.pop(condemned_key(digest))
        done = await here.look()
        assert done.deleted == 1
        assert here.stands(digest)
        assert not here.stands(other)


@pytest.mark.parametrize("operation", ["stat", "delete"])
async def test_what_was_brought_in_anew_stays(operation: str) -> None:
    """Before the janitor looks at it, or, where the service tells versions apart, just before it deletes."""
    async with stage() as here:
        digest = here.aging.hold(b"one")
        await here.look()
        here.aging.clock.advance(DAY + 1)
        await here.look()
        here.aging.clock.advance(WAIT + 1)
        key = blob_key(digest)
        _when(here, operation, key, lambda: here.aging.memory.contents.store(key, b"one"))
        await here.look()
        assert here.stands(digest)
        assert not here.condemned(digest)


async def test_other_terms_let_it_live() -> None:
    """What is condemned and not due any more loses its mark."""
    async with stage() as here:
        digest = here.aging.hold(b"one")
        await here.look()
        here.aging.clock.advance(DAY + 1)
        await here.look()
        here.terms = Terms(ttl=30 * DAY)
        here.aging.clock.advance(WAIT + 1)
        assert (await here.look()).kept == 1
        assert here.stands(digest)
        assert not here.condemned(digest)


async def test_a_mark_of_a_later_version_is_left_alone() -> None:
    """And the blob with it."""
    async with stage() as here:
        digest = here.aging.hold(b"one")
        await here.look()
        here.aging.clock.advance(DAY + 1)
        here.aging.memory.contents.store(condemned_key(digest), b'{"v": 2}')
        here.aging.clock.advance(WAIT + 1)
        assert (await here.look()).deleted == 0
        assert here.stands(digest)
        assert here.condemned(digest)


async def test_whoever_lost_the_lease_stops() -> None:
    """Nothing is condemned or deleted any more; another one goes on."""
    async with stage() as here:
        digest = here.aging.hold(b"one")
        await here.look()
        here.aging.clock.advance(DAY + 1)
        here.mine = False
        assert (await here.look()).condemned == 0
        here.mine = True
        await here.look()
        here.aging.clock.advance(WAIT + 1)
        here.mine = False
        assert (await here.look()).deleted == 0
        assert here.stands(digest)


async def test_a_manifest_goes_with_the_last_of_its_layers() -> None:
    """It stays while a layer was rescued in the last moment, and goes when that goes."""
    async with stage() as here:
        layer, used = here.aging.hold(b"layer"), here.aging.hold(b"used")
        names = [{"digest": str(one), "size": 1, "mediaType": "a/b"} for one in (layer, used)]
        image = here.aging.hold(json.dumps({"schemaVersion": 2, "layers": names}).encode(), manifest=True)
        await here.look()
        here.aging.clock.advance(DAY + 1)
        assert (await here.look()).condemned == 3
        here.aging.clock.advance(WAIT + 1)
        _when(here, "list", CONDEMNED, lambda: here.aging.use(used))
        assert (await here.look()).deleted == 1
        assert [here.stands(one) for one in (layer, used, image)] == [False, True, True]
        for _ in range(2):
            here.aging.clock.advance(DAY + WAIT)
            await here.look()
        assert [here.stands(one) for one in (layer, used, image)] == [False, False, False]


async def test_a_record_that_cannot_be_read_deletes_nothing() -> None:
    """Though marks are ripe."""
    async with stage() as here:
        digest = here.aging.hold(b"one")
        await here.look()
        here.aging.clock.advance(DAY + 1)
        await here.look()
        here.aging.clock.advance(WAIT + 1)
        here.aging.memory.contents.store(USES + "later-00000009/0000000001", b'{"v": 2}\n')
        with pytest.raises(Blocked):
            await here.look()
        assert here.stands(digest)


async def test_a_listing_that_lags_deletes_nothing_that_is_used() -> None:
    """Journals, blobs and marks are listed half a wait late: what is used is there in the end, what is not goes."""
    async with stage(Terms(ttl=WAIT / 4)) as here:
        used, unused = here.aging.hold(b"used"), here.aging.hold(b"unused")
        for _ in range(8):
            here.aging.use(used)
            here.aging.memory.contents.lag()
            here.aging.clock.advance(WAIT / 2)
            await here.look()
            assert here.stands(used)
        assert not here.stands(unused)


SHARDS = 2
"""Of the store in which every call fails once; others would only be listed in vain."""


async def _played(here: Stage, meddle: Callable[[str, str], None]) -> int:
    """A few days in which half of the blobs is used, and each look is meddled with; how many calls that were."""
    blobs = [here.aging.hold(b"blob %d" % number) for number in range(SHARDS)]
    used, calls = blobs[::2], [0]

    def counted(name: str, key: str) -> None:
        calls[0] += 1
        meddle(name, key)

    for number in range(5):
        here.aging.clock.advance(DAY / 2 if number < 3 else WAIT + 1)
        here.aging.use(*used)
        here.aging.memory.faults = Meddling(counted)
        looking = asyncio.create_task(here.look())
        await asyncio.gather(looking, return_exceptions=True)
        here.aging.memory.faults = here.aging.sickness
        assert all(here.stands(one) for one in used)
    for _ in range(2):
        here.aging.clock.advance(DAY + WAIT)
        here.aging.use(*used)
        await here.look()
    assert [here.stands(one) for one in blobs] == [one in used for one in blobs]
    assert here.aging.keys(CONDEMNED) == []
    return calls[0]


@pytest.mark.parametrize("fault", ["fails", "is cancelled"])
@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_look_that_ends_anywhere_is_gone_on_with(
    fault: str, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault at any call: no used blob is lost, and in the end all that is unused has gone, with its mark."""
    shards = tuple(sorted({Digest.of(b"blob %d" % number).hex[:2] for number in range(SHARDS)}))
    monkeypatch.setattr(ledger, "SHARDS", shards)
    async with stage() as here:
        calls = await _played(here, lambda name, key: None)
    for number in range(1, calls + 1, stride):
        left = [number]

        def meddle(name: str, key: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] != 0:
                return
            if fault == "fails":
                raise StorageError("inmemory", key, None, "sick")
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

        async with stage() as here:
            await _played(here, meddle)
