"""A registry that fetches with the upstream's service account what the caller was admitted to.

Rules:
1. The caller's own question comes first: a remembered yes, or a HEAD with its own credential. A no is its answer.
2. Then manifests and blobs are fetched as the service account: a long body does not end with a caller's token.
3. That the account could fetch says nothing about the caller: its yes is not renewed by it.
4. An account that is refused what a caller may read is the operator's trouble, not the caller's: it is told in the
   log, and the caller's own credential fetches.
HEADs of tags, and what is relayed, are the caller's own questions and stay so.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from msrcache.access.asking import AskingRight
from msrcache.oci.errors import Denied, RegistryError, Unauthorized, is_refusal
from msrcache.oci.pulls import BlobPull, ManifestPull, Relayed
from msrcache.oci.registry import SERVICE, Answer, Blob, Manifest, Registry, Resolution
from msrcache.telemetry.logs import get_logger

P = TypeVar("P", ManifestPull, BlobPull)

log = get_logger(__name__)


class ByAccount:
    """Implements Registry over `upstream`, which has a service account."""

    def __init__(self, upstream: Registry, *, active: bool = True) -> None:
        """`active`: whether the account is to fetch at all; may change at any time."""
        self._upstream = upstream
        self.active = active

    def __repr__(self) -> str:
        return f"<ByAccount {self._upstream!r}>"

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        """As Registry.resolve, by the caller's own credential."""
        return await self._upstream.resolve(pull)

    async def relay(self, pull: Relayed) -> Answer:
        """As Registry.relay, by the caller's own credential."""
        return await self._upstream.relay(pull)

    async def manifest(self, pull: ManifestPull) -> Manifest:
        """As Registry.manifest, once the caller was admitted."""
        lent = await self._admitted(pull)
        try:
            return await self._upstream.manifest(lent)
        except RegistryError as error:
            if lent is pull or not is_refusal(error):
                raise
            _tell(pull, error)
        return await self._upstream.manifest(pull)

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        """As Registry.blob, once the caller was admitted."""
        async with AsyncExitStack() as stack:
            yield await self._opened(pull, stack)

    async def _opened(self, pull: BlobPull, stack: AsyncExitStack) -> Blob:
        lent = await self._admitted(pull)
        try:
            return await stack.enter_async_context(self._upstream.blob(lent))
        except RegistryError as error:
            if lent is pull or not is_refusal(error):
                raise
            _tell(pull, error)
        return await stack.enter_async_context(self._upstream.blob(pull))

    async def _admitted(self, pull: P) -> P:
        """The pull as the service account's own. Raises the caller's refusal."""
        right = pull.right
        if not self.active or not isinstance(right, AskingRight):
            return pull
        await right.ask(pull)
        right.lent = True
        return pull.by(SERVICE)


def _tell(pull: ManifestPull | BlobPull, error: RegistryError) -> None:
    if isinstance(error, Unauthorized | Denied):
        log.warning(
            "the service account may not read what a caller may: fetched with the caller's own credential",
            repository=str(pull.repository),
            error=str(error),
        )
