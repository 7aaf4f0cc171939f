"""The pull-through cache: a registry over a registry and a store.

A pull of a blob, in the order in which it is decided:
1. a fill of the digest is under way here: the caller's own question, then its tail (joined);
2. the store has it: the caller's own question and the repository's link, then the object or its URL (hit: hits);
3. neither: a fill with the caller's own credential; its answer is the caller's verdict (miss). Where another replica
   fills, its bytes, after the caller's own question (followed);
4. no place in the queue in time, no room in the spool, or a range far beyond the tail: passed through, not stored.

Invariants kept here: a store that fails is a miss; a refusal is nobody else's answer; no byte before the verdict.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace

from msrcache.cache.catalog import StoredCatalog
from msrcache.cache.endings import FillLeft, FoundMeanwhile
from msrcache.cache.fill import Fill
from msrcache.cache.fills import Fills
from msrcache.cache.freshness import Freshness
from msrcache.cache.hits import Hits
from msrcache.cache.kitchen import Kitchen
from msrcache.cache.manifests import Manifests
from msrcache.cache.ownfills import OwnFills
from msrcache.cache.reading import Reading, verified
from msrcache.cache.redirects import Redirects
from msrcache.cache.spool import SpoolFull
from msrcache.cache.tail import Tail
from msrcache.oci.digest import Hasher
from msrcache.oci.errors import RegistryError, UpstreamUnavailable
from msrcache.oci.pulls import BlobPull, Catalog, ManifestPull, Ping, Referrers, TagsList
from msrcache.oci.ranges import RangeRequest, Span
from msrcache.oci.registry import Answer, Blob, Elsewhere, FileSpan, Manifest, Outcome, Resolution
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.trail import TRAIL

FAR = 32 << 20
"""Bytes beyond the tail from which a range is passed through instead of waited for."""

FILL_ENDINGS = (TimeoutError, SpoolFull, OSError, FillLeft, FoundMeanwhile, RegistryError)
"""What a fill, or waiting for it, may end with before its size is known."""

log = get_logger(__name__)


class PullThrough:
    """Implements Registry over ``kitchen.upstream`` and ``kitchen.store``."""

    def __init__(
        self,
        kitchen: Kitchen,
        freshness: Freshness,
        redirects: Redirects,
        *,
        catalog: StoredCatalog | None = None,
    ) -> None:
        """``catalog`` answers _catalog from the store in the upstream's stead."""
        self._kitchen = kitchen
        self._upstream = kitchen.upstream
        self._redirects = redirects
        self._hits = Hits(kitchen, redirects, heal=self._resumed)
        self._freshness = freshness
        self._manifests = Manifests(
            kitchen.upstream,
            kitchen.store,
            kitchen.links,
            freshness,
            kitchen.sizes,
            note=kitchen.uses.note,
        )
        self._catalog = catalog
        self.fills = Fills(kitchen)
        self.own_fills = OwnFills(self.fills.find, kitchen.leases)
        """What other replicas follow."""

    def __repr__(self) -> str:
        return f"<PullThrough {self.fills!r}>"

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        """HEAD."""
        if isinstance(pull, ManifestPull):
            return await self._manifests.resolve(pull)
        fill = self.fills.find(pull.digest)
        if fill is not None and fill.tail is not None:
            await self._admit_joiner(pull, fill)
            return Resolution(fill.descriptor, Outcome.JOINED)
        descriptor = await self._hits.descriptor(pull)
        if descriptor is not None:
            return Resolution(descriptor, Outcome.HIT)
        resolution = await self._upstream.resolve(pull)
        pull.right.granted(pull.repository)
        return replace(resolution, outcome=Outcome.MISS)

    async def manifest(self, pull: ManifestPull) -> Manifest:
        """GET of a manifest."""
        return await self._manifests.manifest(pull)

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        """GET of a blob or a part of it: from a fill under way, from the store, or from a new fill."""
        async with AsyncExitStack() as stack:
            blob = None
            if self.fills.find(pull.digest) is None:
                ended = self.fills.ended
                blob = await self._hits.blob(pull, stack)
                if blob is None and self.fills.ended != ended and self.fills.find(pull.digest) is None:
                    # a fill may have come and gone while the store said no
                    blob = await self._hits.blob(pull, stack)
            yield blob if blob is not None else await self._filled(pull, stack)

    async def relay(self, pull: Ping | TagsList | Referrers | Catalog) -> Answer:
        """What is not cached goes to the upstream with the caller's credential."""
        if isinstance(pull, Catalog) and self._catalog is not None:
            await pull.right.ask(pull)  # repository names are content too
            return await self._catalog.answer(pull)
        return await self._upstream.relay(pull)

    async def settled(self) -> None:
        """Returns when nothing is being filled or written behind."""
        await self.fills.settled()
        await self._hits.settled()
        await self._manifests.settled()

    async def close(self) -> None:
        """Stop filling; finish what is being written behind."""
        await self._freshness.close()
        await self._redirects.close()
        await self.fills.close()
        await self._hits.settled()
        await self._manifests.close()

    async def _admit_joiner(self, pull: BlobPull, fill: Fill) -> None:
        """A fill vouches for its own repository; to one who asks in another, its digest is only a guess.

        As it is to everybody where the bytes come from another replica: for those see `_admitted`.
        """
        if fill.pull.repository == pull.repository and (fill.vouched or fill.tail is None):
            await pull.right.ask(pull)
        else:
            await self._hits.admit(pull)

    async def _admitted(self, pull: BlobPull, fill: Fill, outcome: Outcome) -> Outcome:
        """How the pull is answered, once it is known where the fill's bytes come from, and its caller admitted."""
        if not fill.vouched:
            await self._hits.admit(pull)
            return Outcome.FOLLOWED if outcome is Outcome.MISS else outcome
        if outcome is Outcome.MISS:
            pull.right.granted(pull.repository)
        return outcome

    async def _resumed(self, pull: BlobPull, span: Span) -> AsyncIterator[bytes | memoryview]:
        """The rest of a stored blob whose file could not be read under the server: from a fill, which heals it."""
        log.error(
            "stored blob could not be read to its end, fetching it", digest=str(pull.digest), at=span.start
        )
        part = replace(pull, head=False, range=RangeRequest(span.start, span.stop - 1))
        async with AsyncExitStack() as stack:
            blob = await self._filled(part, stack, alone=True)
            assert not isinstance(blob.body, Elsewhere)
            async for chunk in blob.body:
                if not isinstance(chunk, FileSpan):
                    yield chunk
                    continue
                async for piece in self._kitchen.spool.read(chunk):
                    yield piece

    # Neither here nor there: a fill.

    async def _filled(self, pull: BlobPull, stack: AsyncExitStack, *, alone: bool = False) -> Blob:
        """``alone``: the store has it and cannot be read, so the fleet, which would point there, is not asked."""
        while True:
            fill, outcome = self._board(pull, alone=alone)
            hold = await stack.enter_async_context(AsyncExitStack())
            await hold.enter_async_context(fill.held())
            if (trail := TRAIL.get()) is not None:
                trail.follow(fill.trail)
            if outcome is Outcome.JOINED:
                await self._admit_joiner(pull, fill)
            try:
                tail = await self._turn(fill)
            except FILL_ENDINGS as error:
                await hold.aclose()
                self.fills.dismiss(fill)
                if (blob := await self._otherwise(pull, stack, error, outcome, alone=alone)) is not None:
                    return blob
                alone = alone or isinstance(error, FoundMeanwhile)
            else:
                return await self._followed(pull, stack, fill, tail, outcome)

    async def _otherwise(
        self, pull: BlobPull, stack: AsyncExitStack, error: Exception, outcome: Outcome, *, alone: bool
    ) -> Blob | None:
        """What a pull gets whose fill ended before it began; None: another fill. Raises what is its own answer."""
        if isinstance(error, FoundMeanwhile):
            return None if alone else await self._hits.blob(pull, stack)
        if _again(error, outcome):
            return None
        if isinstance(error, RegistryError):
            raise error
        return await self._passed(pull, stack, reason=_why(error, pull))

    def _board(self, pull: BlobPull, *, alone: bool) -> tuple[Fill, Outcome]:
        fill = self.fills.find(pull.digest)
        if fill is not None:
            return fill, Outcome.JOINED
        return self.fills.open(pull, alone=alone), Outcome.MISS

    async def _turn(self, fill: Fill) -> Tail:
        """The fill's tail. Raises TimeoutError when it has not had its turn in time, or what ended it."""
        async with asyncio.timeout(self._kitchen.settings.queue):
            await fill.begun()
        return await fill.opened()

    async def _followed(
        self, pull: BlobPull, stack: AsyncExitStack, fill: Fill, tail: Tail, outcome: Outcome
    ) -> Blob:
        outcome = await self._admitted(pull, fill, outcome)
        self._kitchen.uses.note(pull.digest)
        if self._kitchen.local is not None:
            self._kitchen.local.note_use(pull.digest)
        span = _resolve(pull.range, tail.size)
        if span.start > tail.written + FAR:
            return await self._passed(pull, stack, reason="range")
        if not tail.size:
            await tail.settled()  # there is no byte that could be held back
        closing = await stack.enter_async_context(aclosing(Reading(self._upstream, pull).of_tail(tail, span)))
        return Blob(
            descriptor=fill.descriptor,
            span=span,
            outcome=outcome,
            body=closing,
            resume=lambda offset: self._unspooled(pull, span, tail.size, offset),
        )

    async def _unspooled(
        self, pull: BlobPull, span: Span, size: int, offset: int
    ) -> AsyncIterator[bytes | memoryview]:
        """The rest for a reader of a fill whose spool file could not be read under the server.

        A reader of the whole blob was promised right bytes, and nobody knows the hash of what it has got: all is
        fetched once more and hashed, what it has is skipped, and its last byte waits for the digest.
        """
        log.error(
            "spool file could not be read, going on with the upstream", digest=str(pull.digest), at=offset
        )
        self._kitchen.metrics.passed_total.labels("spool").inc()
        wanted, skip, hasher = Span(offset, span.stop), 0, None
        if span == Span.whole(size):
            wanted, skip, hasher = span, offset, Hasher(pull.digest.algorithm)
        async with aclosing(Reading(self._upstream, pull).direct(wanted, size, hasher)) as body:
            async for chunk in body:
                if len(chunk) > skip:
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))

    async def _passed(self, pull: BlobPull, stack: AsyncExitStack, *, reason: str) -> Blob:
        """Straight from the upstream, under the caller's own right; nothing is stored."""
        self._kitchen.metrics.passed_total.labels(reason).inc()
        source = await stack.enter_async_context(self._upstream.blob(pull))
        pull.right.granted(pull.repository)
        size = source.descriptor.size
        assert not isinstance(source.body, Elsewhere)
        hasher = Hasher(pull.digest.algorithm) if source.span == Span.whole(size) else None
        body = await stack.enter_async_context(aclosing(verified(source.body, pull, hasher, size)))
        return replace(source, outcome=Outcome.PASS, body=body)


def _resolve(wanted: RangeRequest | None, size: int) -> Span:
    return Span.whole(size) if wanted is None else wanted.resolve(size)


def _again(error: BaseException, outcome: Outcome) -> bool:
    """Whether to open another flight: only complete fills and outages are shared with those who joined (pure)."""
    if isinstance(error, FillLeft):
        return True
    shared = isinstance(error, UpstreamUnavailable) or not isinstance(error, RegistryError)
    return outcome is Outcome.JOINED and not shared


def _why(error: BaseException, pull: BlobPull) -> str:
    """The reason for passing a pull through; a full or sick spool is told in the log."""
    if isinstance(error, TimeoutError):
        return "queue"
    log.warning("blob passed through, not stored", digest=str(pull.digest), error=str(error))
    return "spool"
