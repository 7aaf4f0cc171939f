"""This process's fills, for the replicas that follow them: the other side of `following`.

Whoever follows a fill here gets what is in its spool, the last byte once it is verified: never a fill of its own,
never a question to the upstream. So there are no chains and no loops (protocols, section 4).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from msrcache.cache.lease import Leases
from msrcache.cache.tail import Spilled, Tail
from msrcache.oci.descriptor import OCTETS, Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.errors import RegistryError
from msrcache.oci.peers import Holder, NotFollowed, Sign
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Blob, Chunk, FileSpan, Outcome


class Followed(Protocol):
    """A fill under way here."""

    async def opened(self) -> Tail:
        """Its tail, once the size is known. Raises what ended it before that."""

    def held(self) -> AbstractAsyncContextManager[None]:
        """As long as somebody holds it, its file stays open."""


class OwnFills:
    """The fills of this process that hold a lease, for the replicas that follow them. Implements Followable."""

    def __init__(self, find: Callable[[Digest], Followed | None], leases: Leases) -> None:
        self._find = find
        self._leases = leases

    @asynccontextmanager
    async def follow(self, digest: Digest, holder: Holder, start: int) -> AsyncIterator[Blob]:
        """As Followable.follow; only the holder's nonce is looked at."""
        if not self._leases.holds(digest, holder.nonce):
            raise NotFollowed(Sign.REPLACED, f"no fill of {digest} has this nonce here")
        fill = self._find(digest)
        if fill is None:
            raise NotFollowed(Sign.NOFILL, f"no fill of {digest} is under way here")
        async with fill.held():
            tail = await _opened(fill)
            if start and start >= tail.size:
                raise NotFollowed(Sign.BROKEN, f"{digest} has {tail.size} bytes, asked for byte {start}")
            if not tail.size:
                await _settled(tail)
            span = Span(start, tail.size)
            yield Blob(Descriptor(OCTETS, digest, tail.size), span, Outcome.FOLLOWED, _body(tail, span))


async def _opened(fill: Followed) -> Tail:
    try:
        return await fill.opened()
    except (
        Exception
    ) as error:  # a refusal of its caller, an outage: whatever it was, the follower asks for itself
        raise NotFollowed(Sign.NOFILL, f"the fill ended: {error}") from error


async def _settled(tail: Tail) -> None:
    try:
        await tail.settled()
    except (Spilled, RegistryError) as error:
        raise NotFollowed(Sign.BROKEN, f"the fill ended: {error}") from error


async def _body(tail: Tail, span: Span) -> AsyncIterator[Chunk]:
    offset = span.start
    while offset < span.stop:
        try:
            stop = await tail.available(offset, span)
        except (Spilled, RegistryError) as error:
            raise NotFollowed(Sign.BROKEN, f"the fill ended at byte {offset}: {error}") from error
        yield FileSpan(tail.fd, offset, stop)
        offset = stop
