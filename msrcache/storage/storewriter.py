"""The portable half of writing one large object: a deadline for each piece and for the commit.

Not here: what a piece becomes in the service, which is the driver's.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

from msrcache.oci.ranges import Span
from msrcache.storage.calls import Calls, Deadlines
from msrcache.storage.driver import ObjectInfo, SpoolFile, Writer
from msrcache.storage.errors import StorageError

T = TypeVar("T")

PIECE: Final = 64 << 20
"""Bytes given to a writer at once, so that its deadline is one of progress, not of size."""


class StoreWriter:
    """Implements Writer over the driver's, with a deadline for each piece and for the commit."""

    def __init__(
        self,
        writer: Writer,
        key: str,
        *,
        calls: Calls,
        deadlines: Deadlines,
        writing: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        """`writing` stands around what shows whether the store can be written, by operation."""
        self._writer = writer
        self._key = key
        self._calls = calls
        self._deadlines = deadlines
        self._writing = writing

    def __repr__(self) -> str:
        return f"<StoreWriter {self._writer!r}>"

    async def __aenter__(self) -> Self:
        with self._writing("writer"):
            await self._call("writer", self._writer.__aenter__, self._deadlines.change)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(lambda: self._writer.__aexit__(kind, error, trace))

    async def write(self, source: SpoolFile, span: Span) -> None:
        """As Writer."""
        # An empty span is given on too: a writer that has ended refuses it.
        for start in range(span.start, max(span.stop, span.start + 1), PIECE):
            piece = Span(start, min(span.stop, start + PIECE))
            with self._writing("write"):
                write = partial(self._writer.write, source, piece)
                await self._call("write", write, self._deadlines.stall)
            self._calls.moved("written", piece.size)

    async def commit(self) -> ObjectInfo:
        """As Writer."""
        with self._writing("commit"):
            return await self._call("commit", self._writer.commit, self._deadlines.commit)

    async def abort(self) -> None:
        """As Writer. A store that cannot be asked keeps its litter for the sweep: no error."""
        await self._leave(self._writer.abort)

    async def _leave(self, call: Callable[[], Awaitable[None]]) -> None:
        with suppress(StorageError):
            await self._call("abort", call, self._deadlines.change)

    async def _call(self, operation: str, call: Callable[[], Awaitable[T]], deadline: float) -> T:
        return await self._calls.once(operation, self._key, call, deadline=deadline)
