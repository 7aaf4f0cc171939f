"""Links of what has gone: removed, so that no repository and no tag names what is not there.

One listing of all links, whatever has gone. A link that a pull writes anew meanwhile may go too: that costs one
question to the upstream.
"""

from collections.abc import Collection

from msrcache.cache.layout import current_of, digest_of_link, parse_link
from msrcache.cache.ledger import AT_ONCE, Progress, links, removed
from msrcache.cache.links import LINK_LIMIT
from msrcache.oci.digest import Digest
from msrcache.storage.errors import NotFound
from msrcache.storage.store import Store


async def unlink(store: Store, gone: Collection[Digest], *, progress: Progress) -> int:
    """Remove all links of these; how many there were. Raises StorageError."""
    if not gone:
        return 0
    found: list[str] = []
    count = 0
    async for key, _ in links(store, progress):
        if (digest := digest_of_link(key)) is None or digest not in gone:
            continue
        found.append(key)
        current = current_of(key)
        if current is not None and await _names(store, current, digest):
            found.append(current)
        if len(found) >= AT_ONCE:
            await removed(store, found)
            count += len(found)
            found = []
    await removed(store, found)
    return count + len(found)


async def _names(store: Store, tag: str, digest: Digest) -> bool:
    try:
        return parse_link(await store.get(tag, LINK_LIMIT)) == digest
    except NotFound:
        return False
