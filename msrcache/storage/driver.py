"""The storage contract: what a driver of a storage service promises.

Ten methods over flat keys; no move, append, rename, directories or locks. Every promise is a clause of the
contract suite, proved with two instances of a driver on one store: what one has done the other sees.
Not here: the check of keys, deadlines, retries, metrics: those are the portable half's, in `store`.
Errors are those of `errors`; every method may raise StorageError, and none raises anything else.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, TypeAlias, runtime_checkable

from msrcache.oci.ranges import Span

REPLACED: Final = 1 << 20
"""Bytes up to which an object may be replaced by other content. A larger one is named by its digest."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object: bytes, time stamp (seconds, by its own clock), version if any.

    `checksum` is the service's own of the whole object, in whatever form; a commit tells it only where it is of the
    bytes that this writer sent, so that whoever stats the object later can compare.
    """

    size: int
    modified: float
    etag: str | None = None
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class FileContent:
    """An object that is a file: bytes `span` of the open `fd`, which lives as long as the context."""

    info: ObjectInfo
    span: Span
    fd: int


@dataclass(frozen=True, slots=True)
class StreamContent:
    """An object that comes in pieces: exactly span.size bytes in all, or an error."""

    info: ObjectInfo
    span: Span
    chunks: AsyncIterator[bytes | memoryview]


Content: TypeAlias = FileContent | StreamContent


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """The local file that a writer is given spans of.

    Where the store is on the same file system, and the spans cover the file whole, a writer may link `path`
    into place: nobody changes the file any more once its last span was written.
    """

    fd: int
    path: Path


class Writer(Protocol):
    """Writes one large object. Leaving the context without commit aborts."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def write(self, source: SpoolFile, span: Span) -> None:
        """Take the next bytes. Spans follow each other from 0, all in one file, which has the bytes already.

        The writer keeps what it needs of the file: the descriptor may be closed as soon as this returns or
        raises, the path may go after commit.
        """
        ...

    async def commit(self) -> ObjectInfo:
        """Publish the object whole and durable. Two writers of one key leave one whole object."""
        ...

    async def abort(self) -> None:
        """Drop what was written; idempotent, and without effect after commit."""
        ...


class Driver(Protocol):
    """A storage service. Keys are checked before they come here."""

    name: str
    """As in config.yml and in errors."""
    create_is_exclusive: bool
    """Whether of many creates at once exactly one wins; the probe may clear it."""

    async def stat(self, key: str) -> ObjectInfo:
        """In one round trip; sees every put, create and commit that completed on any replica.

        Raises NotFound.
        """
        ...

    def open(self, key: str, span: Span | None = None) -> AbstractAsyncContextManager[Content]:
        """The object or a span of it, in one round trip with no stat before it; an open object outlives its
        replacement and its deletion. Sees every put of at most REPLACED bytes that completed on any replica.

        A stop beyond the end is clamped; a start at or beyond it raises RangeNotSatisfiable, so every span of
        an empty object does. Raises NotFound.
        """
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Write a small object; atomic, durable; replaces. One of more than REPLACED bytes replaces only itself."""
        ...

    async def create(self, key: str, data: bytes) -> bool:
        """True if we made it, False if something was there."""
        ...

    def writer(self, key: str) -> Writer:
        """Write a large object; nothing is visible before commit."""
        ...

    async def delete(self, *keys: str) -> None:
        """Remove objects; what is not there is no error. In bulk where the service has it."""
        ...

    def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """All objects below the prefix, by segment: `a/b` has `a/b/c`, not `a/bc` nor `a/b`; `""` has all.

        In no order, and it may lag: nothing that must be right depends on it.
        """
        ...

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """A GET URL for `ttl` seconds that honours Range and needs no header, or None.

        Signed here: the service is not asked, not even whether the object is there. `endpoint` (scheme, host,
        port) is where the one who gets the URL reaches the service; empty: where we do.
        """
        ...

    async def sweep(self, older_than: float) -> int:
        """Remove what dead writers left more than `older_than` seconds ago, spare the living; how many."""
        ...

    async def close(self) -> None:
        """Let go of threads and connections; idempotent."""
        ...


@runtime_checkable
class Twin(Protocol):
    """A driver that can make another of itself; where one cannot, its parameters make another (`drivers`)."""

    def twin(self) -> Driver:
        """A second instance on the same store, with connections of its own."""
        ...


@runtime_checkable
class Versioned(Protocol):
    """A driver whose service removes an object only if it is the one that was seen."""

    async def delete_version(self, key: str, info: ObjectInfo) -> None:
        """Remove it; where another stands there by now, or nothing does, that is no error."""
        ...


@runtime_checkable
class Situated(Protocol):
    """A driver that can say more of where its store stands: the mount, for one."""

    async def situation(self) -> Sequence[str]:
        """What an operator should know of it, one sentence each; the worst first."""
        ...
