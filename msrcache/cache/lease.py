"""The lease: one fill of a blob in the fleet.

Here stands the interface and what a single replica needs of it: nobody else fills, so the lease is always
granted. Coordination saves work and is never needed for right bytes: a fill that lost its lease still ends well,
because what it commits is addressed by its content.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from msrcache.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to fill one digest. ``found`` says that the blob came into the store meanwhile: do not fill."""

    digest: Digest
    found: bool = False


class Leases(Protocol):
    """Hands out leases; see protocols, section 3."""

    def hold(self, digest: Digest) -> AbstractAsyncContextManager[Lease]:
        """Waits until this process may fill the digest, or until the blob is there. Never raises for a sick
        store: after its patience the fill goes on without a lease.
        """
        ...


class SoleReplica:
    """Leases of a replica that shares its store with nobody who fills."""

    @asynccontextmanager
    async def hold(self, digest: Digest) -> AsyncIterator[Lease]:
        """Granted at once."""
        yield Lease(digest)
