"""A stored object's body over HTTP, whole although its connection breaks: the rest of it comes by Range over another.

Rules:
1. The rest is asked of the very object whose first bytes came (its etag, or generation): where another one was put
   there meanwhile that is an error, never a mixture.
2. A resume that brings a byte is forgotten; one that brings none counts. There are as many as there are pauses.

Not here: how a service is asked (the driver's `Rest`), and how bytes are read from a socket (`sockets.bodies`).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeAlias

import aiohttp

from msrcache.oci.ranges import ContentRangeInvalid, Span, parse_content_range
from msrcache.sockets.bodies import body_of
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import StorageError, Unavailable

Rest: TypeAlias = Callable[[Span, str | None], AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Asks for a span of the object that has this etag."""

AT_ONCE: Final = (0.0, 0.0, 0.0)
"""Pauses of a service that goes on at once, or not at all."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an object is, and which of its bytes come."""

    info: ObjectInfo
    span: Span


def asking_for(span: Span) -> str:
    """The header Range. An empty span asks for a byte all the same: only the service knows whether it starts within
    the object.
    """
    return f"bytes={span.start}-{max(span.start, span.stop - 1)}"


def brought(driver: str, key: str, content_range: str, wanted: Span) -> tuple[Span, int]:
    """What of the wanted span an answer with this Content-Range brings, and the object's size. Raises StorageError."""
    try:
        got, size = parse_content_range(content_range)
    except ContentRangeInvalid as error:
        raise StorageError(driver, key, error, "the service answered a range without saying which") from error
    if size is None:
        raise StorageError(driver, key, None, "the service does not say how large the object is")
    span = Span(wanted.start, min(wanted.stop, size))
    if got.start != span.start or got.stop < span.stop:
        raise StorageError(driver, key, None, f"the service sent {got} of {size} bytes instead of {span}")
    return span, size


@dataclass(frozen=True, slots=True)
class Resuming:
    """How the body of one object goes on."""

    driver: str
    key: str
    rest: Rest
    replaced: type[StorageError]
    """What `rest` raises where the object is another by now."""
    pauses: Sequence[float] = AT_ONCE
    """Seconds before each resume."""
    outages: bool = False
    """Whether a service that cannot be asked is asked again after the next pause; else the body ends there."""

    async def body(
        self, found: Found, response: aiohttp.ClientResponse
    ) -> AsyncGenerator[bytes | memoryview, None]:
        """Exactly the bytes of the span, or an error. Raises StorageError."""
        offset, stop, barren = found.span.start, found.span.stop, 0
        async with AsyncExitStack() as stack:
            while offset < stop:
                cause: BaseException | None = None
                try:
                    async for chunk in body_of(response):
                        offset, barren = offset + len(chunk), 0
                        yield chunk if offset <= stop else chunk[: stop - offset]
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    cause = error
                if offset < stop:
                    rest = Span(offset, stop)
                    response, barren = await self._again(rest, found.info.etag, barren, cause, stack)

    async def _again(
        self, span: Span, etag: str | None, barren: int, cause: BaseException | None, stack: AsyncExitStack
    ) -> tuple[aiohttp.ClientResponse, int]:
        """The response that goes on, and how often one was asked for without a byte since."""
        for number in range(barren, len(self.pauses)):
            await asyncio.sleep(self.pauses[number])
            try:
                return await stack.enter_async_context(self.rest(span, etag)), number + 1
            except self.replaced as error:
                text = "another object was put there while this one was read"
                raise StorageError(self.driver, self.key, error, text) from error
            except Unavailable as error:
                if not self.outages:
                    raise
                cause = error.cause
        text = f"the body broke at byte {span.start} of {span.stop}, and nothing more came"
        raise Unavailable(self.driver, self.key, cause, text)
