"""Following another replica's fill over HTTP, and asking replicas small things: the other end of the peer port.

What was seen becomes a Sign: a refused connection is UNREACHED, 410 REPLACED, 404 NOFILL, and everything else BROKEN.
Connecting has a time limit, waiting for an answer has none: the holder may be waiting for its upstream, and the caller
watches the holder's lease. The connections are a pool of their own, outside every limiter: a process that follows a
hundred fills still renews its leases.
Not here: whom to follow and how often (the lease), digests (the fill checks them).
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Final, cast
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from msrcache.oci.descriptor import OCTETS, Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.peers import Holder, NotFollowed, Sign
from msrcache.oci.ranges import ContentRangeInvalid, Span, parse_content_range
from msrcache.oci.registry import Blob, Outcome
from msrcache.oci.signature import PREFIX, Said, said
from msrcache.sockets.bodies import past_the_client
from msrcache.sockets.intake import LARGE
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.reach import Reach
from msrcache.upstream.resolver import system_resolver

CONNECT_WITHIN: Final = 3.0
ANSWERED_WITHIN: Final = 2.0
"""Seconds that a replica may take for the answer to a small question."""
NAMES_FOR: Final = 5.0
"""Seconds for which a replica's name stands for the same address: a container that restarts has another."""
LARGEST_ANSWER: Final = 64 * 1024
_BUFFER: Final = 256 * 1024
_SIGNS: Final = {404: Sign.NOFILL, 410: Sign.REPLACED}
_ADVICE: Final = {
    403: "it does not take our signature: is http.secret the same on both?",
    404: "it has no fill of this blob",
    410: "another process answers there",
    503: "it has too many connections",
}


_FAILURES: Final = (aiohttp.ClientError, OSError, ValueError)


class PeerUnreached(Exception):
    """A replica did not answer a question; one sentence. `refused`: nobody listens there."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerQuestion:
    """A small question to a replica: what the handler of that kind gets as its PeerRequest."""

    method: str = "POST"
    kind: str
    name: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class PeerReply:
    """What a replica answered to a small question."""

    status: int
    body: bytes


class Peers:
    """The other replicas, as they can be asked from here. Open it with a loop running."""

    def __init__(
        self,
        secret: bytes,
        *,
        metrics: Metrics,
        clock: Clock,
        tls: Callable[[], SSLContext] | None = None,
        connect_within: float = CONNECT_WITHIN,
    ) -> None:
        """`tls` gives the context for a new connection; without it they are plain."""
        self._secret = secret
        self._metrics = metrics
        self._clock = clock
        self._tls = tls
        self._connect_within = connect_within
        self._session: aiohttp.ClientSession | None = None
        self.reach = Reach(clock)
        """Whom it could not reach, for people."""
        metrics.peers_unreached.set_function(lambda: len(self.reach.unreached()))

    def __repr__(self) -> str:
        return f"<Peers {'TLS' if self._tls else 'plain'}>"

    async def close(self) -> None:
        """Ends every connection. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def follow(self, digest: Digest, holder: Holder, start: int) -> AsyncIterator[Blob]:
        """As Followable.follow."""
        following = _Following(holder, self._metrics)
        try:
            what = said("GET", _target("fills", str(digest), {"nonce": holder.nonce}), span=f"bytes={start}-")
            response = await self._asked(holder, what, following)
            try:
                yield _blob(response, digest, start, following)
            finally:
                response.close()
        finally:
            self._metrics.follows_total.labels(following.ending).inc()

    async def ask(
        self, replica: str, address: str, question: PeerQuestion, *, within: float = ANSWERED_WITHIN
    ) -> PeerReply:
        """A small question. Raises PeerUnreached, also where it is not answered within so many seconds."""
        target = _target(question.kind, question.name, question.query)
        what = said(question.method, target, body=question.body)
        try:
            async with asyncio.timeout(within), self._request(address, what, question.body) as response:
                self._note(replica, response.status)
                return PeerReply(response.status, await response.content.read(LARGEST_ANSWER))
        except _FAILURES as error:
            self.reach.lost(replica, _told(error))
            text = f"the replica {replica} at {address} did not answer: {_told(error)}"
            raise PeerUnreached(text, refused=_refused(error)) from None

    async def _asked(self, holder: Holder, what: Said, following: "_Following") -> aiohttp.ClientResponse:
        try:
            response = await self._request(holder.address, what, b"")
        except _FAILURES as error:
            self.reach.lost(holder.replica, _told(error))
            sign = Sign.UNREACHED if _refused(error) else Sign.BROKEN
            raise following.lost(sign, f"can't be asked: {_told(error)}") from None
        self._note(holder.replica, response.status)
        return response

    def _note(self, replica: str, status: int) -> None:
        if status == 403:
            self.reach.lost(replica, _ADVICE[403])
        else:
            self.reach.met(replica)

    def _request(self, address: str, what: Said, body: bytes) -> "aiohttp.client._RequestContextManager":
        scheme = "https" if self._tls else "http"
        # What is signed is what stands on the wire: it must not be quoted anew.
        url = URL(f"{scheme}://{address}{what.target}", encoded=True)
        return self._opened().request(
            what.method,
            url,
            headers=what.headers(self._secret),
            data=body or None,
            allow_redirects=False,
            ssl=self._tls() if self._tls else True,
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, resolver=system_resolver(ttl=NAMES_FOR, clock=self._clock), use_dns_cache=False
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # replicas are no business of a proxy's
                auto_decompress=False,
                read_bufsize=_BUFFER,
                timeout=aiohttp.ClientTimeout(connect=self._connect_within),
                headers={"User-Agent": "msrcache", "Accept-Encoding": "identity"},
                skip_auto_headers=("Accept", "Content-Type"),
            )
        return self._session


