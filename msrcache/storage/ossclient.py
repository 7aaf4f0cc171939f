"""The OSS client: the only module that knows Alibaba Cloud's SDK.

Rules:
1. It is made at the first call, in a thread; a service that is away costs nothing at the start.
2. A request is sent once. Neither the SDK nor its HTTP client repeats one: they cannot know whether a create whose
   reply was lost may be made again. The store above retries.
3. Requests and URLs are signed with V4, by credentials that were renewed before (`ossidentity`): the SDK takes them
   without waiting.
4. One pool of connections; it trusts the system's authorities and the operator's, goes by the environment's proxies,
   keeps no cookies, reads no .netrc.

Not here: what is asked (`ossbucket`), what refusals mean (`osserrors`).
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from xml.etree.ElementTree import ParseError

import aiohttp
from alibabacloud_oss_v2 import models
from alibabacloud_oss_v2.aio import AsyncClient
from alibabacloud_oss_v2.aio.transport import AioHttpClient
from alibabacloud_oss_v2.config import Config
from alibabacloud_oss_v2.crc import Crc64
from alibabacloud_oss_v2.credentials import CredentialsProviderFunc
from alibabacloud_oss_v2.exceptions import BaseError, OperationError, ServiceError
from alibabacloud_oss_v2.retry import NopRetryer
from alibabacloud_oss_v2.types import Credentials, OperationInput

from msrcache.storage.errors import StorageError, Unavailable, Unusable
from msrcache.storage.osserrors import NAME, Answered, CredentialsRefused, Refusal, failure
from msrcache.storage.ossidentity import Credentials as Shown
from msrcache.storage.ossidentity import Identity
from msrcache.storage.ossparameters import DOMAIN, PATH, OssParameters

CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 60.0
CONNECTIONS: Final = 4096
"""More than clients can be waiting for bodies: the listener bounds those."""
AHEAD: Final = 16 << 10
"""Of a body that a slow client takes, beside one read of the socket; with 64 KiB it is three times that."""
LONGEST_URL: Final = 7 * 24 * 3600.0
"""Seconds for which the service accepts a signed URL."""


class Crc:
    """As hashlib's; the CRC-64 of the service."""

    def __init__(self) -> None:
        self._crc: Any = Crc64(0)

    def update(self, data: memoryview, /) -> None:
        """More bytes."""
        self._crc.update(bytes(data))

    @property
    def value(self) -> int:
        """Of all bytes so far."""
        return int(self._crc.sum64())


class Http(AioHttpClient):  # type: ignore[misc]  # the SDK ships no types
    """Tells also those refusals that have no date: the SDK cannot read them, and a proxy in between may send some."""

    async def send(self, request: Any, **more: Any) -> Any:
        """As AioHttpClient."""
        answer = await super().send(request, **more)
        if answer.status_code // 100 == 2 or "Date" in answer.headers:
            return answer
        await answer.close()
        told = dict.fromkeys(("code", "request_id", "ec", "timestamp", "request_target"), "")
        told["message"] = "something between here and the service refused it"
        raise ServiceError(status_code=answer.status_code, headers=answer.headers, **told)


