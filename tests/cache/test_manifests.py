"""Manifests: byte for byte, shared without lending a right, and linked only where they are stored."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from msrcache.cache.layout import blob_key, revision_link, tag_link
from msrcache.cache.manifests import Manifests
from msrcache.oci.digest import Digest
from msrcache.oci.errors import Denied, ManifestUnknown, UpstreamUnavailable
from msrcache.oci.names import Repository, Tag
from msrcache.oci.pulls import ManifestPull, Pull
from msrcache.oci.registry import SERVICE, Credential, Outcome, Right
from tests.cache.kitchen import A, B, Cache, cache

DATA = json.dumps({"schemaVersion": 2, "layers": [], "annotations": {"a": "é"}}, indent=3).encode()
DIGEST = Digest.of(DATA)
LATEST = Tag("latest")


@dataclass(slots=True)
class Caller:
    """A right that confirms nothing by itself; refuses when told to."""

    credential: Credential | None = None
    graced: bool = False
    refusal: Exception | None = None
    asked: list[Pull] = field(default_factory=list)

    async def ask(self, pull: Pull, *, unreachable: bool = False) -> bool:
        """As Right.ask."""
        del unreachable
        self.asked.append(pull)
        if self.refusal is not None:
            raise self.refusal
        return False

    def granted(self, repository: Repository) -> None:
        """As Right.granted."""


Stage = tuple[Cache, Manifests]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A cache before an upstream that has DATA in team/a as `latest`."""
    async with cache(tmp_path) as kept:
        kept.upstream.publish_manifest("team/a", "latest", DATA)
        yield kept, kept.pulls._manifests


def _by_digest(repository: Repository = A, *, right: Right = SERVICE, head: bool = False) -> ManifestPull:
    return ManifestPull(repository=repository, reference=DIGEST, head=head, right=right)


def _by_tag(*, right: Right = SERVICE, head: bool = False) -> ManifestPull:
    return ManifestPull(repository=A, reference=LATEST, head=head, right=right)


def _links(kept: Cache) -> set[str]:
    return {key for key in kept.memory.contents.objects if key.endswith("/link")}


async def test_the_bytes_are_as_they_came(stage: Stage) -> None:
    """No byte is rewritten: not on the way through, not in the store."""
    kept, manifests = stage
    first = await manifests.manifest(_by_tag())
    await manifests.settled()
    assert (first.data, first.descriptor.digest, first.outcome) == (DATA, DIGEST, Outcome.MISS)
    assert kept.memory.contents.objects[blob_key(DIGEST)].data == DATA
    second = await manifests.manifest(_by_digest())
    assert (second.data, second.outcome) == (DATA, Outcome.HIT)


async def test_a_herd_fetches_a_manifest_once(stage: Stage) -> None:
    """Those who ask while it comes join."""
    kept, manifests = stage
    kept.upstream.hold_at = 0
    first = asyncio.create_task(manifests.manifest(_by_digest()))
    await kept.upstream.reached.wait()
    joined = [asyncio.create_task(manifests.manifest(_by_digest())) for _ in range(5)]
    kept.upstream.release.set()
    found = await asyncio.gather(first, *joined)
    assert {manifest.data for manifest in found} == {DATA}
    assert sum(isinstance(pull, ManifestPull) and not pull.head for pull in kept.upstream.ledger) == 1


async def test_a_flight_is_no_permission_in_another_repository(stage: Stage) -> None:
    """A joiner from a repository where the upstream has not confirmed the digest gets the upstream's no."""
    kept, manifests = stage
    kept.upstream.hold_at = 0
    first = asyncio.create_task(manifests.manifest(_by_digest()))
    await kept.upstream.reached.wait()
    with pytest.raises(ManifestUnknown):
        await manifests.manifest(_by_digest(B))
    with pytest.raises(ManifestUnknown):
        await manifests.resolve(_by_digest(B, head=True))
    kept.upstream.release.set()
    assert (await first).data == DATA
    await manifests.settled()
    assert revision_link(B, DIGEST) not in _links(kept)


