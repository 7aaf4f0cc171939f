"""Manifests: small, kept byte for byte as received, in memory and in the store.

Rules:
1. A digest is immutable: a manifest that is here is served without asking for its bytes again, once the caller's
   right and the repository's link (or the upstream's word) are there.
2. What is read from the store is hashed before it is believed; what is in memory has been.
3. The store is written behind the answer: a slow store makes no slow pull. ``settled`` waits for it. At most BEHIND
   writes wait for a store; what comes then is not stored, and fetched again when it has left the memory.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import replace

from msrcache.cache.flight import Flights
from msrcache.cache.freshness import Freshness, Named
from msrcache.cache.layout import blob_key
from msrcache.cache.links import Links
from msrcache.cache.sizes import Sizes
from msrcache.oci.descriptor import Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.errors import ManifestInvalid, ManifestUnknown
from msrcache.oci.manifest import LARGEST, media_type_of
from msrcache.oci.names import Reference, Repository, Tag
from msrcache.oci.pulls import ManifestPull
from msrcache.oci.registry import SERVICE, Manifest, Outcome, Registry, Resolution
from msrcache.storage.errors import LeftAlone, NotFound, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.logs import get_logger

KEPT = 64 << 20
"""Bytes of all manifests kept in memory."""
BEHIND = 1000
"""Manifests and links on their way into the store."""
AWAITED = 10_000
"""Digests that tags were resolved to and whose manifest has not been asked for yet."""
AWAITED_TAGS = 100
"""Tags of one of them."""
LARGE = 64 * 1024
Subject = tuple[Repository, Reference]

log = get_logger(__name__)


class Manifests:
    """Serves manifests by digest and by tag."""

    def __init__(
        self,
        upstream: Registry,
        store: Store,
        links: Links,
        freshness: Freshness,
        sizes: Sizes,
        *,
        note: Callable[[Digest], None] = lambda _: None,
    ) -> None:
        """`note` is told of every use."""
        self._upstream = upstream
        self._store = store
        self._links = links
        self._freshness = freshness
        self._sizes = sizes
        self._note = note
        self._fetching: Flights[Digest, Manifest] = Flights()
        self._kept: OrderedDict[Digest, Manifest] = OrderedDict()
        self._kept_bytes = 0
        self._awaited: OrderedDict[Digest, dict[Subject, ManifestPull]] = OrderedDict()
        self._storing: dict[Digest, asyncio.Task[None]] = {}
        self._unstored: set[Digest] = set()
        self._writing: set[asyncio.Task[None]] = set()

    async def resolve(self, pull: ManifestPull) -> Resolution:
        """HEAD: without the bytes where the upstream's word is enough."""
        if isinstance(pull.reference, Digest):
            manifest = await self._by_digest(pull, pull.reference)
            return Resolution(manifest.descriptor, manifest.outcome)
        named = await self._freshness.resolve(pull)
        if named.resolution is None:
            manifest = await self._named(pull, named)
            return Resolution(manifest.descriptor, manifest.outcome)
        if not named.stale:
            self._note_tag(pull, named.digest)
        self._note(named.digest)
        outcome = Outcome.HIT if named.digest in self._kept else Outcome.MISS
        return Resolution(named.resolution.descriptor, outcome)

    async def manifest(self, pull: ManifestPull) -> Manifest:
        """GET: the bytes as the upstream gave them."""
        if isinstance(pull.reference, Digest):
            return await self._by_digest(pull, pull.reference)
        return await self._named(pull, await self._freshness.resolve(pull))

    async def settled(self) -> None:
        """Returns when the store has what was answered."""
        while self._writing:
            await asyncio.wait(self._writing)

    async def close(self) -> None:
        """Finish writing; stop fetching."""
        await self._fetching.close()
        await self.settled()

    async def _named(self, pull: ManifestPull, named: Named) -> Manifest:
        """The manifest that a tag was found to name. The tag's answer was the caller's verdict."""
        assert isinstance(pull.reference, Tag)
        kept = await self._here(named.digest)
        if named.stale:
            if kept is None:
                raise ManifestUnknown(
                    f"{pull.repository}:{pull.reference} was known, its manifest is not stored"
                )
            self._note(named.digest)
            return replace(kept, outcome=Outcome.STALE)
        manifest = kept if kept is not None else await self._fetched(pull, named.digest)
        self._note_tag(pull, named.digest)
        self._note(named.digest)
        return manifest

    async def _by_digest(self, pull: ManifestPull, digest: Digest) -> Manifest:
        kept = await self._here(digest)
        manifest = kept if kept is not None else await self._fetched(pull, digest)
        if kept is not None and not await self._admit(pull, digest):
            self._later(self._link_revision(pull, digest))
        self._note(digest)
        return manifest

    async def _admit(self, pull: ManifestPull, digest: Digest) -> bool:
        """Returns when the caller may read the manifest there; whether the repository was known to have it."""
        linked = await self._links.has_revision(pull.repository, digest)
        confirmed = await pull.right.ask(pull)
        if not linked and not confirmed:
            await self._upstream.resolve(replace(pull, reference=digest, head=True))
            pull.right.granted(pull.repository)
        return linked

    async def _here(self, digest: Digest) -> Manifest | None:
        if (kept := self._kept.get(digest)) is not None:
            self._kept.move_to_end(digest)
            return kept
        try:
            data = await self._store.get(blob_key(digest), LARGEST)
        except (NotFound, LeftAlone):
            return None
        except StorageError as error:
            log.warning("manifest not read from the store, fetching it", digest=str(digest), error=str(error))
            return None
        return await self._believed(digest, data)

    async def _believed(self, digest: Digest, data: bytes) -> Manifest | None:
        if await _digest_of(data, digest.algorithm) != digest:
            log.error("stored manifest is corrupt, fetching it again", digest=str(digest), bytes=len(data))
            return None
        try:
            media_type = media_type_of(data)
        except ManifestInvalid:
            return None  # a blob that is no manifest
        return self._keep(Manifest(Descriptor(media_type, digest, len(data)), data, Outcome.HIT))

    async def _fetched(self, pull: ManifestPull, digest: Digest) -> Manifest:
        landed = await self._fetching.fly(
            digest, lambda: self._fetch(pull, digest), board=lambda: self._admit(pull, digest)
        )
        return replace(landed.result, outcome=Outcome.JOINED if landed.joined else Outcome.MISS)

    async def _fetch(self, pull: ManifestPull, digest: Digest) -> Manifest:
        manifest = await self._upstream.manifest(replace(pull, reference=digest, head=False))
        pull.right.granted(pull.repository)
        self._keep(replace(manifest, outcome=Outcome.HIT))
        if (storing := self._later(self._store_manifest(pull, manifest))) is not None:
            self._storing[digest] = storing
        else:
            self._remember_unstored(digest)
        for noted in self._awaited.pop(digest, {}).values():
            self._note_tag(noted, digest)
        return manifest

    async def _store_manifest(self, pull: ManifestPull, manifest: Manifest) -> None:
        digest = manifest.descriptor.digest
        try:
            await self._store.put(blob_key(digest), manifest.data)
            await self._links.put_revision(pull.repository, digest)
            self._unstored.discard(digest)
        except StorageError as error:
            self._remember_unstored(digest)
            tell = log.debug if isinstance(error, LeftAlone) else log.error
            tell("manifest not stored: the next pull fetches it again", digest=str(digest), error=str(error))
        finally:
            self._storing.pop(digest, None)

    def _remember_unstored(self, digest: Digest) -> None:
        if len(self._unstored) > AWAITED:
            self._unstored.clear()
        self._unstored.add(digest)

    def _note_tag(self, pull: ManifestPull, digest: Digest) -> None:
        """Link the tag, now or when its manifest comes in (a client asks for the tag first, then for its digest)."""
        if digest in self._kept:
            self._later(self._link_tag(pull, digest))
            return
        tags = self._awaited.setdefault(digest, {})
        self._awaited.move_to_end(digest)
        subject = (pull.repository, pull.reference)
        tags.pop(subject, None)
        tags[subject] = pull.by(SERVICE)  # waits for long: no credential may
        if len(tags) > AWAITED_TAGS:
            del tags[next(iter(tags))]
        if len(self._awaited) > AWAITED:
            self._awaited.popitem(last=False)

    async def _link_revision(self, pull: ManifestPull, digest: Digest) -> None:
        if (storing := self._storing.get(digest)) is not None:
            await asyncio.wait({storing})
        if digest not in self._unstored:
            await self._links.put_revision(pull.repository, digest)

    async def _link_tag(self, pull: ManifestPull, digest: Digest) -> None:
        """The tag's link last, and only where its manifest is stored: no link may dangle."""
        assert isinstance(pull.reference, Tag)
        if (storing := self._storing.get(digest)) is not None:
            await asyncio.wait({storing})
        if digest in self._unstored:
            return
        if await self._links.put_revision(pull.repository, digest):
            await self._links.put_tag(pull.repository, pull.reference, digest)

    def _keep(self, manifest: Manifest) -> Manifest:
        digest = manifest.descriptor.digest
        if digest not in self._kept:
            self._kept_bytes += len(manifest.data)
            self._sizes.learn(manifest.data)
        self._kept[digest] = manifest
        self._kept.move_to_end(digest)
        while self._kept_bytes > KEPT:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= len(dropped.data)
        return manifest

    def _later(self, work: Coroutine[object, object, None]) -> asyncio.Task[None] | None:
        """None where too much is on its way already: then it is not done."""
        if len(self._writing) >= BEHIND:
            work.close()
            return None
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._written)
        return task

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("manifest not written behind", exc_info=error)


async def _digest_of(data: bytes, algorithm: str) -> Digest:
    if len(data) > LARGE:
        return await asyncio.to_thread(Digest.of, data, algorithm)
    return Digest.of(data, algorithm)
