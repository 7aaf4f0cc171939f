"""One client connection: aiohttp's protocol with our limits around it.

What is added: the header block as a whole is bounded in size and time, a request that cannot be parsed is
answered in the specification's JSON and never quoted, and the connection knows whose it is and whether it
is idle.
Not here: what a request means (app), who may connect (listener).

A client that closes its half is taken for gone, as Go's servers do: close() and shutdown(SHUT_WR) look the
same from here, and a reader of a fill that has left must not be waited for.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from msrcache.oci.errors import CONTENT_TYPE, RegistryError
from msrcache.server.limits import Place
from msrcache.server.listener import Peer
from msrcache.server.rejections import Failed, HeadersTooLarge, Malformed, TooSlow
from msrcache.server.settings import HEADERS_COUNT, Limits
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

log = get_logger(__name__)


class Connection(web.RequestHandler):
    """A connection; `address` is the client's, `trusted` says whether that is one of our proxies."""

    __slots__ = (
        "_header_bytes",
        "_header_timer",
        "_limits",
        "_metrics",
        "_place",
        "address",
        "crowded",
        "ending",
        "secure",
        "trusted",
    )

    def __init__(
        self, server: web.Server, peer: Peer, place: Place, *, limits: Limits, metrics: Metrics
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle,
            access_log=cast("Any", None),
            max_line_size=limits.headers,
            max_field_size=limits.headers,
            max_headers=HEADERS_COUNT,
            lingering_time=0,  # bodies are refused: there is nothing to wait for
            auto_decompress=False,
        )
        self.address = peer.address
        self.trusted = peer.trusted
        self.secure = peer.secure
        self.ending = "client"
        self.crowded = False
        self._limits = limits
        self._metrics = metrics
        self._place = place
        self._header_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether no request is being answered or waiting to be."""
        return self._current_request is None and not self._messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._metrics.connections.inc()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._still(self._header_timer)
        self._metrics.connections.dec()
        self._place.release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        seen = self._request_count
        super().data_received(data)
        self._header_bytes += len(data)
        if self._request_count != seen:
            # One read may hold many small requests or one large one: only then is it worth adding up.
            self.crowded = self._header_bytes > self._limits.headers
            self._header_bytes = 0
            self._still(self._header_timer)
        elif self._close or self._force_close:
            return
        elif self._header_bytes > self._limits.headers:
            self._turn_away(HeadersTooLarge())
        elif self._header_timer is None and data and self.idle:
            self._header_timer = self._loop.call_later(self._limits.header_timeout, self._too_slow)

    def _still(self, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._header_timer = None
        if self.idle:
            self._turn_away(TooSlow())

    def _turn_away(self, error: RegistryError) -> None:
        """Answer what never became a request, and close; behind an answer under way, only close after that."""
        self._metrics.connections_refused_total.labels("headers").inc()
        log.info("request refused", status=error.status, reason=error.message, client=self.address)
        if not self.idle:
            self.close()
            return
        if self.transport is not None:
            body = error.body()
            head = "\r\n".join(
                (
                    f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
                    f"Content-Type: {CONTENT_TYPE}",
                    "Docker-Distribution-Api-Version: registry/2.0",
                    "Connection: close",
                    f"Content-Length: {len(body)}",
                )
            )
            self.transport.write(head.encode() + b"\r\n\r\n" + body)
        self.force_close()

    def retire(self) -> None:
        """Close when the answer under way has ended; at once where there is none."""
        if self.idle:
            self.force_close()
        else:
            self.close()

    def cut(self, reason: str | None = None) -> None:
        """Close now, in the middle of whatever is being sent: the client sees that it is not whole.

        A reason of ours (drain) is what an answer under way is counted by.
        """
        self.ending = reason or self.ending
        transport = self.transport
        if transport is not None:
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be parsed; neither it nor the log repeats what was sent."""
        if isinstance(exc, ConnectionError):
            raise exc
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        error: RegistryError = Malformed() if status < 500 else Failed()
        if isinstance(exc, LineTooLong) or (message or "").startswith("Too many headers"):
            error = HeadersTooLarge()
        log.info("request refused", status=error.status, reason=error.message, client=self.address)
        self._metrics.observe_pull("invalid", "none", error.status, sent=0, seconds=0.0, first_byte=None)
        response = web.Response(
            status=error.status,
            body=error.body(),
            headers={
                "Content-Type": CONTENT_TYPE,
                "Docker-Distribution-Api-Version": "registry/2.0",
                "Server": "msrcache",
                "Connection": "close",
            },
        )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What aiohttp would log with a traceback and the request in it."""
        cause = kw.get("exc_info")
        log.error("connection failed", client=self.address, error=type(cause).__name__)


def factory(
    server: web.Server, limits: Callable[[], Limits], metrics: Metrics
) -> Callable[[Peer, Place], asyncio.Protocol]:
    """What a listener makes connections with; limits are asked for each, so that a reload reaches them."""
    return lambda peer, place: Connection(server, peer, place, limits=limits(), metrics=metrics)