async def test_a_flight_is_no_permission_for_another_caller(stage: Stage) -> None:
    """A joiner's own question comes first, and its refusal is its own."""
    kept, manifests = stage
    kept.upstream.hold_at = 0
    first = asyncio.create_task(manifests.manifest(_by_digest()))
    await kept.upstream.reached.wait()
    with pytest.raises(Denied):
        await manifests.manifest(_by_digest(right=Caller(refusal=Denied("not you"))))
    kept.upstream.release.set()
    assert (await first).data == DATA


async def test_a_stored_manifest_is_no_permission(stage: Stage) -> None:
    """What is here for one repository is not served in another until the upstream confirms it there; then it is."""
    kept, manifests = stage
    await manifests.manifest(_by_digest())
    await manifests.settled()
    with pytest.raises(ManifestUnknown):
        await manifests.manifest(_by_digest(B))
    kept.upstream.publish_manifest("team/b", "latest", DATA)
    assert (await manifests.manifest(_by_digest(B))).outcome is Outcome.HIT
    await manifests.settled()
    assert revision_link(B, DIGEST) in _links(kept)


async def test_what_waits_for_its_manifest_keeps_no_credential(stage: Stage) -> None:
    """A HEAD of a tag notes the tag for later, without the caller's secret."""
    kept, manifests = stage
    caller = Caller(Credential("Bearer secret"))
    await manifests.resolve(_by_tag(right=caller, head=True))
    assert [pull.right for tags in manifests._awaited.values() for pull in tags.values()] == [SERVICE]
    await manifests.manifest(_by_digest(right=caller))
    await manifests.settled()
    assert not manifests._awaited
    assert tag_link(A, LATEST) in _links(kept)


async def test_no_link_names_what_is_not_stored(stage: Stage) -> None:
    """The store refused the manifest: neither its revision nor its tag is linked, now or by later hits."""
    kept, manifests = stage
    kept.sickness.fails = {"put": "/data"}
    assert (await manifests.manifest(_by_tag())).data == DATA
    await manifests.settled()
    kept.sickness.fails = {}
    assert (await manifests.manifest(_by_digest())).outcome is Outcome.HIT
    assert (await manifests.manifest(_by_tag())).outcome is Outcome.HIT
    await manifests.settled()
    assert _links(kept) == set()


async def test_links_wait_for_the_manifest(stage: Stage) -> None:
    """A hit in memory while the store is still writing links nothing before the object is there."""
    kept, manifests = stage
    kept.sickness.held = "put"
    await manifests.manifest(_by_tag())
    await kept.sickness.reached.wait()
    assert (await manifests.manifest(_by_digest())).outcome is Outcome.HIT
    assert not kept.memory.contents.objects
    kept.sickness.release.set()
    await manifests.settled()
    assert {revision_link(A, DIGEST), tag_link(A, LATEST)} <= _links(kept)


async def test_no_tag_is_linked_whose_revision_is_not(stage: Stage) -> None:
    """Docker Registry reads a tag through its revision: without that link there is none of the tag."""
    kept, manifests = stage
    kept.sickness.fails = {"put": "/revisions/"}
    assert (await manifests.manifest(_by_tag())).data == DATA
    await manifests.settled()
    assert _links(kept) == set()
    kept.sickness.fails = {}
    await manifests.manifest(_by_tag())
    await manifests.settled()
    assert {revision_link(A, DIGEST), tag_link(A, LATEST)} <= _links(kept)


async def test_a_corrupt_stored_manifest_is_fetched_again(stage: Stage) -> None:
    """What the store has is hashed before it is believed, and healed."""
    kept, manifests = stage
    kept.memory.contents.store(blob_key(DIGEST), DATA[:-1] + b"!")
    found = await manifests.manifest(_by_digest())
    assert (found.data, found.outcome) == (DATA, Outcome.MISS)
    await manifests.settled()
    assert kept.memory.contents.objects[blob_key(DIGEST)].data == DATA


async def test_a_store_that_cannot_be_read_is_a_miss(stage: Stage) -> None:
    """A sick store makes a fetch, no error."""
    kept, manifests = stage
    kept.sickness.fails = {"open": ""}
    assert (await manifests.manifest(_by_digest())).outcome is Outcome.MISS


