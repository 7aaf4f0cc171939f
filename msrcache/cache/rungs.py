"""Where the rungs of leases stand: five operations, and the store as the register that has them.

A lease is named by `layout.lease_of` or `layout.named_lease`; its rungs are numbered from 0.
"""

from typing import Protocol

from msrcache.cache.layout import lease_key
from msrcache.cache.leaserecord import LIMIT
from msrcache.storage.errors import NotFound
from msrcache.storage.store import Store


class Rungs(Protocol):
    """A register of rungs. Every method may raise StorageError; where it did, it may have taken effect."""

    async def create(self, lease: str, n: int, data: bytes) -> bool:
        """True if we made it, False if it was there: of many at once exactly one wins."""
        ...

    async def read(self, lease: str, n: int) -> bytes | None:
        """What stands there; None: nothing."""
        ...

    async def exists(self, lease: str, n: int) -> bool:
        """Whether something stands there."""
        ...

    async def put(self, lease: str, n: int, data: bytes) -> None:
        """Replace it."""
        ...

    async def delete(self, lease: str, *rungs: int) -> None:
        """Remove them; what is not there is no error."""
        ...


class StoreRungs:
    """Implements Rungs over a store whose creates are exclusive."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<StoreRungs {self._store!r}>"

    async def create(self, lease: str, n: int, data: bytes) -> bool:
        """As Rungs; a lost reply is settled by reading back, because the data has a nonce."""
        return await self._store.create(lease_key(lease, n), data)

    async def read(self, lease: str, n: int) -> bytes | None:
        """As Rungs."""
        try:
            return await self._store.get(lease_key(lease, n), LIMIT)
        except NotFound:
            return None

    async def exists(self, lease: str, n: int) -> bool:
        """As Rungs."""
        try:
            await self._store.stat(lease_key(lease, n))
        except NotFound:
            return False
        return True

    async def put(self, lease: str, n: int, data: bytes) -> None:
        """As Rungs."""
        await self._store.put(lease_key(lease, n), data)

    async def delete(self, lease: str, *rungs: int) -> None:
        """As Rungs."""
        await self._store.delete(*(lease_key(lease, n) for n in rungs))
