"""`msrcache evict REFERENCE|DIGEST`: an image, or one blob or manifest, out of the store at once, with its links.

Without the waiting of expiry: a replica that has just seen a blob may send a client to where it stood, and the client
that comes back for it is served by a new pull; a manifest is served from a replica's memory until it has left that.
Parts that other images share go too, and are pulled again with those.

Exit status: 0 done; 1 nothing of it was there; 2 nothing could be done.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from msrcache.cache.inspect import Part, inspect
from msrcache.cache.layout import blob_key, condemned_key
from msrcache.cache.ledger import Progress, removed
from msrcache.cache.unlink import unlink
from msrcache.command import opened, told_on, write
from msrcache.config.model import Config
from msrcache.inquiry import CannotStart
from msrcache.oci.digest import Digest
from msrcache.oci.names import ImageReference
from msrcache.storage.errors import NotFound, StorageError
from msrcache.storage.store import Store


@dataclass(frozen=True, slots=True)
class Evicted:
    """What went: digests with their sizes, and how many links."""

    parts: Sequence[tuple[Digest, int]]
    links: int


def evict(config: Config, wanted: ImageReference | Digest, *, as_json: bool, out: TextIO) -> int:
    """Delete it, write what went, and return the exit status. Raises CannotStart."""
    if not config.storage.delete_enabled or config.storage.readonly:
        raise CannotStart(
            "nothing may be deleted: it needs storage.delete.enabled: true, and no storage.maintenance.readonly"
        )
    evicted = asyncio.run(_evicted(config, wanted))
    write(out, table(evicted), _as_json(evicted), as_json=as_json)
    return 0 if evicted.parts else 1


async def _evicted(config: Config, wanted: ImageReference | Digest) -> Evicted:
    async with opened(config) as store:
        try:
            return await out_of(store, wanted, progress=told_on(sys.stderr))
        except StorageError as error:
            raise CannotStart(str(error)) from error


async def out_of(store: Store, wanted: ImageReference | Digest, *, progress: Progress) -> Evicted:
    """Delete it. Blobs before the manifests that name them, so that it can be asked for again where it ends early.

    Raises StorageError.
    """
    parts = await _parts(store, wanted)
    await removed(store, [blob_key(digest) for digest, _ in parts])
    await removed(store, [condemned_key(digest) for digest, _ in parts])
    links = await unlink(store, {digest for digest, _ in parts}, progress=progress)
    return Evicted(parts, links)


async def _parts(store: Store, wanted: ImageReference | Digest) -> list[tuple[Digest, int]]:
    if isinstance(wanted, Digest):
        try:
            return [(wanted, (await store.stat(blob_key(wanted))).size)]
        except NotFound:
            return []
    parts = await inspect(store, wanted.repository, wanted.reference)
    held = [part for part in parts if not part.missing]
    return [(part.digest, part.size) for part in sorted(held, key=_manifests_last)]


def _manifests_last(part: Part) -> tuple[bool, int]:
    return part.kind == "manifest", -part.depth


def table(evicted: Evicted) -> list[str]:
    """What went, as lines (pure)."""
    if not evicted.parts:
        return ["nothing of it is stored"]
    lines = [f"{size:>15,}  {digest}" for digest, size in evicted.parts]
    size = sum(size for _, size in evicted.parts)
    return [*lines, f"{len(evicted.parts):,} deleted, {size:,} bytes, and {evicted.links:,} links"]


def _as_json(evicted: Evicted) -> object:
    return {
        "deleted": [{"digest": str(digest), "size": size} for digest, size in evicted.parts],
        "links": evicted.links,
    }