class OssClient:
    """Makes the calls, each once, and translates what goes wrong. `operation` is the API's, `key` is for errors."""

    def __init__(self, parameters: OssParameters, identity: Identity | None = None) -> None:
        self._parameters = parameters
        self.identity = identity or Identity(parameters)
        self._http: Http | None = None
        self._clients: dict[str, AsyncClient] = {}
        """By endpoint; empty is the configured one."""
        self._stack = AsyncExitStack()
        self._making = asyncio.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<OssClient {self._parameters!r} [{len(self._clients)} endpoints]>"

    def twin(self) -> "OssClient":
        """Another with connections of its own; the credentials are one."""
        return OssClient(self._parameters, self.identity)

    async def call(self, operation: str, key: str, /, **arguments: object) -> Any:
        """One request; the SDK's result. Raises StorageError."""
        client = await self._ready(key)
        shown = self.identity.now
        request = getattr(models, f"{operation}Request")(bucket=self._parameters.bucket, **arguments)
        try:
            return await getattr(client, _snake(operation))(request)
        except (BaseError, aiohttp.ClientError, TimeoutError, ValueError, ParseError) as error:
            raise self._failed(operation, key, error, shown) from error

    @asynccontextmanager
    async def body(
        self, key: str, name: str, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[Mapping[str, str], aiohttp.ClientResponse]]:
        """GetObject: the answer's headers and the response whose content is the object's. Raises StorageError."""
        client = await self._ready(key)
        shown = self.identity.now
        asked = OperationInput(
            op_name="GetObject",
            method="GET",
            headers=dict(headers),
            bucket=self._parameters.bucket,
            key=name,
            op_metadata={"response-stream": True},
        )
        try:
            output = await client.invoke_operation(asked)
        except (BaseError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._failed("GetObject", key, error, shown) from error
        # The SDK's own iteration takes pieces of 16 KiB through three generators.
        response: aiohttp.ClientResponse = output.http_response._internal_response  # noqa: SLF001
        try:
            yield response.headers, response
        finally:
            # Read to its end, the connection is there for others already; else it must not be read any further.
            response.close()

    async def presigned(self, key: str, name: str, *, ttl: float, endpoint: str) -> str:
        """A URL for GetObject at that endpoint, or at the configured one where it is empty. Raises StorageError."""
        client = await self._ready(key, endpoint)
        request = models.GetObjectRequest(bucket=self._parameters.bucket, key=name)
        # In whole seconds, of which none must be lost.
        seconds = timedelta(seconds=min(LONGEST_URL, max(1.0, ttl) + 0.9))
        try:
            signed = await client.presign(request, expires=seconds)
        except (BaseError, ValueError) as error:
            raise self._failed("GetObject", key, error, self.identity.now) from error
        return str(signed.url)

    async def close(self) -> None:
        """Idempotent; calls under way fail."""
        self._closed = True
        await self._stack.aclose()
        self._clients.clear()

    async def _ready(self, key: str, endpoint: str = "") -> AsyncClient:
        """The client for an endpoint, with credentials that are good now."""
        if (client := self._clients.get(endpoint)) is None:
            async with self._making:
                if self._closed:
                    raise StorageError(NAME, key, None, "the driver has been closed")
                if (client := self._clients.get(endpoint)) is None:
                    client = self._clients[endpoint] = await self._make(key, endpoint)
        await self.identity.current(key)  # last: from here to the signature nothing else runs
        return client

    async def _make(self, key: str, endpoint: str) -> AsyncClient:
        try:
            if self._http is None:
                context = await asyncio.to_thread(_trust, self._parameters)
                session = await self._stack.enter_async_context(_session(context=context))
                self._http = Http(
                    session=session,
                    connect_timeout=CONNECT_TIMEOUT,
                    readwrite_timeout=READ_TIMEOUT,
                    proxy_host=_proxy(self._parameters.address().url),
                )
            # It asks the system what it is, for its user agent.
            return await asyncio.to_thread(AsyncClient, self._config(endpoint))
        except (BaseError, ValueError, OSError) as error:
            text = f"the client cannot be made from storage.oss's parameters: {error}"
            raise Unusable(NAME, key, None, text) from error

    def _config(self, endpoint: str) -> Config:
        given, address = self._parameters, self._parameters.address(endpoint)
        return Config(
            region=given.region,
            endpoint=address.url,
            signature_version="v4",
            credentials_provider=CredentialsProviderFunc(self._credentials),
            retryer=NopRetryer(),
            retry_max_attempts=1,
            http_client=self._http,
            use_path_style=address.style == PATH,
            use_cname=address.style == DOMAIN,
            # Bodies carry an MD5, which costs less and is verified there.
            disable_upload_crc64_check=True,
            user_agent=given.useragent,
        )

    def _credentials(self) -> Credentials:
        now = self.identity.now
        return Credentials(now.id, now.secret, now.token or None)

    def _failed(self, operation: str, key: str, error: Exception, shown: Shown) -> StorageError:
        cause = _innermost(error)
        if isinstance(cause, ServiceError):
            failed = failure(self._refusal(operation, key, cause))
        elif isinstance(cause, ssl.SSLCertVerificationError):
            said = f"the certificate of {self._where} is not trusted ({cause.verify_message})"
            text = f"{said}: give its CA as storage.oss.ca"
            failed = Unusable(NAME, key, None, text)
        elif isinstance(cause, aiohttp.ClientError | TimeoutError | OSError):
            text = f"{operation}: the service at {self._where} does not answer"
            failed = Unavailable(NAME, key, cause if str(cause) else None, text)
        else:
            text = f"{operation} could not be asked, or its answer not be read"
            failed = StorageError(NAME, key, Answered(str(cause)), text)
        if isinstance(failed, CredentialsRefused):
            self.identity.refused(shown)
        return failed

    @property
    def _where(self) -> str:
        return self._parameters.address().url

    def _refusal(self, operation: str, key: str, error: ServiceError) -> Refusal:
        return Refusal(
            operation=operation,
            key=key,
            bucket=self._parameters.bucket,
            code=str(error.code or ""),
            status=int(error.status_code or 0),
            where=self._where,
            region=self._parameters.region,
            details=error.error_fileds or {},
            headers=error.headers or {},
            cause=Answered(f"{error.status_code} {error.code}, {error.message}"),
        )


def parts_of(parts: Sequence[tuple[int, str]]) -> object:
    """The body of CompleteMultipartUpload: numbers and etags."""
    listed = [models.UploadPart(part_number=number, etag=etag) for number, etag in parts]
    return models.CompleteMultipartUpload(parts=listed)


def objects_of(names: Sequence[str]) -> object:
    """The body of DeleteMultipleObjects, to be answered by nothing."""
    return models.Delete(objects=[models.ObjectIdentifier(key=name) for name in names], quiet=True)


def _trust(given: OssParameters) -> ssl.SSLContext | bool:
    """Blocks: certificate files are read. Raises OSError."""
    if given.skipverify:
        return False
    context = ssl.create_default_context()
    if given.ca:
        context.load_verify_locations(given.ca)
    return context


def _session(*, context: ssl.SSLContext | bool) -> aiohttp.ClientSession:
    """No cookies, no .netrc, nothing unpacked, and no request sent again."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=AHEAD,
    )
    session._retry_connection = False  # noqa: SLF001  there is no public way; tests/storage/test_ossclient.py
    return session


def _proxy(url: str) -> str | None:
    """The environment's, unless it exempts that host."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def _innermost(error: BaseException) -> BaseException:
    """What the service or the system said: the SDK wraps it in texts that repeat the URL."""
    inner = error.unwrap() if isinstance(error, OperationError) else getattr(error, "_error", None)
    inner = inner or getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    return _innermost(inner) if isinstance(inner, BaseException) else error
