"""Hits: a blob that is here, by the cheapest way that its client may take.

In this order:
1. the store's own service sends it: redirects;
2. the hot tier has it: a file on a local disk;
3. the object: a span of a file, or a stream, from which the hot tier may keep it.

Rules:
1. Nobody learns anything of a blob, its address and its size included, before the caller's own question and the
   repository's link (or the upstream's word) were answered.
2. A store that fails is a miss. That a blob is not there ends what was believed of it and of its link.
3. Everything found in the store is a sighting, by which the next redirect costs no request.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

from msrcache.cache.following import ENDLESS
from msrcache.cache.kitchen import Kitchen
from msrcache.cache.layout import blob_key
from msrcache.cache.localfolder import Opened
from msrcache.cache.reading import of_content, of_file
from msrcache.cache.redirects import Redirects
from msrcache.oci.descriptor import OCTETS, Descriptor
from msrcache.oci.errors import RangeInvalid
from msrcache.oci.pulls import BlobPull
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Blob, Chunk, FileSpan, Outcome
from msrcache.storage.driver import Content, StreamContent
from msrcache.storage.errors import LeftAlone, NotFound, RangeNotSatisfiable, StorageError
from msrcache.telemetry.logs import get_logger

BEHIND = 1000
"""Links on their way into the store."""

log = get_logger(__name__)


class Hits:
    """Serves what is stored."""

    def __init__(
        self,
        kitchen: Kitchen,
        redirects: Redirects,
        *,
        heal: Callable[[BlobPull, Span], AsyncIterator[bytes | memoryview]],
    ) -> None:
        """`heal` brings a span by another way, when reading the stored blob failed under its reader."""
        self._upstream = kitchen.upstream
        self._store = kitchen.store
        self._links = kitchen.links
        self._presence = kitchen.presence
        self._local = kitchen.local
        self._uses = kitchen.uses
        self._news = kitchen.news
        self._local_hits = kitchen.metrics.local_hits_total
        self._redirects = redirects
        self._heal = heal
        self._linking: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Hits {self._redirects!r}>"

    async def descriptor(self, pull: BlobPull) -> Descriptor | None:
        """What HEAD tells, the caller admitted; None where the store does not have it."""
        began = self._news.looking()
        try:
            size = (await self._store.stat(blob_key(pull.digest))).size
        except StorageError as error:
            self._missed(pull, error, began)
            return None
        self._presence.saw(pull.digest, size)
        await self.admit(pull)
        self._uses.note(pull.digest)
        return Descriptor(OCTETS, pull.digest, size)

    async def blob(self, pull: BlobPull, stack: AsyncExitStack) -> Blob | None:
        """The blob, open in `stack`, the caller admitted; None where the store does not have it."""
        blob = await self._found(pull, stack)
        if blob is not None:
            self._uses.note(pull.digest)
        return blob

    async def _found(self, pull: BlobPull, stack: AsyncExitStack) -> Blob | None:
        began = self._news.looking()
        try:
            offer = await self._redirects.offer(pull)
            if offer is None:
                return await self._served(pull, stack, admitted=False)
            await self.admit(pull)
            if not self._redirects.take(pull, offer):
                return await self._served(pull, stack, admitted=True)
            descriptor = Descriptor(OCTETS, pull.digest, offer.size)
            return Blob(descriptor, Span.whole(offer.size), Outcome.HIT, offer.elsewhere)
        except StorageError as error:
            self._missed(pull, error, began)
            return None

    async def admit(self, pull: BlobPull) -> None:
        """Return when the caller may read the blob and it belongs to the repository; raise as the upstream does."""
        linked = await self._links.has_layer(pull.repository, pull.digest)
        confirmed = await pull.right.ask(pull)
        if linked:
            return
        if not confirmed:
            await self._upstream.resolve(replace(pull, head=True, range=None))
            pull.right.granted(pull.repository)
        await self._link(pull)

    async def settled(self) -> None:
        """Returns when no link is being written."""
        while self._linking:
            await asyncio.wait(self._linking)

    async def _link(self, pull: BlobPull) -> None:
        """Written behind the answer: a link saves the next caller a question, no byte of this one's waits for it.

        Where as many as BEHIND are on their way, the store sets the pace.
        """
        task = asyncio.create_task(self._links.put_layer(pull.repository, pull.digest))
        self._linking.add(task)
        task.add_done_callback(self._linking.discard)
        if len(self._linking) > BEHIND:
            await asyncio.wait({task})

    async def _served(self, pull: BlobPull, stack: AsyncExitStack, *, admitted: bool) -> Blob:
        """From here: from the hot tier, else from the store. Raises StorageError."""
        if self._local is not None:
            opened = await self._local.open(pull.digest, stack)
            if opened is not None:
                return await self._kept(pull, opened, admitted=admitted)
        return await self._opened(pull, stack, admitted=admitted)

    async def _kept(self, pull: BlobPull, opened: Opened, *, admitted: bool) -> Blob:
        if not admitted:
            await self.admit(pull)
        self._local_hits.inc()
        size = opened.stamp.size
        span = Span.whole(size) if pull.range is None else pull.range.resolve(size)
        return Blob(
            descriptor=Descriptor(OCTETS, pull.digest, size),
            span=span,
            outcome=Outcome.HIT,
            body=of_file(opened.fd, span),
            resume=lambda offset: self._reread(pull, Span(offset, span.stop)),
        )

    async def _reread(self, pull: BlobPull, span: Span) -> AsyncIterator[bytes | memoryview]:
        """The rest of a blob whose local file could not be read under the server: from the store, else as if it had
        failed too.
        """
        if self._local is not None:
            self._local.lost(pull.digest)
        offset = span.start
        try:
            async with self._store.open(blob_key(pull.digest), span) as content:
                if isinstance(content, StreamContent):
                    async for chunk in content.chunks:
                        offset += len(chunk)
                        yield chunk
        except StorageError as error:
            self._missed(pull, error)
        if offset < span.stop:
            async for rest in self._heal(pull, Span(offset, span.stop)):
                yield rest

    async def _opened(self, pull: BlobPull, stack: AsyncExitStack, *, admitted: bool) -> Blob:
        try:
            content = await self._open(pull, stack)
        except (RangeNotSatisfiable, RangeInvalid) as error:
            if not admitted:
                await self.admit(pull)  # first: 416 tells the size
            raise RangeInvalid(error.size) from error
        self._presence.saw(pull.digest, content.info.size)
        if not admitted:
            await self.admit(pull)
        span = content.span
        return Blob(
            descriptor=Descriptor(OCTETS, pull.digest, content.info.size),
            span=span,
            outcome=Outcome.HIT,
            body=await stack.enter_async_context(aclosing(self._body(pull, content))),
            resume=lambda offset: self._heal(pull, Span(offset, span.stop)),
        )

    def _body(self, pull: BlobPull, content: Content) -> AsyncGenerator[Chunk, None]:
        """Its bytes, given to the hot tier too where all of them come."""
        size, body = content.info.size, of_content(content, content.span)
        if isinstance(content, StreamContent):
            body = self._unbroken(pull, content.span, body)
        if self._local is None:
            return body
        self._local.note_use(pull.digest)
        whole = isinstance(content, StreamContent) and content.span == Span.whole(size)
        return self._local.teed(pull.digest, size, body) if whole else body

    async def _unbroken(
        self, pull: BlobPull, span: Span, body: AsyncGenerator[Chunk, None]
    ) -> AsyncGenerator[Chunk, None]:
        """A stream that breaks for good goes on from a fill: a store that is away is no reason to cut a pull."""
        offset = span.start
        try:
            async with aclosing(body):
                async for chunk in body:
                    assert not isinstance(chunk, FileSpan), "a stream sends bytes, not files"
                    offset += len(chunk)
                    yield chunk
        except StorageError as error:
            self._missed(pull, error)
        if offset < span.stop:
            async for rest in self._heal(pull, Span(offset, span.stop)):
                yield rest

    async def _open(self, pull: BlobPull, stack: AsyncExitStack) -> Content:
        """One request to the store; a suffix range needs the size first."""
        key = blob_key(pull.digest)
        wanted = None
        if pull.range is not None:
            first, last = pull.range.first, pull.range.last
            if first is None:
                wanted = pull.range.resolve(await self._size(pull))
            else:
                wanted = Span(first, ENDLESS if last is None else last + 1)
        return await stack.enter_async_context(self._store.open(key, wanted))

    async def _size(self, pull: BlobPull) -> int:
        """A blob never changes its size, so what was seen once is right as long as the blob is there."""
        known = self._presence.size(pull.digest)
        return known if known is not None else (await self._store.stat(blob_key(pull.digest))).size

    def _missed(self, pull: BlobPull, error: StorageError, began: float | None = None) -> None:
        """`began`: when the store was first asked whether it has the blob."""
        if isinstance(error, NotFound):
            if began is not None:
                self._news.missed(pull.digest, began)
            self._presence.forget(pull.digest)
            self._links.forget(pull.repository, pull.digest)
        elif not isinstance(error, LeftAlone):
            log.warning(
                "blob not read from the store, fetching it", digest=str(pull.digest), error=str(error)
            )
