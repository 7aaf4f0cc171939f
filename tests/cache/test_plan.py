"""The plan: pins, fills under way and manifests, as the store tells them."""

import json
import re

from msrcache.cache.expiry import Terms, Why
from msrcache.cache.layout import LEASES, blob_key
from msrcache.cache.ledger import Ledger
from msrcache.cache.plan import planned
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository
from tests.cache.aging import DAY, Aging, aging
from tests.cache.kitchen import A, B

TERMS = Terms(ttl=DAY)


def _image(*layers: Digest) -> bytes:
    entries = [{"mediaType": "application/octet-stream", "digest": str(one), "size": 1} for one in layers]
    return json.dumps({"schemaVersion": 2, "layers": entries}).encode()


def _index(*manifests: Digest) -> bytes:
    entries = [{"mediaType": "application/x", "digest": str(one), "size": 1} for one in manifests]
    return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


async def _planned(stage: Aging, terms: Terms = TERMS, *, pins: tuple[str, ...] = ()) -> list[Digest]:
    ledger = Ledger(stage.store, replica="here")
    now = await ledger.moment()
    found = await ledger.holdings(await ledger.used(), now=now, write=True)
    patterns = [re.compile(pin) for pin in pins]
    plan = await planned(stage.store, found, terms, pins=patterns, now=now, progress=lambda *_: None)
    assert all(one.why is Why.TTL or terms.budget for one in plan.due)
    return [one.digest for one in plan.due]


async def test_what_is_ten_days_old_and_unknown_is_not_due() -> None:
    """The first look at a store without journals finds nothing, whatever the terms; the ttl counts from it."""
    async with aging() as stage:
        held = {stage.hold(data) for data in (b"one", b"other")}
        stage.clock.advance(10 * DAY)
        assert await _planned(stage, Terms(ttl=DAY, budget=1)) == []
        stage.clock.advance(DAY - 1)
        assert await _planned(stage) == []
        stage.clock.advance(2)
        assert set(await _planned(stage)) == held


async def test_a_pinned_repository_keeps_its_content() -> None:
    """Wherever else it was pulled through; a pattern has to match the whole name."""
    async with aging() as stage:
        pinned, shared, other = (stage.hold(data) for data in (b"pinned", b"shared", b"other"))
        stage.hold(b"shared", repository=B)
        elsewhere = stage.hold(b"elsewhere", repository=Repository.parse("team/abc"))
        stage.hold(b"other", repository=Repository.parse("x/team/a"))
        await _planned(stage)
        stage.clock.advance(2 * DAY)
        assert set(await _planned(stage, pins=(str(A),))) == {elsewhere}
        assert set(await _planned(stage, pins=("no", str(B)))) == {pinned, other, elsewhere}
        assert await _planned(stage, pins=("team/a.*",)) == []
        assert shared not in await _planned(stage, pins=(str(B),))


async def test_what_is_being_filled_stays() -> None:
    """A lease on it says so; a named lease is of no blob."""
    async with aging() as stage:
        one, other = stage.hold(b"one"), stage.hold(b"other")
        await _planned(stage)
        stage.memory.contents.store(f"{LEASES}sha256/{one.hex}/3", b"{}")
        stage.memory.contents.store(f"{LEASES}named/janitor/0", b"{}")
        stage.clock.advance(2 * DAY)
        assert await _planned(stage) == [other]


async def test_manifests_go_after_what_they_name() -> None:
    """Layers first, then manifests, then indexes; and a manifest stays as long as one of its layers does."""
    async with aging() as stage:
        layer, used = stage.hold(b"layer"), stage.hold(b"used layer")
        image = stage.hold(_image(layer), manifest=True)
        index = stage.hold(_index(image, Digest.of(b"never pulled")), manifest=True)
        kept = stage.hold(_image(layer, used), manifest=True)
        above = stage.hold(_index(kept), manifest=True)
        await _planned(stage)
        stage.clock.advance(2 * DAY)
        stage.use(used)
        assert await _planned(stage) == [layer, image, index]
        stage.clock.advance(2 * DAY)
        assert set(await _planned(stage)) == {layer, used, image, index, kept, above}


async def test_a_manifest_that_is_none_names_nothing() -> None:
    """Whatever another program linked as one, or what has gone."""
    async with aging() as stage:
        odd = stage.hold(b"no manifest", manifest=True)
        gone = stage.hold(_image(), manifest=True)
        await _planned(stage)
        stage.clock.advance(2 * DAY)
        del stage.memory.contents.objects[blob_key(gone)]
        assert await _planned(stage) == [odd]


async def test_the_longest_unused_go_where_there_is_too_much() -> None:
    """Down to nine tenths, and of what an adopted store holds the oldest first."""
    async with aging() as stage:
        old = [stage.hold(bytes([number]) * 10) for number in range(9)]
        fresh = stage.hold(b"x" * 10)
        await _planned(stage)
        stage.clock.advance(DAY)
        stage.use(old[0], fresh)
        assert await _planned(stage, Terms(budget=100)) == []
        assert await _planned(stage, Terms(budget=99)) == old[1:3]
        assert await _planned(stage, Terms(budget=50)) == old[1:7]
        assert await _planned(stage, Terms(budget=1)) == [*old[1:], old[0], fresh][: len(old) + 1]