async def test_stale_bytes_are_marked(stage: Stage) -> None:
    """The upstream is away: the tag's last known manifest is served and says so."""
    kept, manifests = stage
    await manifests.manifest(_by_tag())
    await manifests.settled()
    kept.upstream.refused[None] = UpstreamUnavailable("away")
    found = await manifests.manifest(_by_tag())
    assert (found.data, found.outcome) == (DATA, Outcome.STALE)


async def test_a_stale_tag_without_its_manifest_is_unknown(stage: Stage) -> None:
    """Only the tag was resolved before the upstream went away: there is nothing to serve, and that is said."""
    kept, manifests = stage
    await manifests.resolve(_by_tag(head=True))
    kept.upstream.refused[None] = UpstreamUnavailable("away")
    with pytest.raises(ManifestUnknown, match="not stored"):
        await manifests.manifest(_by_tag())


async def test_memory_is_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest manifests leave memory first; the store still has them."""
    monkeypatch.setattr("msrcache.cache.manifests.KEPT", len(DATA) + 10)
    kept, manifests = stage
    other = DATA + b" "
    kept.upstream.publish_manifest("team/a", "other", other)
    await manifests.manifest(_by_digest())
    await manifests.manifest(ManifestPull(repository=A, reference=Tag("other")))
    await manifests.settled()
    assert list(manifests._kept) == [Digest.of(other)]
    assert (await manifests.manifest(_by_digest())).outcome is Outcome.HIT


async def test_every_tag_of_a_manifest_is_linked_when_it_comes(stage: Stage) -> None:
    """Several tags and repositories were resolved to one digest before anybody fetched it: all are linked then."""
    kept, manifests = stage
    kept.upstream.publish_manifest("team/a", "1.0", DATA)
    kept.upstream.publish_manifest("team/b", "latest", DATA)
    for repository, tag in ((A, LATEST), (A, Tag("1.0")), (B, LATEST)):
        await manifests.resolve(ManifestPull(repository=repository, reference=tag, head=True))
    await manifests.manifest(_by_digest())
    await manifests.settled()
    assert {tag_link(A, LATEST), tag_link(A, Tag("1.0")), tag_link(B, LATEST)} <= _links(kept)
    assert not manifests._awaited


async def test_tags_that_wait_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many tags of one digest the last ones are kept, and of many digests too."""
    kept, manifests = stage
    monkeypatch.setattr("msrcache.cache.manifests.AWAITED", 3)
    monkeypatch.setattr("msrcache.cache.manifests.AWAITED_TAGS", 2)
    for number in range(5):
        kept.upstream.publish_manifest("team/a", f"t{number}", DATA)
        kept.upstream.publish_manifest("team/a", f"o{number}", DATA + b" " * (number + 1))
        for name in (f"t{number}", f"o{number}"):
            await manifests.resolve(ManifestPull(repository=A, reference=Tag(name), head=True))
    assert len(manifests._awaited) == 3
    await manifests.manifest(_by_digest())
    await manifests.settled()
    assert {key for key in _links(kept) if "/current/" in key} == {
        tag_link(A, Tag("t3")),
        tag_link(A, Tag("t4")),
    }


async def test_what_waits_for_a_slow_store_is_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write stands still: the next manifest is served all the same, not stored, and no link to it dangles."""
    monkeypatch.setattr("msrcache.cache.manifests.BEHIND", 1)
    kept, manifests = stage
    kept.sickness.held = "put"
    other = DATA.replace(b"a", b"b")
    kept.upstream.publish_manifest("team/a", "other", other)
    by_other = ManifestPull(repository=A, reference=Tag("other"))
    assert (await manifests.manifest(by_other)).data == other
    await kept.sickness.reached.wait()
    assert (await manifests.manifest(_by_tag())).data == DATA
    kept.sickness.release.set()
    await manifests.settled()
    assert blob_key(Digest.of(other)) in kept.memory.contents.objects
    assert blob_key(DIGEST) not in kept.memory.contents.objects
    assert (await manifests.manifest(_by_tag())).data == DATA
    await manifests.settled()
    assert not [key for key in _links(kept) if DIGEST.hex in key]
