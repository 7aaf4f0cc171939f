"""`msrcache adopt --dry-run [CONFIG]`: what a store that another program filled holds, and what becomes of it here.

Nothing has to be done to adopt it: what Docker Registry left is served in place. So there is only the dry run, which
reads the store and writes nothing.

Exit status: 0 done; 1 there is nothing to be served; 2 nothing could be said.
"""

import asyncio
import sys
from dataclasses import asdict, dataclass
from typing import Final, TextIO

from msrcache.cache.layout import (
    BLOBS,
    OURS,
    digest_of_blob,
    digest_of_link,
    is_revision,
    repository_of,
)
from msrcache.cache.ledger import TOLD_EVERY, Progress, links, listing
from msrcache.cache.plan import Digests
from msrcache.command import opened, told_on, write
from msrcache.config.model import Config
from msrcache.inquiry import CannotStart
from msrcache.storage.errors import NotFound, StorageError
from msrcache.storage.store import Store

SCHEDULE: Final = "scheduler-state.json"
"""Where Docker Registry's proxy mode notes what it will delete."""


@dataclass(slots=True)
class Holdings:
    """What the store holds; links that are empty were cut off while they were written."""

    repositories: int = 0
    tags: int = 0
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    unlinked: int = 0
    dangling: int = 0
    empty: int = 0
    uploads: int = 0
    ours: int = 0
    schedule: bool = False


def adopt(config: Config, *, as_json: bool, out: TextIO) -> int:
    """Write what is there and return the exit status. Raises CannotStart."""
    found = asyncio.run(_looked(config))
    write(out, table(found), asdict(found), as_json=as_json)
    return 0 if found.blobs else 1


async def _looked(config: Config) -> Holdings:
    async with opened(config) as store:
        try:
            return await look(store, progress=told_on(sys.stderr))
        except StorageError as error:
            raise CannotStart(str(error)) from error


async def look(store: Store, *, progress: Progress) -> Holdings:
    """What is there. Raises StorageError."""
    found, stored, linked = Holdings(), Digests(), Digests()
    async for key, info in listing(store, BLOBS):
        if (digest := digest_of_blob(key)) is not None:
            stored.add(digest)
            found.blobs += 1
            found.bytes += info.size
            if found.blobs % TOLD_EVERY == 0:
                progress("blobs listed", found.blobs, 0)
    await _links(store, found, stored, linked, progress)
    found.unlinked = stored.lacking(linked)
    async for _ in listing(store, OURS):
        found.ours += 1
    found.schedule = await _stands(store, SCHEDULE)
    return found


async def _links(store: Store, found: Holdings, stored: Digests, linked: Digests, progress: Progress) -> None:
    names = set[str]()
    async for key, info in links(store, progress):
        if "/_uploads/" in key:
            found.uploads += 1
        elif key.endswith("/current/link"):
            found.tags += 1
        if (repository := repository_of(key)) is None or (digest := digest_of_link(key)) is None:
            continue
        names.add(str(repository))
        linked.add(digest)
        found.manifests += is_revision(key)
        found.empty += not info.size
        found.dangling += digest not in stored
    found.repositories = len(names)


async def _stands(store: Store, key: str) -> bool:
    try:
        await store.stat(key)
    except NotFound:
        return False
    return True


def table(found: Holdings) -> list[str]:
    """What is there and what becomes of it, as lines (pure)."""
    rows = [
        ("repositories", found.repositories, "served under the same names"),
        ("tags", found.tags, "the upstream is asked what they name now; served as they are while it is away"),
        ("manifests", found.manifests, "served in place"),
        ("blobs and manifests", found.blobs, f"{found.bytes:,} bytes, served in place"),
        ("of no repository", found.unlinked, "served once the upstream has confirmed them for a repository"),
        ("links to nothing", found.dangling, "fetched again when they are asked for"),
        ("empty links", found.empty, "cut off while they were written: asked for at the upstream"),
        ("files of unfinished uploads", found.uploads, "left alone"),
        ("records of our own", found.ours, "replicas have used this store already" if found.ours else ""),
    ]
    lines = [f"{name:<28} {count:>12,}  {words}".rstrip() for name, count, words in rows]
    if found.schedule:
        lines.append(f"{SCHEDULE} is there, and left alone: no other program should delete here any more")
    if not found.blobs:
        lines.append("nothing stands below docker/registry/v2/blobs/: is this the root of the old registry?")
    return lines
