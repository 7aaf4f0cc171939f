"""Which replicas could not be reached when they were tried last, and why: for people, who are told what that costs.

Nothing is decided by it. A replica that nobody tries any more is forgotten: it may be gone, and its successor has
another name.
"""

from collections.abc import Mapping
from typing import Final

from msrcache.telemetry.clock import Clock

REMEMBERED: Final = 600.0
MOST: Final = 64


class Reach:
    """What trying came to, by replica."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lost: dict[str, tuple[float, str]] = {}

    def __repr__(self) -> str:
        return f"<Reach {len(self._lost)} unreached>"

    def lost(self, replica: str, reason: str) -> None:
        """It could not be asked, or did not take our signature."""
        self._lost.pop(replica, None)
        self._lost[replica] = (self._clock.monotonic(), reason)
        while len(self._lost) > MOST:
            del self._lost[next(iter(self._lost))]

    def met(self, replica: str) -> None:
        """It answered."""
        self._lost.pop(replica, None)

    def unreached(self) -> Mapping[str, str]:
        """Replica -> what was seen."""
        now = self._clock.monotonic()
        self._lost = {name: seen for name, seen in self._lost.items() if now < seen[0] + REMEMBERED}
        return {name: reason for name, (_, reason) in self._lost.items()}
