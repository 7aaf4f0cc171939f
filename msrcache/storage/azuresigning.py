"""URLs that are signed here: for reading one blob, until a time.

By the account's key at once. An identity signs with a user delegation key, which the service gives it for hours: one
request in KEY_LIFE, none per URL; where its role does not allow that, there are no URLs, and it is asked again after
PAUSE. A shared access signature cannot sign, and handing it out would hand out all that it allows: no URLs.
"""

import asyncio
import math
import time
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

from azure.storage.blob import BlobSasPermissions, generate_blob_sas

from msrcache.storage.azureclient import AzureClient
from msrcache.storage.azureparameters import IDENTITIES, SHARED_KEY, AzureParameters
from msrcache.storage.errors import Denied
from msrcache.telemetry.logs import get_logger

KEY_LIFE: Final = 6 * 3600.0
"""Seconds that a user delegation key is asked for; seven days at most."""
EARLY: Final = 900.0
"""Seconds before now from which it holds, since clocks differ; and before its end when it is renewed."""
PAUSE: Final = 300.0
"""Seconds until an identity that was not allowed a key asks for one again."""

log = get_logger(__name__)


class Signer:
    """Signs URLs for one container."""

    def __init__(self, given: AzureParameters, client: AzureClient) -> None:
        self._given = given
        self._client = client
        self._key: Any = None
        self._ends = 0.0
        self._refused_until = 0.0
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Signer for {self._given.container} by {self._given.identity.kind}>"

    async def url(self, key: str, name: str, *, ttl: float, endpoint: str) -> str | None:
        """A URL for the blob at that endpoint, or at ours where it is empty. Raises StorageError."""
        given = self._given
        if given.identity.kind == SHARED_KEY:
            by: dict[str, Any] = {"account_key": given.identity.key}
        elif given.identity.kind in IDENTITIES and (delegated := await self._delegated(key, ttl)) is not None:
            by = {"user_delegation_key": delegated}
        else:
            return None
        signature = generate_blob_sas(
            given.account,
            given.container,
            name,
            permission=BlobSasPermissions(read=True),
            # In whole seconds, of which none must be lost.
            expiry=datetime.fromtimestamp(math.ceil(time.time() + max(1.0, ttl)), UTC),
            **by,
        )
        return f"{address(given, name, endpoint)}?{signature}"

    async def _delegated(self, key: str, ttl: float) -> Any:
        """The user delegation key, good for so long; None where the identity may not have one."""
        async with self._turn:
            now = time.time()
            if now + ttl + EARLY > self._ends and now >= self._refused_until:
                start, end = now - EARLY, now + ttl + KEY_LIFE
                try:
                    self._key = await self._client.delegation_key(key, _at(start), _at(end))
                    self._ends = end
                except Denied as error:
                    log.warning("azure: no signed URLs, blobs flow through the cache", reason=error.message)
                    self._refused_until = now + PAUSE
            return self._key if now + ttl < self._ends else None


def address(given: AzureParameters, name: str, endpoint: str) -> str:
    """Where a blob is read, without a signature (pure)."""
    base = given.url
    if endpoint:
        base = endpoint.rstrip("/") + urlsplit(base).path
    return f"{base}/{given.container}/{quote(name, safe='/~')}"


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
