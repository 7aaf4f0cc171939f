"""Requests to Cloud Storage's JSON API, with aiohttp: through Google's library an object costs four times as much.

Rules:
1. A request is sent once: neither we nor the HTTP client repeat one, since nobody knows whether a create whose reply
   was lost may be made again. The store above retries.
2. At most `maxconcurrency` wait for an answer at once; bodies that are being read are not among them.
3. Nothing is followed: a redirect is a refusal.
4. The proxy is the environment's; the authorities are the system's and the operator's.

Not here: who we are (`gcsidentity`), what is asked (`gcsbucket`, `gcsupload`), what refusals mean (`gcserrors`).
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from yarl import URL

from msrcache.storage.errors import StorageError, Unavailable, Unusable
from msrcache.storage.gcserrors import (
    LONGEST,
    NAME,
    Answered,
    CredentialsRefused,
    Refusal,
    failure,
    refusal_of,
)
from msrcache.storage.gcsidentity import Identity, trust
from msrcache.storage.gcsparameters import GcsParameters

Payload: TypeAlias = bytes | AsyncIterable[bytes | bytearray] | None

CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 60.0
CONNECTIONS: Final = 4096
"""More than clients can be waiting for bodies: the listener bounds those."""
AHEAD: Final = 16 << 10
"""Of a body that a slow client takes, so that a thousand of them take little memory; see `s3client`."""
DOCUMENT: Final = 16 << 20
"""Bytes of the largest document: a page of a listing has less than two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request. `operation` is called as its permission, `key` is for errors."""

    operation: str
    key: str
    method: str
    url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Payload = None
    session: bool = False
    """Whether an upload that was begun is spoken to."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    document: Mapping[str, Any]


class GcsClient:
    """Makes requests, each once, and translates what goes wrong."""

    def __init__(self, given: GcsParameters) -> None:
        self.given = given
        self.identity = Identity(given)
        self._turns = asyncio.Semaphore(given.maxconcurrency)
        self._session: aiohttp.ClientSession | None = None
        self._making = asyncio.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<GcsClient {self.given!r} {self.identity!r}>"

    async def call(self, ask: Ask) -> Answer:
        """A request whose answer is small. Raises StorageError."""
        async with self._turns, self._asked(ask) as response:
            data = await self._read(ask, response)
        return Answer(response.status, _lower(response.headers), _document(ask, data))

    @asynccontextmanager
    async def body(self, ask: Ask) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request whose answer is an object's bytes. Raises StorageError."""
        async with AsyncExitStack() as stack:
            async with self._turns:
                response = await stack.enter_async_context(self._asked(ask))
            try:
                yield response
            finally:
                # Read to its end, the connection is there for others already; else it must not be read any further.
                response.close()

    async def close(self) -> None:
        """Idempotent; requests under way fail."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
        await self.identity.close()

    @asynccontextmanager
    async def _asked(self, ask: Ask) -> AsyncIterator[aiohttp.ClientResponse]:
        token = await self.identity.token(ask.key)
        session = await self._made(ask.key)
        headers = {"User-Agent": self.given.useragent, "Accept-Encoding": "identity", **ask.headers}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        query = f"?{urlencode(ask.parameters)}" if ask.parameters else ""
        try:
            response = await session.request(
                ask.method,
                URL(ask.url + query, encoded=True),
                headers=headers,
                data=ask.body,
                allow_redirects=False,
                proxy=_proxy(ask.url),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(ask, error) from error
        try:
            # 308 says how far an upload has come.
            if response.status < 300 or (response.status == 308 and ask.session):
                yield response
            else:
                raise await self._failed(ask, response, token)
        finally:
            response.release()

    async def _failed(self, ask: Ask, response: aiohttp.ClientResponse, token: str | None) -> StorageError:
        reason, message = refusal_of(await self._read(ask, response))
        failed = failure(
            Refusal(
                operation=ask.operation,
                key=ask.key,
                bucket=self.given.bucket,
                status=response.status,
                reason=reason,
                message=message[: 4 * LONGEST],
                headers=_lower(response.headers),
                session=ask.session,
            )
        )
        if isinstance(failed, CredentialsRefused):
            self.identity.refused(token)
        return failed

    async def _read(self, ask: Ask, response: aiohttp.ClientResponse) -> bytes:
        try:
            data = await response.content.read(DOCUMENT)
            while more := await response.content.read(DOCUMENT):
                data += more
                if len(data) > DOCUMENT:
                    raise StorageError(NAME, ask.key, None, f"the answer to {ask.operation} does not end")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(ask, error) from error
        return data

    def _away(self, ask: Ask, error: Exception) -> StorageError:
        parts = urlsplit(ask.url)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            text = f"the certificate of {parts.netloc} is not trusted; give its authority as storage.gcs.ca"
            return Unusable(NAME, ask.key, Answered(str(error.certificate_error)), text)
        text = f"{ask.operation}: the service at {parts.scheme}://{parts.netloc} does not answer"
        return Unavailable(NAME, ask.key, error, text)

    async def _made(self, key: str) -> aiohttp.ClientSession:
        async with self._making:
            if self._closed:
                raise StorageError(NAME, key, None, "the driver has been closed")
            if self._session is None:
                self._session = await self._make(key)
            return self._session

    async def _make(self, key: str) -> aiohttp.ClientSession:
        try:
            trust = await asyncio.to_thread(_trust, self.given)
        except (OSError, ssl.SSLError) as error:
            text = "storage.gcs.ca cannot be used; it should be a PEM file with certificates"
            raise StorageError(NAME, key, error, text) from error
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=trust),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=AHEAD,
        )
        session._retry_connection = False  # noqa: SLF001  there is no public way; tests/storage/test_gcsclient.py
        return session


def _trust(given: GcsParameters) -> ssl.SSLContext | bool:
    if not given.endpoint.startswith("https://"):
        return True
    context = trust(given.trusted)
    if given.skipverify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _proxy(url: str) -> str | None:
    """What the environment names for it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or host.startswith("127.") or proxy_bypass(parts.netloc):
        return None
    return getproxies_environment().get(parts.scheme)


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _document(ask: Ask, data: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data) if data.strip() not in (b"", b"null") else {}
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise StorageError(
            NAME, ask.key, None, f"the answer to {ask.operation} is no document: {data[:80]!r}"
        )
    return document
