"""Freshness: the upstream's word by default, an old answer only where rules allow it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from msrcache.cache.freshness import Freshness, FreshnessSettings
from msrcache.cache.links import Links
from msrcache.oci.digest import Digest
from msrcache.oci.errors import Denied, ManifestUnknown, Unauthorized, UpstreamUnavailable
from msrcache.oci.names import Repository, Tag
from msrcache.oci.pulls import BlobPull, ManifestPull, Pull
from msrcache.oci.registry import SERVICE, Credential, Resolution, Right
from msrcache.storage.memory import Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import A
from tests.stage.clock import FakeClock
from tests.stage.upstream import FakeUpstream

OLD, NEW = b'{"schemaVersion": 2, "layers": []}', b'{"schemaVersion": 2, "layers": [], "new": 1}'
LATEST = Tag("latest")


@dataclass(slots=True)
class Slow(FakeUpstream):
    """Answers HEAD when `answer` is set."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        """As Registry.resolve."""
        self.asked.set()
        await self.answer.wait()
        return await FakeUpstream.resolve(self, pull)


@dataclass(slots=True)
class Caller:
    """A right; `grace` says whether it holds while the upstream is away."""

    credential: Credential | None = None
    graced: bool = False
    refusal: Exception | None = None
    grace: bool = True
    asked: int = 0
    grants: list[Repository] = field(default_factory=list)

    async def ask(self, pull: Pull, *, unreachable: bool = False) -> bool:
        """As Right.ask."""
        del pull
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        if unreachable and not self.grace:
            raise UpstreamUnavailable("no grace")
        return False

    def granted(self, repository: Repository) -> None:
        """As Right.granted."""
        self.grants.append(repository)


@dataclass(slots=True)
class Stage:
    """Freshness over a fake upstream and a store in memory."""

    upstream: FakeUpstream
    links: Links
    clock: FakeClock
    freshness: Freshness


@asynccontextmanager
async def _stage(
    *, upstream: FakeUpstream | None = None, ttl: float = 0, budget: float = 30, immutable: str = ""
) -> AsyncIterator[Stage]:
    clock, upstream = FakeClock(), upstream or FakeUpstream()
    store = Store(Memory(), metrics=Metrics(), clock=clock)
    links = Links(store, clock)
    patterns = (re.compile(immutable),) if immutable else ()
    settings = FreshnessSettings(ttl=ttl, budget=budget, immutable=patterns)
    freshness = Freshness(upstream, links, clock, settings)
    try:
        yield Stage(upstream, links, clock, freshness)
    finally:
        await freshness.close()
        await store.close()


def _pull(right: Right = SERVICE, accept: tuple[str, ...] = ()) -> ManifestPull:
    return ManifestPull(repository=A, reference=LATEST, right=right, accept=accept)


async def test_every_pull_asks_with_head() -> None:
    """By default a moved tag is seen at once, for the price of a HEAD."""
    async with _stage() as stage:
        stage.upstream.publish_manifest("team/a", "latest", OLD)
        assert (await stage.freshness.resolve(_pull())).digest == Digest.of(OLD)
        stage.upstream.publish_manifest("team/a", "latest", NEW)
        named = await stage.freshness.resolve(_pull())
        assert (named.digest, named.stale) == (Digest.of(NEW), False)
        assert [pull.head for pull in stage.upstream.ledger if isinstance(pull, ManifestPull)] == [True, True]


async def test_the_answer_is_the_verdict() -> None:
    """An upstream that answered has let the caller in: that is remembered, and no second question is put."""
    async with _stage() as stage:
        stage.upstream.publish_manifest("team/a", "latest", OLD)
        caller = Caller()
        await stage.freshness.resolve(_pull(caller))
        assert caller.grants == [A]
        assert caller.asked == 0


async def test_equal_questions_are_asked_once() -> None:
    """A herd of one caller costs one HEAD; another caller asks for itself."""
    upstream = Slow()
    async with _stage(upstream=upstream) as stage:
        upstream.publish_manifest("team/a", "latest", OLD)
        other = Caller(Credential("Bearer other"))
        herd = [asyncio.create_task(stage.freshness.resolve(_pull())) for _ in range(9)]
        herd.append(asyncio.create_task(stage.freshness.resolve(_pull(other))))
        await upstream.asked.wait()
        await asyncio.wait(herd, timeout=0)
        upstream.answer.set()
        assert {named.digest for named in await asyncio.gather(*herd)} == {Digest.of(OLD)}
        assert sorted(str(pull.right.credential) for pull in upstream.ledger) == ["Credential(…)", "None"]


async def test_within_ttl_the_last_answer_is_used() -> None:
    """Until it is over, not longer; the caller's right is asked for each time."""
    async with _stage(ttl=60) as stage:
        stage.upstream.publish_manifest("team/a", "latest", OLD)
        await stage.freshness.resolve(_pull())
        stage.upstream.publish_manifest("team/a", "latest", NEW)
        stage.clock.advance(59)
        caller = Caller()
        assert (await stage.freshness.resolve(_pull(caller))).digest == Digest.of(OLD)
        assert caller.asked == 1
        with pytest.raises(Denied):
            await stage.freshness.resolve(_pull(Caller(refusal=Denied("no"))))
        stage.clock.advance(2)
        assert (await stage.freshness.resolve(_pull())).digest == Digest.of(NEW)


