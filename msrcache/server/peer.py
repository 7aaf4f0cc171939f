"""The peer port: what other replicas of the fleet ask this one; protocols, section 4.

    GET /peer/v1/fills/<algorithm>:<hex>?nonce=…   Range: bytes=k-
    ->  206, the rest of the fill as it comes, its last byte held back until it is verified; total size in Content-Range
        416, Content-Range: bytes */<size>: nothing is left from there on
        404 no such fill here, 410 the nonce is of no lease of this process, 403 not signed with the fleet's secret

Other things that replicas ask are added by kind (`add`). Every request is signed alike, and its salt is good once;
whoever can't sign is told nothing at all.
States: closed -> open (nothing of this process can be followed: 410) -> serving (`serve`) -> closed. It is open from
before the first lease until after the last release, while the main listener drains too.
Not here: which fills there are (a Followable), what a lease is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from msrcache.oci.digest import Digest
from msrcache.oci.errors import DigestInvalid, RegistryError
from msrcache.oci.peers import Followable, Holder, NotFollowed, Sign
from msrcache.oci.ranges import parse_range
from msrcache.oci.registry import Blob
from msrcache.oci.signature import CONTENT, PREFIX, SALT, SIGNATURE, Said, content_of, is_signed
from msrcache.server.answers import answer, described
from msrcache.server.binding import ListenFailed
from msrcache.server.connection import Connection, factory
from msrcache.server.deliver import Cut, Delivery
from msrcache.server.exchange import Exchange, open_exchange
from msrcache.server.limits import ConnectionLimits
from msrcache.server.listener import Contexts, Door, Listener
from msrcache.server.salts import Salts
from msrcache.server.sending import Reader
from msrcache.server.sent import Head, send
from msrcache.server.settings import PeerSettings
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import REQUEST_ID, get_logger
from msrcache.telemetry.metrics import Metrics
from msrcache.telemetry.trail import TRAIL

FILLS: Final = "fills"
LARGEST: Final = 64 * 1024
"""Bytes of a request's body; what replicas tell each other is small, and hashed on the loop."""
CUT_WITHIN: Final = 5.0
TOLD_AGAIN: Final = 60.0
"""Seconds between two warnings of requests that are signed with another secret."""
STATUS: Final = {Sign.NOFILL: 404, Sign.REPLACED: 410}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRequest:
    """A signed request of another replica: what stands behind the kind in its path, its query and its body."""

    name: str
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """A small answer to another replica."""

    status: int
    body: bytes = b""


PeerHandler = Callable[[PeerRequest], Awaitable[PeerAnswer]]
"""Answers requests of one kind. Said twice, a request must do no harm: after some thousand others it can be."""