class _Following:
    """How following a holder goes, for errors and metrics."""

    def __init__(self, holder: Holder, metrics: Metrics) -> None:
        self.ending = "left"
        self._holder = holder
        self._bytes = metrics.peer_bytes_total.labels("received")

    def lost(self, sign: Sign, text: str) -> NotFollowed:
        """The error that tells it, to be raised."""
        self.ending = sign.value
        return NotFollowed(sign, f"the replica {self._holder.replica} at {self._holder.address} {text}")

    def count(self, size: int) -> None:
        """Bytes that came."""
        self._bytes.inc(size)


class _Body:
    """The rest of a fill as it comes: exactly its bytes, or NotFollowed."""

    def __init__(self, response: aiohttp.ClientResponse, size: int, following: _Following) -> None:
        self._response = response
        self._rest = size
        self._following = following
        self._intake = past_the_client(response, least=LARGE)

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes | memoryview:
        if not self._rest:
            raise StopAsyncIteration
        try:
            data = await self._next()
        except (aiohttp.ClientError, OSError) as error:
            raise self._following.lost(Sign.BROKEN, f"broke off: {_told(error)}") from None
        if not data:
            raise self._following.lost(Sign.BROKEN, "ended early")
        self._rest -= len(data)
        self._following.count(len(data))
        if not self._rest:
            self._following.ending = "complete"
        return data

    async def _next(self) -> bytes | memoryview:
        if self._intake is not None:
            return await self._intake.read()
        data, _ = await self._response.content.readchunk()
        return data


def _blob(response: aiohttp.ClientResponse, digest: Digest, start: int, following: _Following) -> Blob:
    """What the answer's header says is coming. Raises NotFollowed where it is not what was asked for."""
    if response.status not in (206, 416):
        sign = _SIGNS.get(response.status, Sign.BROKEN)
        advice = _ADVICE.get(response.status, "")
        raise following.lost(sign, f"says {response.status}{': ' if advice else ''}{advice}")
    size = _size(response, start)
    if size is None:
        told = response.headers.get("Content-Range", "nothing")
        raise following.lost(Sign.BROKEN, f"was asked for the bytes from {start} on and says {told[:80]}")
    descriptor = Descriptor(response.headers.get("Content-Type", OCTETS), digest, size)
    span = Span(start, size)
    if not span.size:
        following.ending = "complete"
    return Blob(descriptor, span, Outcome.FOLLOWED, _Body(response, span.size, following))


def _size(response: aiohttp.ClientResponse, start: int) -> int | None:
    """The size of the whole; None where the answer is not its rest from `start` on."""
    told = response.headers.get("Content-Range", "")
    if response.status == 416:
        return start if told == f"bytes */{start}" else None
    try:
        span, size = parse_content_range(told)
    except ContentRangeInvalid:
        return None
    whole = span.start == start and span.stop == size and response.content_length == span.size
    return size if whole else None


def _target(kind: str, name: str, query: Mapping[str, str]) -> str:
    asked = f"?{urlencode(query, quote_via=quote)}" if query else ""
    return f"{PREFIX}{kind}/{quote(name, safe=':/')}{asked}"


def _refused(error: Exception) -> bool:
    cause = cast("OSError", getattr(error, "os_error", error))
    return isinstance(cause, ConnectionRefusedError) or getattr(cause, "errno", None) == errno.ECONNREFUSED


def _told(error: Exception) -> str:
    """Why, without what was sent."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "it took no connection in time"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if _refused(error):
        return "connection refused"
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    said_so = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    return str(said_so or getattr(cause, "reason", None) or type(cause).__name__)
