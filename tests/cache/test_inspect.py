"""Inspecting an image in the store: its parts, and which are missing."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from msrcache.cache.inspect import inspect
from msrcache.cache.layout import blob_key, tag_link
from msrcache.oci.digest import Digest
from msrcache.oci.names import Tag
from msrcache.storage.errors import StorageError
from msrcache.storage.memory import Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import A, Sickness
from tests.stage.clock import FakeClock

LATEST = Tag("latest")
CONFIG, LAYER = b"{}", b"layer" * 100
OCI = "application/vnd.oci.image"


def _named(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _named(f"{OCI}.config.v1+json", CONFIG),
        "layers": [_named(f"{OCI}.layer.v1.tar", LAYER)],
    }
).encode()
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.index.v1+json",
        "manifests": [_named(f"{OCI}.manifest.v1+json", MANIFEST)],
    }
).encode()


@asynccontextmanager
async def _store(*contents: bytes, sickness: Sickness | None = None) -> AsyncIterator[Store]:
    """A store that has these, and a tag for the first of them."""
    memory = Memory(faults=sickness)
    for data in contents:
        memory.contents.store(blob_key(Digest.of(data)), data)
    if contents:
        memory.contents.store(tag_link(A, LATEST), str(Digest.of(contents[0])).encode())
    store = Store(memory, metrics=Metrics(), clock=FakeClock())
    try:
        yield store
    finally:
        await store.close()


async def test_an_image_is_walked_from_its_tag() -> None:
    """Index, manifest, config and layer, parents first, none missing."""
    async with _store(INDEX, MANIFEST, CONFIG, LAYER) as store:
        parts = await inspect(store, A, LATEST)
        assert [part.digest for part in parts] == [
            Digest.of(data) for data in (INDEX, MANIFEST, CONFIG, LAYER)
        ]
        assert [part.kind for part in parts] == ["manifest", "manifest", "blob", "blob"]
        assert [part.depth for part in parts] == [0, 1, 2, 2]
        assert [part.size for part in parts] == [len(data) for data in (INDEX, MANIFEST, CONFIG, LAYER)]
        assert not any(part.missing for part in parts)


async def test_what_is_missing_is_said() -> None:
    """A part that the store lacks stands there with the size that the image says."""
    async with _store(MANIFEST, CONFIG) as store:
        parts = await inspect(store, A, Digest.of(MANIFEST))
        assert [(part.digest, part.size) for part in parts if part.missing] == [
            (Digest.of(LAYER), len(LAYER))
        ]


async def test_a_part_of_another_size_is_missing() -> None:
    """Cut short in the store is as good as not there."""
    async with _store(MANIFEST, CONFIG, LAYER) as store:
        await store.put(blob_key(Digest.of(LAYER)), LAYER[:-1])
        (layer,) = [part for part in await inspect(store, A, LATEST) if part.digest == Digest.of(LAYER)]
        assert layer.missing


async def test_a_missing_manifest_is_a_manifest() -> None:
    """Named by an index: its kind is known without its bytes."""
    async with _store(INDEX) as store:
        parts = await inspect(store, A, LATEST)
        assert [(part.kind, part.missing) for part in parts] == [("manifest", False), ("manifest", True)]


async def test_an_unknown_tag_has_no_parts() -> None:
    """Nothing is not an error."""
    async with _store() as store:
        assert await inspect(store, A, LATEST) == []


async def test_bytes_that_are_no_manifest_are_shown_as_such() -> None:
    """A tag that names garbage does not end the walk in a traceback."""
    async with _store(b"garbage") as store:
        (part,) = await inspect(store, A, LATEST)
        assert part.media_type == "(not a manifest)"


async def test_a_store_that_fails_is_told() -> None:
    """Not as a missing part."""
    sickness = Sickness(fails={"stat": ""})
    async with _store(MANIFEST, sickness=sickness) as store:
        with pytest.raises(StorageError, match="sick"):
            await inspect(store, A, LATEST)
