"""The lease: one fill of a blob in the fleet.

Here stand the interface between a fill and the fleet, and what a single replica needs of it: nobody else fills, so
the lease is always granted. Coordination saves work and is never needed for right bytes: a fill that lost its lease
still ends well, because what it commits is addressed by its content.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from msrcache.oci.digest import Digest
from msrcache.oci.peers import Holder, NotFollowed


@dataclass(frozen=True, slots=True)
class Fetch:
    """Fetch it from the upstream: this process holds the lease, or does without one."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Another replica fills: follow it."""

    holder: Holder


@dataclass(frozen=True, slots=True)
class Found:
    """The blob is in the store."""


Turn = Fetch | Follow | Found
"""What a fill does next."""


class Arrival(Protocol):
    """One fill's way through the lease, from its arrival to its end; see protocols, section 3."""

    async def turn(self) -> Turn:
        """What to do next. Waits while another replica holds the lease and can't be followed.

        Asked again after a Follow that broke; after a Fetch or a Found it is not asked again. Never raises for a sick
        store: after its patience the answer is Fetch.
        """

    def failed(self, error: NotFollowed) -> None:
        """Tells what following the holder of the last turn came to, before the next turn is asked for."""

    async def dead(self) -> None:
        """Returns when the holder of the last turn has shown no beat for the lease's time to live.

        A stream that brings no byte is left then. Waits for ever while the holder lives; to be cancelled.
        """

    def stored(self) -> None:
        """Says that the blob was committed, checked and linked: the lease ends as a success."""


class Leases(Protocol):
    """Hands out leases."""

    def arrive(self, digest: Digest, *, size: int | None) -> AbstractAsyncContextManager[Arrival]:
        """An arrival; leaving the context ends what it holds. ``size`` as far as it is known from a manifest."""

    def holds(self, digest: Digest, nonce: str) -> bool:
        """Whether the lease with this nonce is held by an arrival of this process that is under way."""


class Undisputed:
    """The arrival of a replica that nobody disputes a fill with."""

    async def turn(self) -> Turn:
        """Fetch, at once."""
        return Fetch()

    def failed(self, error: NotFollowed) -> None:
        """Nobody is followed."""

    async def dead(self) -> None:
        """Nobody is followed."""

    def stored(self) -> None:
        """Nobody waits for it."""


class SoleReplica:
    """Leases of a replica that shares its store with nobody who fills."""

    @asynccontextmanager
    async def arrive(self, digest: Digest, *, size: int | None) -> AsyncIterator[Arrival]:
        """Granted at once."""
        yield Undisputed()

    def holds(self, digest: Digest, nonce: str) -> bool:
        """No lease was ever written."""
        return False
