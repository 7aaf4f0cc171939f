"""Bodies for readers: of a stored object, of a fill's tail, straight from the upstream.

Each yields exactly its span or raises. What a reader gets straight from the upstream and starts at byte 0 is hashed
here, and its last byte is held back until the digest is right; a part of a blob cannot be.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from msrcache.cache.tail import Spilled, Tail
from msrcache.oci.digest import Hasher
from msrcache.oci.errors import UpstreamBroken
from msrcache.oci.pulls import BlobPull
from msrcache.oci.ranges import RangeRequest, Span
from msrcache.oci.registry import Chunk, Elsewhere, FileSpan, Registry
from msrcache.storage.driver import Content, FileContent

LARGE = 64 * 1024
"""Bytes above which hashing leaves the loop."""


async def of_content(content: Content, span: Span) -> AsyncGenerator[Chunk, None]:
    """A stored object's bytes."""
    if isinstance(content, FileContent):
        if span.size:
            yield FileSpan(content.fd, span.start, span.stop)
        return
    async for chunk in content.chunks:
        yield chunk


async def of_file(fd: int, span: Span) -> AsyncGenerator[Chunk, None]:
    """A part of an open file; the descriptor is the caller's."""
    if span.size:
        yield FileSpan(fd, span.start, span.stop)


class Reading:
    """Reads for one pull, with a way out when the spool ends early."""

    def __init__(self, upstream: Registry, pull: BlobPull) -> None:
        self._upstream = upstream
        self._pull = pull

    async def of_tail(self, tail: Tail, span: Span) -> AsyncGenerator[Chunk, None]:
        """A fill's bytes as they come; after a spill, the upstream's, under this pull's own right."""
        offset = span.start
        while offset < span.stop:
            try:
                stop = await tail.available(offset, span)
            except Spilled as spilled:
                if spilled.written >= tail.size:  # all of it came; only the verification did not
                    spilled.hasher.copy().verify(self._pull.digest, tail.size)
                    yield FileSpan(tail.fd, offset, span.stop)
                    return
                hasher = spilled.hasher.copy() if offset == spilled.written and span.start == 0 else None
                async with aclosing(self.direct(Span(offset, span.stop), tail.size, hasher)) as rest:
                    async for chunk in rest:
                        yield chunk
                return
            yield FileSpan(tail.fd, offset, stop)
            offset = stop

    async def direct(
        self, span: Span, size: int, hasher: Hasher | None
    ) -> AsyncGenerator[bytes | memoryview, None]:
        """``span`` from the upstream. ``hasher`` has read what precedes it, if the whole blob is to be verified."""
        pull = replace(self._pull, head=False, range=RangeRequest(span.start, span.stop - 1))
        if span == Span.whole(size):
            pull = replace(pull, range=None)
        async with self._upstream.blob(pull) as source:
            if source.span != span or source.descriptor.size != size:
                raise UpstreamBroken(
                    f"the upstream sent {source.span} of {source.descriptor.size}, asked for {span}"
                )
            assert not isinstance(source.body, Elsewhere), "an upstream client follows redirects itself"
            checked = verified(source.body, pull, hasher if span.stop == size else None, size)
            async with aclosing(checked) as body:
                async for chunk in body:
                    yield chunk


async def verified(
    body: AsyncIterator[Chunk], pull: BlobPull, hasher: Hasher | None, size: int
) -> AsyncGenerator[bytes | memoryview, None]:
    """The body, its last byte held back until the digest is right; as it is where there is no hasher."""
    held: bytes | memoryview = b""
    async for chunk in body:
        assert not isinstance(chunk, FileSpan), "an upstream sends bytes, not files"
        if hasher is None:
            yield chunk
            continue
        await _update(hasher, chunk)
        if not chunk:
            continue
        if held:
            yield held
        if len(chunk) > 1:
            yield chunk[:-1]
        held = chunk[-1:]
    if hasher is not None:
        hasher.verify(pull.digest, size)
        if held:
            yield held


async def _update(hasher: Hasher, chunk: bytes | memoryview) -> None:
    if len(chunk) > LARGE:
        await asyncio.to_thread(hasher.update, chunk)
    else:
        hasher.update(chunk)
