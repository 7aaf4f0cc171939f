"""Presence: which blobs are believed to stand in the store, so that a redirect asks it nothing.

Rules (protocols, section 6):
1. A belief begins with a sighting on the store itself (a stat, an opened object, the check after a commit) and lives
   for `belief` seconds.
2. It ends at once when a read says that nothing is there. That a blob is absent is never believed.
3. Whoever comes back for a blob within AGAIN seconds of being sent to the store for it may have met a 404 there: for
   him the blob is looked at, unless that was done within the last GLANCE seconds (all clients behind one proxy are
   one address; their crowd costs the store one look a second).
4. Both memories are bounded; what was longest unused goes first, and costs one look.
"""

from collections import OrderedDict
from dataclasses import dataclass

from msrcache.oci.digest import Digest
from msrcache.telemetry.clock import Clock

AGAIN = 60.0
GLANCE = 1.0
BELIEFS = 100_000
"""Blobs that are believed to be there."""
SENT = 50_000
"""Pairs of client and blob that are remembered as sent to the store."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A blob that was there; `seen` in monotonic seconds."""

    size: int
    seen: float


def stands(sighting: Sighting | None, sent: float | None, *, now: float, belief: float) -> bool:
    """Whether the blob may be called present without a look, to a client that was sent to it at `sent` (pure)."""
    if sighting is None or now - sighting.seen >= belief:
        return False
    came_back = sent is not None and now - sent < AGAIN
    return not came_back or now - sighting.seen < GLANCE


class Presence:
    """What is believed."""

    def __init__(self, clock: Clock, *, belief: float = 600.0) -> None:
        """`belief`: seconds that a sighting is good for."""
        self._clock = clock
        self._belief = belief
        self._seen: OrderedDict[Digest, Sighting] = OrderedDict()
        self._sent: OrderedDict[tuple[str, Digest], float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Presence [{len(self._seen)} blobs, {len(self._sent)} clients sent]>"

    def saw(self, digest: Digest, size: int) -> None:
        """The blob was just found in the store."""
        self._seen[digest] = Sighting(size, self._clock.monotonic())
        self._seen.move_to_end(digest)
        if len(self._seen) > BELIEFS:
            self._seen.popitem(last=False)

    def forget(self, digest: Digest) -> None:
        """A read found nothing there."""
        self._seen.pop(digest, None)

    def size(self, digest: Digest) -> int | None:
        """The size that the blob had when it was last seen; a blob never changes."""
        sighting = self._seen.get(digest)
        return None if sighting is None else sighting.size

    def believed(self, digest: Digest, address: str) -> bool:
        """Whether this client may be sent to the blob without a look."""
        sighting, sent = self._seen.get(digest), self._sent.get((address, digest))
        held = stands(sighting, sent, now=self._clock.monotonic(), belief=self._belief)
        if held:
            self._seen.move_to_end(digest)
        return held

    def sent(self, digest: Digest, address: str) -> None:
        """The client was just sent to the blob."""
        now, key = self._clock.monotonic(), (address, digest)
        self._sent[key] = now
        self._sent.move_to_end(key)
        first = next(iter(self._sent))
        if len(self._sent) > SENT or now - self._sent[first] >= AGAIN:
            del self._sent[first]
