"""The catalog from the store: names of what is cached, in pages, from a walk now and then."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from msrcache.cache.catalog import KEPT, StoredCatalog
from msrcache.cache.layout import blob_key, layer_link, revision_link
from msrcache.oci.digest import Digest
from msrcache.oci.errors import Unavailable
from msrcache.oci.names import Repository
from msrcache.oci.pulls import Catalog
from msrcache.storage.memory import Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import Sickness
from tests.stage.clock import FakeClock

DIGEST = Digest.of(b"blob")


@dataclass(slots=True)
class Stage:
    """A catalog over a store in memory."""

    catalog: StoredCatalog
    memory: Memory
    sickness: Sickness
    clock: FakeClock

    def cached(self, *names: str) -> None:
        """Have something of these repositories."""
        for name in names:
            self.memory.contents.store(layer_link(Repository.parse(name), DIGEST), b"")

    async def names(self, *, n: int | None = None, last: str | None = None) -> tuple[list[str], str | None]:
        """A page, and its Link."""
        answer = await self.catalog.answer(Catalog(n=n, last=last))
        assert answer.status == 200
        return json.loads(answer.body)["repositories"], answer.headers.get("Link")


@asynccontextmanager
async def _stage() -> AsyncIterator[Stage]:
    sickness, clock = Sickness(), FakeClock()
    memory = Memory(faults=sickness)
    store = Store(memory, metrics=Metrics(), clock=clock)
    try:
        yield Stage(StoredCatalog(store, clock), memory, sickness, clock)
    finally:
        await store.close()


async def test_an_empty_store_has_an_empty_catalog() -> None:
    """No repository is no error."""
    async with _stage() as stage:
        assert await stage.names() == ([], None)


async def test_each_repository_stands_once_in_order() -> None:
    """However many links it has; blobs alone are nobody's."""
    async with _stage() as stage:
        stage.cached("b", "a/x", "a")
        stage.memory.contents.store(revision_link(Repository.parse("b"), DIGEST), b"")
        stage.memory.contents.store(blob_key(DIGEST), b"blob")
        assert await stage.names() == (["a", "a/x", "b"], None)


async def test_pages_lead_to_each_other() -> None:
    """The Link names the next page until there is none."""
    async with _stage() as stage:
        stage.cached("a", "b", "c")
        first, link = await stage.names(n=2)
        assert first == ["a", "b"]
        assert link == '</v2/_catalog?n=2&last=b>; rel="next"'
        assert await stage.names(n=2, last="b") == (["c"], None)
        assert await stage.names(n=3) == (["a", "b", "c"], None)
        assert (await stage.names(n=0))[0] == []


async def test_a_walk_is_used_for_a_while() -> None:
    """Listing is dear: the answer may lag, by no more than that."""
    async with _stage() as stage:
        stage.cached("a")
        await stage.names()
        stage.cached("b")
        assert (await stage.names())[0] == ["a"]
        stage.clock.advance(KEPT + 1)
        assert (await stage.names())[0] == ["a", "b"]


async def test_a_store_that_cannot_be_listed_is_unavailable() -> None:
    """Not an empty catalog; and the next question walks again."""
    async with _stage() as stage:
        stage.cached("a")
        stage.sickness.fails = {"list": ""}
        with pytest.raises(Unavailable, match="cannot be listed"):
            await stage.names()
        stage.sickness.fails = {}
        assert (await stage.names())[0] == ["a"]
