"""Bytes that need no upstream: another replica's fill while it goes on, or the store once it has ended there.

Rules (protocols, section 4):
1. A fill is followed from any byte on. That it breaks proves nothing about the blob: the fill asks its lease what next.
2. A holder that neither beats nor brings a byte is left. One that still brings bytes is not, whatever its beat says.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from msrcache.cache.layout import blob_key
from msrcache.cache.lease import Arrival
from msrcache.cache.spool import Spool
from msrcache.oci.descriptor import OCTETS, Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.peers import Followable, Holder, NotFollowed, Sign
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Blob, Chunk, FileSpan, Outcome
from msrcache.storage.driver import FileContent
from msrcache.storage.store import Store

ENDLESS: Final = 1 << 62
QUIET: Final = 0.5
"""Seconds without a byte after which a holder without a beat is left."""


@asynccontextmanager
async def followed(
    peers: Followable | None,
    digest: Digest,
    holder: Holder,
    start: int,
    *,
    arrival: Arrival,
    written: Callable[[], int],
) -> AsyncIterator[Blob]:
    """The holder's fill from byte ``start`` on. ``written`` tells how far it has come here. Raises NotFollowed."""
    if peers is None or not holder.address:
        raise NotFollowed(Sign.BROKEN, f"{holder.replica} cannot be reached: replicas have no peer port")
    left = asyncio.timeout(None)
    try:
        async with left:
            watching = asyncio.create_task(_watch(arrival, written, left), name=f"watch {holder.replica}")
            try:
                async with peers.follow(digest, holder, start) as source:
                    yield source
            finally:
                watching.cancel()
    except TimeoutError:
        if not left.expired():
            raise
        raise NotFollowed(Sign.BROKEN, f"{holder.replica} neither beats nor sends") from None


async def _watch(arrival: Arrival, written: Callable[[], int], left: asyncio.Timeout) -> None:
    seen = -1
    while True:
        await arrival.dead()
        if written() == seen:
            left.reschedule(asyncio.get_running_loop().time())
            return
        seen = written()
        await asyncio.sleep(QUIET)


@asynccontextmanager
async def stored(store: Store, spool: Spool, digest: Digest, start: int) -> AsyncIterator[Blob]:
    """The stored blob from byte ``start`` on, as bytes. Raises StorageError, OSError."""
    async with store.open(blob_key(digest), Span(start, ENDLESS)) as content:
        body: AsyncIterator[Chunk]
        if isinstance(content, FileContent):
            body = spool.read(FileSpan(content.fd, content.span.start, content.span.stop))
        else:
            body = content.chunks
        yield Blob(Descriptor(OCTETS, digest, content.info.size), content.span, Outcome.HIT, body)
