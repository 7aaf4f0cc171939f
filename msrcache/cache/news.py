"""What was just published in the fleet: by this process, to be told; by others, to be held against what is missed here.

Read-after-write consistency is watched, not assumed. A writer tells the others which digests it has published, and how
long ago; whoever looked for one of them after that moment and was told by the store that it is not there has found the
store breaking its promise. All moments are of this process's own clock: what another tells is an age, and what the
telling takes makes it look younger, so nobody is accused wrongly.
Not here: how it is told (`watching`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msrcache.oci.digest import Digest
from msrcache.telemetry.clock import Clock, SystemClock

JUST: Final = 60.0
"""Seconds for which what was published counts as such, at most: nothing expires within `cache.belief`."""
MOST: Final = 4096
"""Digests that are remembered of each kind; the oldest go."""
AT_ONCE: Final = 256
"""Digests that are told in one message."""


class News:
    """`violated` is called for each miss of something that had been published before it was looked for."""

    def __init__(
        self,
        violated: Callable[[Digest], None] | None = None,
        clock: Clock | None = None,
        *,
        belief: float = JUST,
    ) -> None:
        self._violated = violated
        self._just = min(JUST, belief)
        self._clock = clock or SystemClock()
        self._untold: OrderedDict[Digest, float] = OrderedDict()
        self._published: OrderedDict[Digest, float] = OrderedDict()
        self._missed: OrderedDict[Digest, float] = OrderedDict()
        self.arrived = asyncio.Event()
        """Set while something is to be told."""

    def __repr__(self) -> str:
        return f"<News {len(self._untold)} untold, {len(self._published)} heard>"

    def note(self, digest: Digest) -> None:
        """This process has published it: from now on every replica finds it."""
        _remember(self._untold, digest, self._clock.monotonic())
        self.arrived.set()

    def take(self) -> Sequence[tuple[Digest, float]]:
        """What is to be told now, oldest first, with its age."""
        now = self._clock.monotonic()
        count = min(len(self._untold), AT_ONCE)
        taken = [self._untold.popitem(last=False) for _ in range(count)]
        if not self._untold:
            self.arrived.clear()
        return [(digest, now - noted) for digest, noted in taken]

    def heard(self, told: Iterable[tuple[Digest, float]]) -> None:
        """Another replica has published these, each so many seconds ago."""
        now = self._clock.monotonic()
        for digest, age in told:
            if age > self._just:
                continue
            since = now - max(age, 0.0)
            _remember(self._published, digest, since)
            missed = self._missed.pop(digest, None)
            if missed is not None and missed > since:
                self._violation(digest)

    def looking(self) -> float:
        """The moment before the store is asked, to be given to `missed`."""
        return self._clock.monotonic()

    def missed(self, digest: Digest, began: float) -> None:
        """The store said that it is not there, asked at `began`."""
        since = self._published.get(digest)
        if since is not None and since < began <= since + self._just:
            self._violation(digest)
        else:
            _remember(self._missed, digest, began)

    def _violation(self, digest: Digest) -> None:
        if self._violated is not None:
            self._violated(digest)


def _remember(into: "OrderedDict[Digest, float]", digest: Digest, moment: float) -> None:
    into[digest] = moment
    into.move_to_end(digest)
    if len(into) > MOST:
        into.popitem(last=False)
