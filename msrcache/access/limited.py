"""A registry over the upstream that a flood of refused questions does not get through.

Every request that carries a caller's own credential passes here, whether it is a question of access, a
tag's HEAD or the fetch that opens a fill. Rules:
1. A caller with a remembered yes for the repository passes, and its 404s are nobody's guesses.
2. Anybody else's refusals are counted by address (IPv6: by /64); when the bucket is full, 429 with
   Retry-After. The first step of every token login, a 401 to somebody without a credential, counts a tenth.
3. At most `slots` undecided questions of one address are under way; the rest wait for their turn, so that a
   burst cannot outrun the counting.
4. A 401, 403 or unknown repository removes the remembered yes.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msrcache.access.asking import AskingRight
from msrcache.access.buckets import Buckets, Slots, network_of
from msrcache.oci.errors import (
    Denied,
    NameUnknown,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    is_refusal,
)
from msrcache.oci.pulls import BlobPull, ManifestPull, Pull, Relayed
from msrcache.oci.registry import Answer, Blob, Manifest, Registry, Resolution

FIRST_STEP = 0.1
"""What a 401 without a credential counts: containerd begins every pull with one."""


class Limited:
    """Implements Registry over `upstream`; pulls of the cache's own right pass untouched."""

    def __init__(self, upstream: Registry, *, refusals: Buckets, slots: int = 64) -> None:
        self._upstream = upstream
        self.refusals = refusals
        self._slots = Slots(slots)

    def __repr__(self) -> str:
        return f"<Limited {self.refusals!r} over {self._upstream!r}>"

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        """As Registry.resolve, or TooManyRequests."""
        async with self._counted(pull):
            return await self._upstream.resolve(pull)

    async def manifest(self, pull: ManifestPull) -> Manifest:
        """As Registry.manifest, or TooManyRequests."""
        async with self._counted(pull):
            return await self._upstream.manifest(pull)

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        """As Registry.blob, or TooManyRequests; a slot is held until the answer is known, no longer."""
        async with AsyncExitStack() as stack:
            async with self._counted(pull):
                blob = await stack.enter_async_context(self._upstream.blob(pull))
            yield blob

    async def relay(self, pull: Relayed) -> Answer:
        """As Registry.relay, or TooManyRequests."""
        async with self._counted(pull):
            return await self._upstream.relay(pull)

    @asynccontextmanager
    async def _counted(self, pull: Pull) -> AsyncIterator[None]:
        right = pull.right
        if not isinstance(right, AskingRight):
            yield
            return
        try:
            if right.known(pull):
                yield
            else:
                async with self._stranger(right):
                    yield
        except (Unauthorized, Denied, NameUnknown):
            right.withdrawn(pull)
            raise

    @asynccontextmanager
    async def _stranger(self, right: AskingRight) -> AsyncIterator[None]:
        address = network_of(right.caller.address)
        async with self._slots.one(address):
            if wait := self.refusals.wait(address):
                raise TooManyRequests(
                    wait, "too many refused questions from your address: wait, then log in again"
                )
            try:
                yield
            except RegistryError as error:
                if is_refusal(error):
                    first = isinstance(error, Unauthorized) and not right.credential.header
                    self.refusals.pour(address, FIRST_STEP if first else 1.0)
                raise
