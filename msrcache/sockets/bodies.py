"""A response's body by the cheaper way: past the HTTP client where it is large and its length is known."""

from collections.abc import AsyncGenerator
from typing import cast

import aiohttp

from msrcache.sockets.intake import LARGE, Intake, Source


def past_the_client(response: aiohttp.ClientResponse, *, least: int = LARGE) -> Intake | None:
    """What takes the whole body from the socket from here on, what the client has read of it included.

    None where that does not pay: the body has fewer than ``least`` bytes, or no length, or is here already. Nothing of
    it may have been read. Whoever gets an intake must close the response, which ends its connection.
    """
    connection, content, length = response.connection, response.content, response.content_length
    if length is None or length < least or "Transfer-Encoding" in response.headers:
        return None
    if connection is None or content.is_eof() or content.exception() is not None:
        return None
    transport = connection.transport
    if transport is None or transport.is_closing():
        return None
    first = content.read_nowait()
    # The client may have held back the rest of the body until now: then its connection is no longer ours.
    whole = len(first) == length
    source = cast("Source", connection.protocol)
    return Intake(None if whole else transport, source, first=first, length=length)


async def body_of(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes | memoryview, None]:
    """The body as it comes. Raises aiohttp.ClientError or OSError where it ends early."""
    intake = past_the_client(response)
    if intake is None:
        async for chunk in response.content.iter_any():
            yield chunk
        return
    while piece := await intake.read():
        yield piece
