"""An upstream made by hand for tests of the cache: published content, barriers, breaks, refusals, and a ledger."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from msrcache.oci.descriptor import Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.errors import BlobUnknown, ManifestUnknown
from msrcache.oci.names import Repository
from msrcache.oci.pulls import BlobPull, ManifestPull, Pull, Relayed
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Answer, Blob, Chunk, Credential, Manifest, Outcome, Resolution

BLOB_TYPE = "application/octet-stream"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@dataclass(slots=True)
class FakeUpstream:
    """Implements Registry. Content belongs to a repository; what is not published there is unknown there.

    `hold_at` stops bodies before that byte until `release` is set, and sets `reached`; `breaks` maps a byte to the
    error raised there; `refused` maps a credential to its error; `corrupt` replaces the bytes of a digest.
    """

    blobs: dict[tuple[Repository, Digest], bytes] = field(default_factory=dict)
    manifests: dict[tuple[Repository, str], bytes] = field(default_factory=dict)
    ledger: list[Pull] = field(default_factory=list)
    refused: dict[Credential | None, Exception] = field(default_factory=dict)
    corrupt: dict[Digest, bytes] = field(default_factory=dict)
    breaks: dict[int, Exception] = field(default_factory=dict)
    closing: Exception | None = None
    hold_at: int | None = None
    chunk: int = 64 * 1024
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, repository: str, data: bytes) -> Digest:
        """Have a blob in a repository."""
        digest = Digest.of(data)
        self.blobs[Repository.parse(repository), digest] = data
        return digest

    def publish_manifest(self, repository: str, tag: str, data: bytes) -> Digest:
        """Have a manifest in a repository, by tag and by digest."""
        digest = Digest.of(data)
        for reference in (tag, str(digest)):
            self.manifests[Repository.parse(repository), reference] = data
        return digest

    def fetched(self) -> list[BlobPull]:
        """The requests for the bytes of blobs."""
        return [pull for pull in self.ledger if isinstance(pull, BlobPull) and not pull.head]

    def _asked(self, pull: Pull) -> None:
        self.ledger.append(pull)
        if (error := self.refused.get(pull.right.credential)) is not None:
            raise error

    def _manifest(self, pull: ManifestPull) -> tuple[Descriptor, bytes]:
        data = self.manifests.get((pull.repository, str(pull.reference)))
        if data is None:
            raise ManifestUnknown(f"{pull.repository} has no {pull.reference}")
        return Descriptor(MANIFEST_TYPE, Digest.of(data), len(data)), data

    def _blob(self, pull: BlobPull) -> bytes:
        if (pull.repository, pull.digest) not in self.blobs:
            raise BlobUnknown(f"{pull.repository} has no {pull.digest}")
        return self.corrupt.get(pull.digest, self.blobs[pull.repository, pull.digest])

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        """As Registry.resolve."""
        self._asked(pull)
        if isinstance(pull, ManifestPull):
            return Resolution(self._manifest(pull)[0], Outcome.PASS)
        return Resolution(Descriptor(BLOB_TYPE, pull.digest, len(self._blob(pull))), Outcome.PASS)

    async def manifest(self, pull: ManifestPull) -> Manifest:
        """As Registry.manifest; held like a body."""
        self._asked(pull)
        descriptor, data = self._manifest(pull)
        await self._barrier(0, len(data))
        return Manifest(descriptor, data, Outcome.PASS)

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        """As Registry.blob."""
        self._asked(pull)
        data = self._blob(pull)
        span = pull.range.resolve(len(data)) if pull.range else Span.whole(len(data))
        yield Blob(Descriptor(BLOB_TYPE, pull.digest, len(data)), span, Outcome.PASS, self._body(data, span))
        if self.closing is not None:
            raise self.closing

    async def relay(self, pull: Relayed) -> Answer:
        """As Registry.relay."""
        self._asked(pull)
        return Answer(200, {}, b"{}")

    async def _body(self, data: bytes, span: Span) -> AsyncIterator[Chunk]:
        for start in range(span.start, span.stop, self.chunk):
            stop = min(span.stop, start + self.chunk)
            for at, error in self.breaks.items():
                if start <= at < stop:
                    raise error
            await self._barrier(start, stop)
            yield data[start:stop]

    async def _barrier(self, start: int, stop: int) -> None:
        if self.hold_at is not None and start <= self.hold_at < stop:
            self.reached.set()
            await self.release.wait()
