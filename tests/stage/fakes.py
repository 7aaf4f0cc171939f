"""A registry and gates made by hand for tests of the server: content in memory or files, endings as told."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from msrcache.access.caller import Caller
from msrcache.oci.descriptor import Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.errors import BlobUnknown, ManifestUnknown
from msrcache.oci.pulls import BlobPull, ManifestPull, Pull, Relayed
from msrcache.oci.ranges import Span
from msrcache.oci.registry import (
    SERVICE,
    Answer,
    Blob,
    Chunk,
    Elsewhere,
    Manifest,
    Outcome,
    Resolution,
    Right,
)

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
Body = Callable[[Span], AsyncIterator[Chunk]]


@dataclass(slots=True)
class StoredBlob:
    """A blob of the fake: what it is, and how its bytes come."""

    descriptor: Descriptor
    body: Body
    resume: Callable[[int], AsyncIterator[bytes]] | None = None
    elsewhere: Elsewhere | None = None
    outcome: Outcome = Outcome.HIT


@dataclass(slots=True)
class FakeRegistry:
    """Holds what it was given; `ledger` has every question; `failure` is raised instead of any answer."""

    blobs: dict[Digest, StoredBlob] = field(default_factory=dict)
    manifests: dict[str, tuple[Descriptor, bytes]] = field(default_factory=dict)
    relayed: Answer = field(default_factory=lambda: Answer(200, {"Content-Type": "application/json"}, b"{}"))
    ledger: list[Pull] = field(default_factory=list)
    failure: Exception | None = None
    before: Callable[[Pull], Awaitable[None]] | None = None

    def hold(self, data: bytes, body: Body | None = None) -> Digest:
        """Have a blob of these bytes, coming whole unless `body` says otherwise; the same digest in any case."""
        digest = Digest.of(data)
        descriptor = Descriptor("application/octet-stream", digest, len(data))
        told = body or (lambda span: _whole(data[span.start : span.stop]))
        self.blobs[digest] = StoredBlob(descriptor, told)
        return digest

    def hold_manifest(self, reference: str, data: bytes, media_type: str = MANIFEST_TYPE) -> Digest:
        """Have a manifest under a tag, and under its digest."""
        digest = Digest.of(data)
        self.manifests[reference] = self.manifests[str(digest)] = (
            Descriptor(media_type, digest, len(data)),
            data,
        )
        return digest

    async def _asked(self, pull: Pull) -> None:
        self.ledger.append(pull)
        if self.before is not None:
            await self.before(pull)
        if self.failure is not None:
            raise self.failure

    def _found(self, pull: ManifestPull) -> tuple[Descriptor, bytes]:
        if str(pull.reference) not in self.manifests:
            raise ManifestUnknown
        return self.manifests[str(pull.reference)]

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        """As Registry.resolve."""
        await self._asked(pull)
        if isinstance(pull, ManifestPull):
            return Resolution(self._found(pull)[0], Outcome.HIT)
        if pull.digest not in self.blobs:
            raise BlobUnknown
        return Resolution(self.blobs[pull.digest].descriptor, Outcome.HIT)

    async def manifest(self, pull: ManifestPull) -> Manifest:
        """As Registry.manifest."""
        await self._asked(pull)
        descriptor, data = self._found(pull)
        return Manifest(descriptor, data, Outcome.HIT)

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        """As Registry.blob."""
        await self._asked(pull)
        if pull.digest not in self.blobs:
            raise BlobUnknown
        stored = self.blobs[pull.digest]
        size = stored.descriptor.size
        span = pull.range.resolve(size) if pull.range else Span.whole(size)
        body = stored.elsewhere or stored.body(span)
        yield Blob(stored.descriptor, span, stored.outcome, body, stored.resume)

    async def relay(self, pull: Relayed) -> Answer:
        """As Registry.relay."""
        await self._asked(pull)
        return self.relayed


async def _whole(data: bytes) -> AsyncIterator[Chunk]:
    if data:
        yield data


@dataclass(slots=True)
class OpenGate:
    """Lets everybody in, or raises what it is told to; remembers who came."""

    failure: Exception | None = None
    callers: list[Caller] = field(default_factory=list)

    async def admit(self, caller: Caller, pull: Pull) -> Right:
        """As Gate.admit."""
        self.callers.append(caller)
        if self.failure is not None:
            raise self.failure
        return SERVICE

    async def ping(self, caller: Caller) -> None:
        """As Gate.ping."""
        self.callers.append(caller)
        if self.failure is not None:
            raise self.failure

    def identity(self, caller: Caller) -> str:
        """As Gate.identity."""
        return "-" if not caller.credential.header else "somebody"

    async def close(self) -> None:
        """As Gate.close."""
