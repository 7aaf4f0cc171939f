"""Requests to a Swift account: each once, with a token that works, and what goes wrong translated.

Rules:
1. What changes something is sent once: the HTTP client repeats nothing by itself, and the store above retries. What
   only reads is asked once more where a kept connection turns out to be closed. A request whose token was refused is
   made again, once, with a new one.
2. What is sent is a body that can be read again, piece by piece; what is answered is bounded, or streamed.
3. Nothing is looked up or loaded before the first request: a service that is away costs nothing at the start.

Not here: what is asked (`swiftcontainer`), what refusals mean (`swifterrors`), tokens (`swiftidentity`).
"""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from msrcache.storage.errors import StorageError, Unusable
from msrcache.storage.swifterrors import NAME, Refusal, failure, unanswered
from msrcache.storage.swiftidentity import Grant, Tokens, Version1
from msrcache.storage.swiftparameters import SwiftParameters

CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 60.0
LARGEST_ANSWER: Final = 16 << 20
"""Bytes of a listing or a manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked. `name` is the object's in the container; `key` is for errors."""

    method: str
    operation: str
    key: str = ""
    name: str = ""
    account: bool = False
    """Asked of the account instead of the container."""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterable[bytes | bytearray] | None = None
    patience: float = READ_TIMEOUT
    """Seconds without a byte."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class SwiftClient:
    """One account's, and its container's."""

    def __init__(self, given: SwiftParameters) -> None:
        self._given = given
        self._renew: Any = Version1(given) if given.version == 1 else _keystone(given)
        self.tokens = Tokens(self._granted)
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._proxies: dict[str, str | None] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<SwiftClient {self._given!r} {self.tokens!r}>"

    async def ask(self, request: Request) -> Answer:
        """One request and its whole answer. Raises StorageError."""
        async with self.asking(request) as response:
            try:
                body = await response.content.read(LARGEST_ANSWER + 1)
                while len(body) <= LARGEST_ANSWER and (more := await response.content.readany()):
                    body += more
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._away(request, error) from error
            if len(body) > LARGEST_ANSWER:
                text = f"the service's answer to {request.operation} has no end"
                raise StorageError(NAME, request.key, None, text)
            return Answer(response.status, response.headers, body)

    @asynccontextmanager
    async def asking(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request and the response whose content can be read. Raises StorageError."""
        grant = await self.tokens.current()
        response = await self._sent(request, grant)
        if response.status == 401:
            response.close()
            self.tokens.refused(grant)
            response = await self._sent(request, await self.tokens.current())
        try:
            if not 200 <= response.status < 300:
                raise await self._refusal(request, response)
            yield response
        finally:
            # Read to its end, the connection is there for others already; else it must not be read any further.
            response.close()

    async def info(self) -> Answer:
        """What the service says of itself, to everybody. Raises StorageError."""
        grant = self.tokens.last or await self.tokens.current()
        request = Request(method="GET", operation="/info")
        base = grant.url.partition("/v1")[0]
        response = await self._called(request, URL(f"{base}/info", encoded=True), {})
        try:
            if response.status != 200:
                raise await self._refusal(request, response)
            return Answer(response.status, response.headers, await response.content.read(LARGEST_ANSWER))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(request, error) from error
        finally:
            response.close()

    async def honours(self, url: str, key: str) -> bool:
        """Whether a signed URL of the key is served to somebody without credentials; nothing standing there is an
        answer too. Raises StorageError.
        """
        request = Request(method="GET", operation="GET of a signed URL", key=key)
        response = await self._called(request, URL(url, encoded=True), {"Range": "bytes=0-0"})
        try:
            if response.status in (401, 403):
                return False
            if response.status < 300 or response.status in (404, 416):
                return True
            raise await self._refusal(request, response)
        finally:
            response.close()

    def refused(self, request: Request, status: int, said: str = "") -> StorageError:
        """The error for a part of a request that was answered."""
        return failure(self._said(request, status, {}, said))

    async def close(self) -> None:
        """Idempotent; requests under way fail."""
        self._closed = True
        await self.tokens.close()
        if self._session is not None:
            await self._session.close()
        if not isinstance(self._renew, Version1):
            self._renew.close()

    async def _granted(self) -> Grant:
        if isinstance(self._renew, Version1):
            proxy = self._proxy_to(self._given.authurl)
            return await self._renew(await self._opened(""), proxy)
        granted: Grant = await self._renew()
        return granted

    async def _sent(self, request: Request, grant: Grant) -> aiohttp.ClientResponse:
        place = "" if request.account else f"/{quote(self._given.container)}"
        if request.name:
            place += f"/{quote(request.name)}"
        query = f"?{urlencode(request.query)}" if request.query else ""
        url = URL(f"{grant.url}{place}{query}", encoded=True)
        return await self._called(request, url, {**request.headers, "X-Auth-Token": grant.token})

    async def _called(self, request: Request, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        session = await self._opened(request.key)
        asking = partial(
            session.request,
            request.method,
            url,
            headers=headers,
            data=request.body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT, sock_read=request.patience
            ),
            proxy=self._proxy_to(str(url)),
        )
        try:
            try:
                return await asking()
            except aiohttp.ServerDisconnectedError:
                if request.method not in ("GET", "HEAD"):
                    raise
                return await asking()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(request, error) from error

    def _proxy_to(self, url: str) -> str | None:
        """What the environment names for the host; no name is looked up."""
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
        if host not in self._proxies:
            self._proxies[host] = None if proxy_bypass(host) else getproxies().get(scheme)
        return self._proxies[host]

    async def _opened(self, key: str) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                self._session = await self._open(key)
        if self._closed:
            raise StorageError(NAME, key, None, "the driver has been closed")
        return self._session

    async def _open(self, key: str) -> aiohttp.ClientSession:
        if self._closed:
            raise StorageError(NAME, key, None, "the driver has been closed")
        try:
            context = await asyncio.to_thread(_tls, self._given)
        except OSError as error:  # ssl.SSLError is one
            raise Unusable(
                NAME, key, error, f"the authorities in {self._given.trusted} cannot be read"
            ) from error
        return _session(self._given, context)

    async def _refusal(self, request: Request, response: aiohttp.ClientResponse) -> StorageError:
        said = b""
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            said = await response.content.read(1000)
        first = said.decode(errors="replace").split("\n", 1)[0][:200]
        text = response.reason or "" if first.startswith("<") else first
        return failure(self._said(request, response.status, response.headers, text))

    def _said(self, request: Request, status: int, headers: Mapping[str, str], said: str) -> Refusal:
        return Refusal(
            operation=request.operation,
            method=request.method,
            key=request.key,
            container=self._given.container,
            status=status,
            headers=headers,
            said=said,
        )

    def _away(self, request: Request, error: BaseException) -> StorageError:
        grant = self.tokens.last
        where = urlsplit(grant.url).netloc if grant else self._given.authurl
        return unanswered(f"the service at {where}", request.key, error, asking=request.operation)


def _keystone(given: SwiftParameters) -> Any:
    # The library is needed for Keystone only.
    return import_module("msrcache.storage.swiftkeystone").Keystone(given)


def _session(given: SwiftParameters, context: ssl.SSLContext | bool) -> aiohttp.ClientSession:  # noqa: FBT001
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": given.useragent, "Accept-Encoding": "identity"},
        auto_decompress=False,
        read_bufsize=1 << 18,
    )
    session._retry_connection = False  # noqa: SLF001  there is no public way; tests/storage/test_swiftclient.py
    return session


def _tls(given: SwiftParameters) -> ssl.SSLContext | bool:
    """Reads files. Raises nothing that a session would not."""
    if given.insecureskipverify:
        return False
    return ssl.create_default_context(cafile=given.trusted)
