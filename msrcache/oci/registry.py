"""The seam of the whole house: what an image is pulled from, and what comes back.

The HTTP client of an upstream is a Registry; several of them balanced are one; the pull-through cache over
them is one; the HTTP server serves one. Nothing here does anything: values and protocols only.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from msrcache.oci.descriptor import Descriptor
from msrcache.oci.pulls import BlobPull, ManifestPull, Relayed
from msrcache.oci.ranges import Span
from msrcache.oci.right import SERVICE, Credential, Right

__all__ = [
    "SERVICE",
    "Answer",
    "Blob",
    "Chunk",
    "Credential",
    "Elsewhere",
    "FileSpan",
    "Manifest",
    "Outcome",
    "Registry",
    "Resolution",
    "Right",
]


class Outcome(StrEnum):
    """How a pull was answered: the metric's label, the access log's field and the X-Cache header."""

    HIT = "hit"  # found
    MISS = "miss"  # we filled
    JOINED = "joined"  # waited on a fill in this process
    FOLLOWED = "followed"  # waited on another replica's fill
    STALE = "stale"  # served past its time, the upstream being away
    PASS = "pass"  # noqa: S105 - relayed, nothing stored


@dataclass(frozen=True, slots=True)
class FileSpan:
    """Bytes [start, stop) of an open file, all of them already there. The descriptor is lent, not given."""

    fd: int
    start: int
    stop: int


Chunk = bytes | memoryview | FileSpan
"""Bytes that nobody writes again (the reader may keep them), or a part of a file."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The content is at this address (307). It may be signed, so it is a secret: repr does not show it."""

    url: str = field(repr=False)


@dataclass(slots=True)
class Blob:
    """A blob, or one span of it, while its context is open.

    `span` is what this answer carries, already resolved against `descriptor.size`. `body` yields exactly
    `span.size` bytes, or raises RegistryError, StorageError or OSError: then the answer is cut. It may wait
    inside. The files of its FileSpans stay open as long as the blob's context.
    `resume` gives the rest from an absolute offset by another way, for when reading a FileSpan failed under
    the reader (EIO, ESTALE); calling it reports that failure.
    """

    descriptor: Descriptor
    span: Span
    outcome: Outcome
    body: AsyncIterator[Chunk] | Elsewhere
    resume: Callable[[int], AsyncIterator[bytes | memoryview]] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index, its bytes as received; the digest is our own hash of them."""

    descriptor: Descriptor
    data: bytes = field(repr=False)
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a HEAD tells."""

    descriptor: Descriptor
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer passed on as it came; `headers` are only those to pass on."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Registry(Protocol):
    """A place images are pulled from. Every method raises RegistryError for what it cannot give."""

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        """What the content is, without its bytes (HEAD)."""

    async def manifest(self, pull: ManifestPull) -> Manifest:
        """The manifest, whole, bytes as received."""

    def blob(self, pull: BlobPull) -> AbstractAsyncContextManager[Blob]:
        """The blob, while the context is open. Entering raises what is known before the first byte."""

    async def relay(self, pull: Relayed) -> Answer:
        """The upstream's own answer to what is not cached."""
