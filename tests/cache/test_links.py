"""Links: what a repository is known to have; a sick store makes less known, never an error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from msrcache.cache.layout import layer_link, revision_link, tag_index_link, tag_link
from msrcache.cache.links import Links
from msrcache.oci.digest import Digest
from msrcache.oci.names import Tag
from msrcache.storage.memory import Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import A, B, Sickness
from tests.stage.clock import FakeClock

DIGEST, OTHER = Digest.of(b"one"), Digest.of(b"two")
LATEST = Tag("latest")


@dataclass(slots=True)
class Stage:
    """Links over a store in memory."""

    links: Links
    memory: Memory
    sickness: Sickness
    clock: FakeClock

    def keys(self) -> list[str]:
        """What is stored, in order of writing."""
        return list(self.memory.contents.objects)


@asynccontextmanager
async def _stage() -> AsyncIterator[Stage]:
    sickness, clock = Sickness(), FakeClock()
    memory = Memory(faults=sickness)
    store = Store(memory, metrics=Metrics(), clock=clock)
    try:
        yield Stage(Links(store, clock), memory, sickness, clock)
    finally:
        await store.close()


async def test_a_link_belongs_to_its_repository() -> None:
    """What one repository has says nothing of another, and layers are no manifests of it."""
    async with _stage() as stage:
        await stage.links.put_layer(A, DIGEST)
        assert await stage.links.has_layer(A, DIGEST)
        assert not await stage.links.has_layer(B, DIGEST)
        assert not await stage.links.has_layer(A, OTHER)
        assert await stage.links.put_revision(B, DIGEST)
        assert await stage.links.has_revision(B, DIGEST)
        assert not await stage.links.has_layer(B, DIGEST)


async def test_a_manifest_linked_as_a_layer_is_known() -> None:
    """As Docker Registry did before 2.1.1."""
    async with _stage() as stage:
        await stage.links.put_layer(A, DIGEST)
        assert await stage.links.has_revision(A, DIGEST)


async def test_a_tag_is_indexed_first() -> None:
    """Docker Registry walks the index when it deletes: a tag that it lacks could not be deleted."""
    async with _stage() as stage:
        await stage.links.put_tag(A, LATEST, DIGEST)
        assert stage.keys() == [tag_index_link(A, LATEST, DIGEST), tag_link(A, LATEST)]
        await stage.links.put_tag(A, LATEST, OTHER)
        assert await stage.links.tagged(A, LATEST) == OTHER


async def test_a_tag_without_its_index_is_not_written() -> None:
    """The index entry failed: the tag waits for a pull that can write both."""
    async with _stage() as stage:
        stage.sickness.fails = {"put": "/index/"}
        await stage.links.put_tag(A, LATEST, DIGEST)
        assert stage.keys() == []
        stage.sickness.fails = {}
        await stage.links.put_tag(A, LATEST, DIGEST)
        assert await stage.links.tagged(A, LATEST) == DIGEST


async def test_a_failed_write_says_so() -> None:
    """put_revision tells whether the link is there, so that nothing is built on one that is not."""
    async with _stage() as stage:
        stage.sickness.fails = {"put": "/link"}
        assert not await stage.links.put_revision(A, DIGEST)
        assert not await stage.links.has_revision(A, DIGEST)
        stage.sickness.fails = {}
        assert await stage.links.put_revision(A, DIGEST)
        assert await stage.links.has_revision(A, DIGEST)


async def test_what_was_seen_is_believed_for_a_while() -> None:
    """A warm pull costs no read of a link, until the belief is over; a sick store is not asked meanwhile."""
    async with _stage() as stage:
        await stage.links.put_layer(A, DIGEST)
        stage.sickness.fails = {"open": "", "put": ""}
        assert await stage.links.has_layer(A, DIGEST)
        stage.clock.advance(601)
        assert not await stage.links.has_layer(A, DIGEST)


async def test_a_contradicted_belief_is_dropped() -> None:
    """Somebody deleted the content: the link is read again."""
    async with _stage() as stage:
        await stage.links.put_layer(A, DIGEST)
        await stage.memory.delete(layer_link(A, DIGEST))
        assert await stage.links.has_layer(A, DIGEST)
        stage.links.forget(A, DIGEST)
        assert not await stage.links.has_layer(A, DIGEST)


async def test_an_absent_link_is_not_believed() -> None:
    """Another replica may write it at any time."""
    async with _stage() as stage:
        assert not await stage.links.has_layer(A, DIGEST)
        stage.memory.contents.store(layer_link(A, DIGEST), str(DIGEST).encode())
        assert await stage.links.has_layer(A, DIGEST)


@pytest.mark.parametrize("data", [b"", b"sha256:12", b"\xff\xfe", str(OTHER).encode(), b"x" * 600])
async def test_a_half_written_link_is_none(data: bytes) -> None:
    """A crash of another program leaves short links, and a link to something else confirms nothing."""
    async with _stage() as stage:
        stage.memory.contents.store(revision_link(A, DIGEST), data)
        assert not await stage.links.has_revision(A, DIGEST)


async def test_beliefs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds the youngest only."""
    monkeypatch.setattr("msrcache.cache.links.BELIEFS", 2)
    async with _stage() as stage:
        for digest in (DIGEST, OTHER, Digest.of(b"three")):
            await stage.links.put_layer(A, digest)
        assert len(stage.links._seen) == 2
        assert layer_link(A, DIGEST) not in stage.links._seen
