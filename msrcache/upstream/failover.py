"""A blob's body that goes on from another upstream when one has given up on it.

Not the resuming within one upstream (`body` does that): here a whole attempt ended, and the next one is asked
for the rest as a Range of its own. As many times in a row without progress as `retries` says.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from msrcache.oci.errors import RegistryError, UpstreamBroken, UpstreamUnavailable
from msrcache.oci.pulls import BlobPull
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import Blob, Chunk, Elsewhere, FileSpan, Registry


@dataclass(frozen=True, slots=True)
class Opened:
    """A blob whose context is open, and where it is from."""

    stack: AsyncExitStack
    blob: Blob
    index: int


async def open_blob(upstream: Registry, pull: BlobPull, index: int) -> Opened:
    """Enters the blob's context; closing the stack leaves it."""
    stack = AsyncExitStack()
    return Opened(stack, await stack.enter_async_context(upstream.blob(pull)), index)


Reopen = Callable[[BlobPull, Opened, RegistryError], Awaitable[Opened]]
"""(the rest, what failed, how) -> the rest from elsewhere. Raises RegistryError."""


class FailoverBody:
    """Exactly the span's bytes, or an error. One reader at a time."""

    def __init__(self, pull: BlobPull, opened: Opened, *, reopen: Reopen, retries: int) -> None:
        self._pull = pull
        self._opened = opened
        self._reopen = reopen
        self._retries = retries
        self._size = opened.blob.descriptor.size
        self._span = opened.blob.span
        self._offset = self._span.start
        self._failures = 0
        self._chunks = _body(opened.blob)

    def __aiter__(self) -> "FailoverBody":
        return self

    async def __anext__(self) -> Chunk:
        while True:
            try:
                chunk = await anext(self._chunks)
            except (UpstreamUnavailable, UpstreamBroken) as error:
                await self._go_on(error)
                continue
            self._failures = 0
            self._offset += chunk.stop - chunk.start if isinstance(chunk, FileSpan) else len(chunk)
            return chunk

    async def close(self) -> None:
        """Leaves the context that is open."""
        await self._opened.stack.aclose()

    async def _go_on(self, error: RegistryError) -> None:
        self._failures += 1
        if self._failures > self._retries or self._offset >= self._span.stop:
            raise error
        await self._opened.stack.aclose()
        rest = replace(self._pull, range=RangeRequest(self._offset, self._span.stop - 1))
        opened = await self._reopen(rest, self._opened, error)
        self._opened = opened
        size, now = self._size, opened.blob.descriptor.size
        if now != size or opened.blob.span.start != self._offset:
            raise UpstreamBroken(f"two upstreams disagree about {self._pull.digest}: {size} bytes and {now}")
        self._chunks = _body(opened.blob)


def _body(blob: Blob) -> AsyncIterator[Chunk]:
    if isinstance(blob.body, Elsewhere):
        raise UpstreamBroken("a body that had begun can't go on somewhere else")
    return blob.body
