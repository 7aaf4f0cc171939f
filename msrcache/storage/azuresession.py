"""Connections to Azure, and the SDK's clients over them.

Rules:
1. They are made at the first call: files are read and identities made in threads, a service that is away costs nothing
   at the start.
2. One pool of connections, for tokens too; it trusts the system's authorities and the operator's, goes by the
   environment's proxies, keeps no cookies, reads no .netrc, and sends no request again.
3. When credentials were refused, the clients are made anew, at most every PAUSE seconds; the connections stay.

Below storage/azure, for its client.
"""

import asyncio
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from msrcache.storage.azurecredentials import credential
from msrcache.storage.azureerrors import NAME
from msrcache.storage.azureparameters import AzureParameters
from msrcache.storage.errors import StorageError, Unusable

API_VERSION: Final = "2023-11-03"
"""Of 2023: the newest is often not yet known to what is made like Azure."""
CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 60.0
CONNECTIONS: Final = 4096
"""More than clients can be waiting for bodies: the listener bounds those."""
AHEAD: Final = 16 << 10
"""Of a body that a slow client takes, beside one read of the socket; with 64 KiB it is three times that."""
PAUSE: Final = 5.0
"""Seconds between two times that everything is made anew."""


@dataclass(frozen=True, slots=True)
class Clients:
    """What the SDK needs for one set of credentials."""

    service: Any
    container: Any


class AzureSession:
    """Makes the clients, and makes them anew."""

    def __init__(self, parameters: AzureParameters) -> None:
        self._parameters = parameters
        self._http: aiohttp.ClientSession | None = None
        self._clients: Clients | None = None
        self._made_at = 0.0
        self._stack = AsyncExitStack()
        self._making = asyncio.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<AzureSession {'made' if self._clients else 'not yet made'}>"

    async def clients(self, key: str) -> Clients:
        """As configured, made if they are not there. Raises StorageError."""
        if (clients := self._clients) is None:
            async with self._making:
                if self._closed:
                    raise StorageError(NAME, key, None, "the driver has been closed")
                if (clients := self._clients) is None:
                    clients = self._clients = await self._make(key)
                    self._made_at = asyncio.get_running_loop().time()
        return clients

    async def _make(self, key: str) -> Clients:
        given = self._parameters
        try:
            if self._http is None:
                context = await asyncio.to_thread(_trust, given)
                self._http = await self._stack.enter_async_context(_session(context=context))
            transport = AioHttpTransport(
                session=self._http,
                session_owner=False,
                connection_timeout=CONNECT_TIMEOUT,
                read_timeout=READ_TIMEOUT,
            )
            options = {"transport": transport, "proxies": _proxies(given.url)}
            shown = await credential(given, **options)
            options |= {"retry_total": 0, "api_version": API_VERSION, "user_agent": given.useragent}
            service = BlobServiceClient(given.url, credential=shown, **options)
            return Clients(service, ContainerClient(given.url, given.container, credential=shown, **options))
        except (ValueError, TypeError, OSError) as error:
            text = f"the client cannot be made from storage.azure's parameters: {error}"
            raise Unusable(NAME, key, None, text) from error

    def refused(self) -> None:
        """The credentials were."""
        if asyncio.get_running_loop().time() - self._made_at >= PAUSE:
            self._clients = None

    async def close(self) -> None:
        """Idempotent; calls under way fail."""
        self._closed = True
        await self._stack.aclose()
        self._clients = None


def _trust(given: AzureParameters) -> ssl.SSLContext | bool:
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
    session._retry_connection = False  # noqa: SLF001  there is no public way; tests/storage/test_azureclient.py
    return session


def _proxies(url: str) -> dict[str, str]:
    """The environment's, unless it exempts that host."""
    host = urlsplit(url).netloc
    return {} if proxy_bypass(host) else getproxies()
