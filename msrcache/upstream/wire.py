"""One HTTP exchange with an upstream or with a host that it names: connection, time-outs, failures in words.

A clean client: no cookies, no .netrc, no environment but the proxies handed in, identity encoding, no
redirect followed and no body decompressed. Who may be sent a credential, and what an answer means, is decided
above.
"""

import asyncio
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDictProxy
from yarl import URL

from msrcache.oci.errors import Unavailable, UpstreamBroken, UpstreamUnavailable
from msrcache.sockets.bodies import past_the_client
from msrcache.sockets.intake import LARGE, Intake
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.answers import Whole
from msrcache.upstream.failures import failed
from msrcache.upstream.proxies import Proxies
from msrcache.upstream.resolver import open_resolver
from msrcache.upstream.settings import UpstreamSettings
from msrcache.upstream.trust import tls_context

_KIB: Final = 1 << 10
_BUFFER: Final = 256 * _KIB  # twice this may lie there: with more, sixteen bodies at once make the loop late
_HEADER_LIMIT: Final = 64 * _KIB  # real tokens and real challenges exceed aiohttp's 8 KiB
_KEEPALIVE: Final = 30.0
_ASIDES: Final = 16


class Break(Exception):
    """The body stopped before its end; the text says how, without naming the host."""


class Reply:
    """An answer whose body is still to come; a context that lets the connection go."""

    def __init__(self, response: aiohttp.ClientResponse, wire: "Wire", lane: asyncio.Semaphore) -> None:
        self._response = response
        self._wire = wire
        self._lane = lane
        self._open = True
        self._intake: Intake | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def status(self) -> int:
        """The status code."""
        return self._response.status

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The header fields as received."""
        return self._response.headers

    @property
    def url(self) -> URL:
        """Where this answer came from."""
        return self._response.url

    async def read(self) -> bytes | memoryview:
        """The next bytes, b"" at the end. Raises Break, also when nothing came for the stall time-out."""
        try:
            async with asyncio.timeout(self._wire.stall):
                data = await self._next()
        except TimeoutError:
            raise Break(f"nothing came for {self._wire.stall:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            data = self._salvaged()
            if not data:
                raise Break(f"the connection broke ({type(error).__name__})") from None
        self._wire.count_bytes(len(data))
        return data

    async def _next(self) -> bytes | memoryview:
        if self._intake is not None:
            return await self._intake.read()
        # Not readany, which joins what lies there: a copy of every byte.
        data, _ = await self._response.content.readchunk()
        return data

    def stream(self) -> None:
        """A large body is about to be read to its end: take it from the socket, past the client, where that pays."""
        self._intake = past_the_client(self._response, least=LARGE)

    def _salvaged(self) -> bytes:
        """What came before the connection broke and was not read yet.

        aiohttp gives it to nobody once there is an error. An upstream that breaks every few KiB would never be read
        to its end without it; should the private name go, those bytes are asked for again.
        """
        rest = getattr(self._response.content, "_read_nowait", None)
        return bytes(rest(-1)) if rest is not None else b""

    def close(self) -> None:
        """Idempotent. A connection whose body was read to its end is kept for the next request."""
        if self._open:
            self._open = False
            self._response.close()
            self._lane.release()


class Wire:
    """The connections to one upstream and to where it sends us. Open it with a loop running."""

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        metrics: Metrics,
        clock: Clock,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """Reads the CA files and certificates. Raises UpstreamSettingsError."""
        self.stall = settings.stall_timeout
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._resolver = resolver
        self._proxies = Proxies(settings.environ)
        self._ours = tls_context(settings, ours=True)
        self._others = tls_context(settings, ours=False) if settings.certificate else self._ours
        self._host = URL(settings.url).host
        self._pulls = asyncio.Semaphore(settings.connections)
        self._asides = asyncio.Semaphore(_ASIDES)
        self._bytes = metrics.upstream_bytes_total.labels(settings.name)
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._resolver = self._resolver or open_resolver(self._settings, self._clock)
            self._session = aiohttp.ClientSession(
                # The resolver remembers, and the semaphore counts: both are switched off here.
                connector=aiohttp.TCPConnector(
                    limit=0, resolver=self._resolver, use_dns_cache=False, keepalive_timeout=_KEEPALIVE
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                read_bufsize=_BUFFER,
                max_line_size=_HEADER_LIMIT,
                max_field_size=_HEADER_LIMIT,
                timeout=aiohttp.ClientTimeout(sock_connect=self._settings.connect_timeout),
                headers={"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity"},
                skip_auto_headers=("Accept", "Content-Type"),
            )
        return self._session

    async def close(self) -> None:
        """Ends every connection. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        if self._resolver is not None:
            await self._resolver.close()

    async def send(self, method: str, url: URL, headers: Mapping[str, str]) -> Reply:
        """One request, no redirect followed. Raises Unavailable; UpstreamBroken for what is no HTTP."""
        return await self._send(method, url, headers, None, lane=self._pulls)

    async def aside(
        self, method: str, url: URL, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Reply:
        """As send, for a token: a pull waits for it with its connection in hand, so it must not wait for those."""
        return await self._send(method, url, headers, form, lane=self._asides)

    async def _send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None,
        *,
        lane: asyncio.Semaphore,
    ) -> Reply:
        await self._enter(lane)
        status = "000"
        try:
            response = await self._request(method, url, headers, form)
            status = str(response.status)
            return Reply(response, self, lane)
        except BaseException:
            lane.release()
            raise
        finally:
            self._metrics.upstream_requests_total.labels(self._settings.name, method, status).inc()

    async def whole(self, reply: Reply, *, limit: int) -> Whole:
        """Reads an answer to its end, then lets it go. UpstreamUnavailable; UpstreamBroken above `limit`."""
        name = self._settings.name
        async with reply:
            data = bytearray()
            try:
                while piece := await reply.read():
                    data += piece
                    if len(data) > limit:
                        raise UpstreamBroken(
                            f"the upstream {name} sent more than {limit} bytes where that many are the limit"
                        )
            except Break as error:
                raise UpstreamUnavailable(
                    f"the answer of {reply.url.host} did not come whole: {error}", retry_after=None
                ) from None
            return Whole(reply.status, reply.headers, bytes(data))

    def count_bytes(self, size: int) -> None:
        """Body bytes that came; for Reply."""
        self._bytes.inc(size)

    async def _enter(self, lane: asyncio.Semaphore) -> None:
        wait = self._settings.header_timeout
        try:
            async with asyncio.timeout(wait):
                await lane.acquire()
        except TimeoutError:
            raise Unavailable(  # no outage of the upstream: we never got to ask
                f"all {self._settings.connections} connections to the upstream {self._settings.name} were busy"
                f" for {wait:g} s; allow more, or fewer fills at once"
            ) from None

    async def _request(
        self, method: str, url: URL, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> aiohttp.ClientResponse:
        settings = self._settings
        try:
            proxy = self._proxies.lead_to(scheme=url.scheme, host=url.host or "", port=url.port or 0)
            async with asyncio.timeout(settings.connect_timeout + settings.header_timeout):
                return await self._opened().request(
                    method,
                    url,
                    headers=headers,
                    data=form,
                    allow_redirects=False,
                    proxy=proxy,
                    ssl=self._ours if url.host == self._host else self._others,
                )
        except (aiohttp.ClientError, OSError, ValueError, ssl.CertificateError) as error:
            raise failed(url, error, settings=settings, known=self._host) from None