async def test_answers_belong_to_the_media_types_asked_for() -> None:
    """An upstream may convert: what one Accept brought is no answer to another."""
    async with _stage(ttl=60) as stage:
        stage.upstream.publish_manifest("team/a", "latest", OLD)
        await stage.freshness.resolve(_pull(accept=("a/b",)))
        await stage.freshness.resolve(_pull(accept=("c/d",)))
        await stage.freshness.resolve(_pull(accept=("a/b",)))
        assert len(stage.upstream.ledger) == 2


async def test_an_immutable_tag_is_asked_once() -> None:
    """After that the answer, or the link of an earlier process, serves for ever."""
    async with _stage(immutable="team/a:lat.*") as stage:
        stage.upstream.publish_manifest("team/a", "latest", OLD)
        await stage.freshness.resolve(_pull())
        stage.clock.advance(10**6)
        assert (await stage.freshness.resolve(_pull())).digest == Digest.of(OLD)
        assert len(stage.upstream.ledger) == 1
        await stage.links.put_tag(A, LATEST, Digest.of(OLD))
        again = Freshness(
            stage.upstream,
            stage.links,
            stage.clock,
            FreshnessSettings(immutable=(re.compile("team/a:latest"),)),
        )
        assert (await again.resolve(_pull())).digest == Digest.of(OLD)
        assert len(stage.upstream.ledger) == 1


async def test_patterns_match_whole_names() -> None:
    """A pattern that fits a part of the name makes nothing immutable."""
    async with _stage(immutable="team/a:lat") as stage:
        stage.upstream.publish_manifest("team/a", "latest", OLD)
        await stage.freshness.resolve(_pull())
        await stage.freshness.resolve(_pull())
        assert len(stage.upstream.ledger) == 2


async def test_an_absent_upstream_makes_stale() -> None:
    """The last known digest is served, marked, to those who may read it meanwhile; not to others."""
    async with _stage() as stage:
        await stage.links.put_tag(A, LATEST, Digest.of(OLD))
        stage.upstream.refused[None] = UpstreamUnavailable("away")
        named = await stage.freshness.resolve(_pull(Caller()))
        assert (named.digest, named.stale, named.resolution) == (Digest.of(OLD), True, None)
        with pytest.raises(UpstreamUnavailable):
            await stage.freshness.resolve(_pull(Caller(grace=False)))
        with pytest.raises(Denied):
            await stage.freshness.resolve(_pull(Caller(refusal=Denied("no"))))


async def test_what_the_store_knows_is_newer_than_memory() -> None:
    """Another replica may have resolved the tag since: the store is asked before the memory is."""
    async with _stage() as stage:
        stage.upstream.publish_manifest("team/a", "latest", OLD)
        await stage.freshness.resolve(_pull())
        stage.upstream.refused[None] = UpstreamUnavailable("away")
        assert (await stage.freshness.resolve(_pull())).digest == Digest.of(OLD)
        await stage.links.put_tag(A, LATEST, Digest.of(NEW))
        assert (await stage.freshness.resolve(_pull())).digest == Digest.of(NEW)


async def test_an_absent_upstream_and_nothing_known() -> None:
    """Then the outage is the answer."""
    async with _stage() as stage:
        stage.upstream.refused[None] = UpstreamUnavailable("away")
        with pytest.raises(UpstreamUnavailable, match="away"):
            await stage.freshness.resolve(_pull())


@pytest.mark.parametrize("refusal", [Unauthorized(), Denied(), ManifestUnknown()])
async def test_a_refusal_is_never_a_reason_for_staleness(refusal: Exception) -> None:
    """401, 403 and 404 are answers, however much is known."""
    async with _stage() as stage:
        await stage.links.put_tag(A, LATEST, Digest.of(OLD))
        stage.upstream.refused[None] = refusal
        with pytest.raises(type(refusal)):
            await stage.freshness.resolve(_pull())


async def test_a_slow_upstream_is_not_waited_for_where_something_is_known() -> None:
    """Past the budget the last known digest is served as stale, and the question goes on for those who come."""
    upstream = Slow()
    async with _stage(upstream=upstream, budget=0) as stage:
        await stage.links.put_tag(A, LATEST, Digest.of(OLD))
        assert (await stage.freshness.resolve(_pull())).stale
        upstream.publish_manifest("team/a", "latest", NEW)
        upstream.answer.set()


async def test_a_slow_upstream_is_waited_for_by_those_without_grace() -> None:
    """Slow is not away: whoever may not be served by memory, or has nothing to be served, gets the answer."""
    for known in (True, False):
        upstream = Slow()
        async with _stage(upstream=upstream, budget=0) as stage:
            upstream.publish_manifest("team/a", "latest", NEW)
            if known:
                await stage.links.put_tag(A, LATEST, Digest.of(OLD))
            asking = asyncio.create_task(stage.freshness.resolve(_pull(Caller(grace=False))))
            await upstream.asked.wait()
            upstream.answer.set()
            named = await asking
            assert (named.digest, named.stale) == (Digest.of(NEW), False)
