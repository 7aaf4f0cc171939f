"""A blob to a client: redirect, whole or a range; and the promise that a body that ends well is whole.

The length is told before the first byte, so a body that breaks ends short of it, and the connection is
cut: whatever follows the first byte can only be the rest or nothing. Every cut is counted by its reason.
Not here: how bytes reach the socket (sending), how an error before the first byte is answered
(middleware).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http import StreamWriter

from msrcache.oci.ranges import content_range
from msrcache.oci.registry import Blob, Chunk, Elsewhere, FileSpan
from msrcache.server.answers import ALWAYS, answer, described, heading, unchanged
from msrcache.server.exchange import Exchange
from msrcache.server.sending import Gone, Reader, ReadFailed, Sender, Stalled
from msrcache.telemetry.logs import get_logger

UNBLAMED: Final = frozenset({"client", "stalled", "drain"})
"""Reasons that are the client's own: no warning is due."""

log = get_logger(__name__)


class Cut(Exception):
    """The answer had begun and cannot be completed: its connection is cut; `reason` is the metric's label."""

    def __init__(self, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(f"answer cut: {reason}")
        self.reason = reason
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Delivery:
    """How this server delivers blobs: with one set of reading threads."""

    reader: Reader

    async def blob(self, exchange: Exchange, blob: Blob, *, ranged: bool) -> web.StreamResponse:
        """Answer GET with the blob. Raises Cut when it broke after its first byte."""
        exchange.outcome = blob.outcome
        headers = described(blob.descriptor, blob.outcome)
        if isinstance(blob.body, Elsewhere):
            # The type, the tag and the ranges are the service's to tell. Not for ever: a URL ends before its blob.
            told = {name: headers[name] for name in ("Docker-Content-Digest", "X-Cache")}
            return await answer(
                exchange, 307, told | {"Cache-Control": "no-cache", "Location": blob.body.url}
            )
        headers["Cache-Control"] = ALWAYS
        headers["Accept-Ranges"] = "bytes"
        if unchanged(exchange, blob.descriptor):
            return await answer(exchange, 304, headers)
        if ranged:
            headers["Content-Range"] = content_range(blob.span, blob.descriptor.size)
        headers["Content-Length"] = str(blob.span.size)
        response = web.StreamResponse(status=206 if ranged else 200, headers=heading(exchange, headers))
        if exchange.closing:
            response.force_close()
        await self._send(exchange, response, blob, blob.body)
        return response

    async def _send(
        self, exchange: Exchange, response: web.StreamResponse, blob: Blob, body: AsyncIterator[Chunk]
    ) -> None:
        writer = await response.prepare(exchange.request)
        exchange.answering(response.status)
        transport = exchange.request.transport
        if writer is None or transport is None:
            raise Cut(exchange.connection.ending)
        sender = Sender(
            cast("StreamWriter", writer), transport, reader=self.reader, stall=exchange.settings.limits.stall
        )
        try:
            async with sender.watched():
                await _pour(sender, blob, body)
            await response.write_eof()
        except Cut:
            raise
        except Stalled as cause:
            raise Cut("stalled", cause) from cause
        except Gone as cause:
            raise Cut(exchange.connection.ending, cause) from cause
        except Exception as cause:
            raise Cut("source", cause) from cause
        finally:
            exchange.sent = sender.sent
            sender.finish()


async def _pour(sender: Sender, blob: Blob, body: AsyncIterator[Chunk]) -> None:
    """Send the body: exactly as many bytes as were promised, or Cut."""
    size = blob.span.size
    async with _closing(body):
        async for chunk in body:
            length = chunk.stop - chunk.start if isinstance(chunk, FileSpan) else len(chunk)
            if sender.sent + length > size:
                raise Cut("long")
            if not isinstance(chunk, FileSpan):
                await sender.send(chunk)
            elif not await _sent_from_file(sender, blob, chunk):
                return
    if sender.sent != size:
        raise Cut("short")


async def _sent_from_file(sender: Sender, blob: Blob, chunk: FileSpan) -> bool:
    """Send the span; False where its disk failed and the whole rest came by another way."""
    try:
        await sender.send_file(chunk)
        return True
    except ReadFailed as failure:
        if blob.resume is None:
            raise Cut("disk", failure.cause) from failure
        log.warning("reading a blob's file failed: its rest is fetched", error=str(failure.cause))
    rest = blob.resume(blob.span.start + sender.sent)
    async with _closing(rest):
        async for data in rest:
            left = blob.span.size - sender.sent
            await sender.send(data[:left])
            if len(data) >= left:
                return False
    raise Cut("short")


@asynccontextmanager
async def _closing(body: AsyncIterator[Any]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()
