"""Uses are noted in bounded memory and written down; what could not be written is tried again."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path

import pytest

from msrcache.cache.journal import read_journal
from msrcache.cache.layout import USES, blob_key
from msrcache.cache.uses import Journal, Uses
from msrcache.oci.digest import Digest
from msrcache.oci.names import Tag
from msrcache.oci.pulls import ManifestPull
from msrcache.oci.registry import Elsewhere
from msrcache.storage.memory import Contents
from tests.cache.aging import Aging, aging
from tests.cache.kitchen import A, Local, blob_pull, cache
from tests.stage.bucket import Bucket
from tests.stage.upstream import FakeUpstream

DATA = b"redirected" * 20_000
ONE, OTHER, THIRD = (Digest.of(data) for data in (b"1", b"2", b"3"))


def _journal(stage: Aging, uses: Uses) -> Journal:
    return Journal(uses, stage.store, replica="here-00000001", interval=300.0, metrics=stage.metrics)


def _written(stage: Aging) -> list[list[Digest]]:
    objects = stage.memory.contents.objects
    return [read_journal(objects[key].data) for key in stage.keys(USES)]


async def test_each_digest_is_written_once_an_interval() -> None:
    """However often it was used; and nothing is written where nothing was used."""
    async with aging() as stage:
        uses = Uses()
        journal = _journal(stage, uses)
        assert await journal.flush()
        assert stage.keys() == []
        for digest in (ONE, OTHER, ONE):
            uses.note(digest)
        assert await journal.flush()
        assert await journal.flush()
        uses.note(OTHER)
        assert await journal.flush()
        assert _written(stage) == [[ONE, OTHER], [OTHER]]


async def test_what_could_not_be_written_goes_with_the_next() -> None:
    """Under another key: the store may have taken the first, and a janitor read and removed it."""
    async with aging() as stage:
        uses = Uses()
        journal = _journal(stage, uses)
        uses.note(ONE)
        stage.sickness.fails["put"] = "uses/"
        assert not await journal.flush()
        uses.note(OTHER)
        stage.sickness.fails.clear()
        assert await journal.flush()
        assert _written(stage) == [[ONE, OTHER]]
        assert len({call for call in stage.sickness.calls if call.startswith("put")}) == 2


async def test_a_cancelled_flush_loses_nothing() -> None:
    """Whoever cancels it while the store is asked finds all of it noted."""
    async with aging() as stage:
        uses = Uses()
        journal = _journal(stage, uses)
        uses.note(ONE)
        stage.sickness.held = "put"
        flushing = asyncio.create_task(journal.flush())
        await stage.sickness.reached.wait()
        uses.note(OTHER)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        assert uses.taken() == [ONE, OTHER]


def test_memory_is_bounded() -> None:
    """Beyond the limit the uses noted first are lost, and counted."""
    uses = Uses(limit=2)
    for digest in (ONE, OTHER, THIRD):
        uses.note(digest)
    assert (uses.lost, len(uses)) == (1, 2)
    taken = uses.taken()
    uses.note(ONE)
    uses.returned(taken)
    assert (uses.taken(), uses.lost) == ([THIRD, ONE], 2)


async def test_it_is_written_every_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the task that runs beside the pulls."""
    async with aging() as stage:
        uses, slept = Uses(), list[float]()
        uses.note(ONE)

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                raise asyncio.CancelledError

        monkeypatch.setattr(asyncio, "sleep", sleep)
        run: Coroutine[object, object, None] = _journal(stage, uses).run()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert (slept, _written(stage)) == ([300.0] * 3, [[ONE]])


async def test_fills_hits_and_manifests_are_uses(tmp_path: Path) -> None:
    """A blob that came in, the same from the store and from the local folder, a manifest by tag and by digest."""
    upstream = FakeUpstream()
    digest = upstream.publish(str(A), b"layer" * 100)
    async with cache(tmp_path, upstream=upstream, local=Local()) as made:
        uses = made.pulls._kitchen.uses
        await made.get(blob_pull(digest))
        await made.pulls.settled()
        assert uses.taken() == [digest]
        await made.get(blob_pull(digest))
        assert uses.taken() == [digest]
        manifest = upstream.publish_manifest(str(A), "latest", b'{"schemaVersion": 2, "layers": []}')
        for reference in (Tag("latest"), manifest):
            await made.pulls.manifest(ManifestPull(repository=A, reference=reference))
            assert uses.taken() == [manifest]


async def test_a_redirect_is_a_use(tmp_path: Path) -> None:
    """Though its bytes go past the cache."""
    contents = Contents()
    contents.store(blob_key(Digest.of(DATA)), DATA)
    async with cache(tmp_path, service=Bucket(contents, "http://bucket.test")) as made:
        made.upstream.publish(str(A), DATA)
        async with made.pulls.blob(blob_pull(Digest.of(DATA))) as blob:
            assert isinstance(blob.body, Elsewhere)
        assert made.pulls._kitchen.uses.taken() == [Digest.of(DATA)]