class Refused(Exception):
    """A request that is answered by a bare status."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class NothingYet:
    """The fills of a process that has just started: no lease that names it can be its own."""

    def follow(self, digest: Digest, holder: Holder, start: int) -> AbstractAsyncContextManager[Blob]:
        """As Followable.follow."""
        raise NotFollowed(Sign.REPLACED, "this process has filled nothing yet")


class PeerPort:
    """The port and what is asked there."""

    def __init__(
        self,
        settings: PeerSettings,
        *,
        secret: bytes,
        metrics: Metrics,
        clock: Clock,
        tls: Contexts | None = None,
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._metrics = metrics
        self._clock = clock
        self._fills: Followable = NothingYet()
        self._handlers: dict[tuple[str, str], PeerHandler] = {}
        self._salts = Salts()
        self._reader = Reader()
        self._delivery = Delivery(self._reader)
        self._server = web.Server(self._handle, handler_cancellation=True)
        self._door = Door(
            addr=settings.addr, tls=tls, handshake_timeout=settings.served.limits.header_timeout
        )
        self._listener: Listener | None = None
        self._active = 0
        self._quiet = asyncio.Event()
        self._warned: float | None = None

    def __repr__(self) -> str:
        return f"<PeerPort {self._door.addr} [{self._active} requests]>"

    @property
    def address(self) -> str:
        """Where it listens, host:port; empty where it does not."""
        return self._listener.addresses[0] if self._listener and self._listener.addresses else ""

    def serve(self, fills: Followable) -> None:
        """From now on these fills can be followed."""
        self._fills = fills

    def add(self, method: str, kind: str, handler: PeerHandler) -> None:
        """Have requests to PREFIX + kind + "/…" answered by the handler."""
        self._handlers[method, kind] = handler

    async def open(self) -> None:
        """Listen. Raises ListenFailed."""
        try:
            await self._listen(self._door)
        except ListenFailed as problem:
            if not self._settings.elsewhere:
                raise
            log.warning(
                "the peer port is another one: give each process its own in cache.peer.addr",
                error=str(problem),
            )
            await self._listen(
                Door(addr=":0", tls=self._door.tls, handshake_timeout=self._door.handshake_timeout)
            )

    async def _listen(self, door: Door) -> None:
        make = factory(self._server, lambda: self._settings.served.limits, self._metrics)
        limits = ConnectionLimits(total=self._settings.connections)
        listener = Listener(door, make=make, limits=limits, metrics=self._metrics)
        await listener.open()
        self._listener = listener

    async def silence(self) -> None:
        """Returns when nothing is being answered."""
        while self._active:
            self._quiet.clear()
            await self._quiet.wait()

    async def close(self) -> None:
        """Stop listening and cut what is still being sent."""
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()
        for connection in self._server.connections:
            assert isinstance(connection, Connection)
            connection.cut("drain")
        try:
            async with asyncio.timeout(CUT_WITHIN):
                await self.silence()
        except TimeoutError:
            log.warning(
                "requests of peers did not end when their connections were cut", requests=self._active
            )
        await self._server.shutdown(1.0)
        self._reader.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = open_exchange(request, self._settings.served, self._clock)
        REQUEST_ID.set(exchange.request_id)
        TRAIL.set(exchange.trail)
        asked = _Asked()
        self._active += 1
        try:
            return await self._answered(exchange, asked)
        finally:
            self._active -= 1
            if not self._active:
                self._quiet.set()
            self._metrics.peer_requests_total.labels(asked.kind, str(exchange.status)).inc()
            self._metrics.peer_bytes_total.labels("sent").inc(exchange.sent)

    async def _answered(self, exchange: Exchange, asked: "_Asked") -> web.StreamResponse:
        """The answer, sent. Raises ConnectionError where the connection is gone or was cut."""
        try:
            return await self._routed(exchange, asked)
        except (Refused, NotFollowed, RegistryError) as error:
            return await _bare(exchange, _status_of(error))
        except Cut as cut:
            exchange.connection.cut()
            log.info("a follower was cut", reason=cut.reason, sent=exchange.sent, error=str(cut.cause or ""))
            raise ConnectionResetError(str(cut)) from cut
        except asyncio.CancelledError:
            if exchange.begun:
                exchange.connection.cut()
            raise
        except ConnectionError:
            raise
        except Exception:
            log.exception("a peer's request failed", path=exchange.request.path)
            return await _bare(exchange, 500)

    async def _routed(self, exchange: Exchange, asked: "_Asked") -> web.StreamResponse:
        body = await self._believed(exchange)
        request = exchange.request
        kind, _, name = request.path.removeprefix(PREFIX).partition("/")
        handler = self._handlers.get((request.method, kind))
        if handler is None and (request.method, kind) != ("GET", FILLS):
            raise Refused(404)
        asked.kind = kind
        query = dict(request.rel_url.query)
        salt = request.headers[SALT]
        if handler is None:
            return await self._followed(exchange, name, nonce=query.get("nonce", ""), salt=salt)
        self._spend(exchange, kind, salt)
        told = await handler(PeerRequest(name=name, query=query, body=body))
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return await answer(exchange, told.status, headers, told.body)

    async def _believed(self, exchange: Exchange) -> bytes:
        """The body of a request that is signed. Nothing of it is read, and nothing told, before it is."""
        request, limits = exchange.request, exchange.settings.limits
        exchange.closing = request.body_exists
        if len(request.raw_path) > limits.path or exchange.overloaded:
            raise self._stranger(exchange)
        fields = [request.headers.getall(name, []) for name in ("Range", CONTENT, SALT, SIGNATURE)]
        if any(len(values) > 1 for values in fields):
            raise self._stranger(exchange)
        span, content, salt, signature = ("".join(values) for values in fields)
        what = Said(method=request.method, target=request.raw_path, range=span, content=content, salt=salt)
        if not request.path.startswith(PREFIX) or not is_signed(self._secret, what, signature):
            raise self._stranger(exchange)
        body = await _read(request, within=limits.header_timeout) if request.body_exists else b""
        exchange.closing = False
        if content_of(body) != content:
            raise self._stranger(exchange)
        return body

    def _spend(self, exchange: Exchange, scope: str, salt: str) -> None:
        if not self._salts.spend(scope, salt):
            raise self._stranger(exchange)

    def _stranger(self, exchange: Exchange) -> Refused:
        exchange.closing = True
        now = self._clock.monotonic()
        if SIGNATURE in exchange.request.headers and (
            self._warned is None or now > self._warned + TOLD_AGAIN
        ):
            self._warned = now
            text = "a request to the peer port was refused: http.secret must be the same on all replicas"
            log.warning(text, client=exchange.caller.address)
        return Refused(403)

    async def _followed(self, exchange: Exchange, name: str, *, nonce: str, salt: str) -> web.StreamResponse:
        try:
            digest = Digest.parse(name)
        except DigestInvalid:
            raise Refused(400) from None
        wanted = parse_range(exchange.request.headers.get("Range"))
        if wanted is None or wanted.first is None or wanted.last is not None:
            raise Refused(400)
        scope = f"{FILLS} {nonce}"
        self._spend(exchange, scope, salt)
        with self._salts.kept(scope):
            try:
                async with self._fills.follow(digest, Holder("", nonce, ""), wanted.first) as blob:
                    return await self._sent(exchange, blob)
            except NotFollowed as error:
                if error.sign is Sign.REPLACED:
                    self._salts.forget(scope)  # it never will be of this process
                raise

    async def _sent(self, exchange: Exchange, blob: Blob) -> web.StreamResponse:
        if blob.span.size:
            return await self._delivery.blob(exchange, blob, ranged=True)
        size = blob.descriptor.size
        headers = described(blob.descriptor, blob.outcome) | {"Content-Range": f"bytes */{size}"}
        return await answer(exchange, 416, headers)


def _status_of(error: Refused | NotFollowed | RegistryError) -> int:
    if isinstance(error, NotFollowed):
        return STATUS.get(error.sign, 502)
    return error.status if isinstance(error, Refused) or error.status < 500 else 502


@dataclass(slots=True)
class _Asked:
    """What a request is counted as; a stranger's is of no kind."""

    kind: str = "none"


async def _read(request: web.BaseRequest, *, within: float) -> bytes:
    """The body, whole. Raises Refused where it is too large or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(within):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > LARGEST:
                    raise Refused(413)
    except TimeoutError:
        raise Refused(408) from None
    return bytes(body)


async def _bare(exchange: Exchange, status: int) -> web.StreamResponse:
    """A status and nothing else; where the answer had begun, its connection is cut."""
    if exchange.begun:
        exchange.connection.cut()
        raise ConnectionResetError("the answer had begun")
    request, headers = exchange.request, CIMultiDict({"Content-Length": "0"})
    keep_alive = bool(request.keep_alive) and not exchange.closing
    head = Head.of(status, request.version, headers, keep_alive=keep_alive)
    response = await send(request, head, b"")
    exchange.answering(status)
    return response
