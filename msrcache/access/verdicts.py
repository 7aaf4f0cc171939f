"""What is remembered of yes-answers: per caller and repository, for a bounded time, in bounded number.

Rules: a no is not remembered, it removes a yes. A yes is fresh for `ttl`, good for `grace` only while the
upstream cannot be asked, and never good past the end of the token that it was given to, by whichever clock
says so first.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from msrcache.telemetry.clock import Clock

Key = tuple[str, str]
"""Caller and repository; the empty repository is the registry itself."""


class Standing(Enum):
    """How good a remembered yes is."""

    NONE = 0
    GRACE = 1  # while the upstream cannot be asked
    FRESH = 2


@dataclass(frozen=True, slots=True)
class _Yes:
    given: float  # monotonic seconds
    end: float  # monotonic seconds: of the token or of grace, as it seemed when the yes was given
    expiry: float  # seconds since the epoch: the token's, whatever has been done to the clock since


class Verdicts:
    """The memory; times in seconds, `capacity` entries of which the longest unused goes first."""

    def __init__(self, *, clock: Clock, ttl: float, grace: float, capacity: int = 20_000) -> None:
        self._clock = clock
        self._ttl = ttl
        self._grace = max(ttl, grace)
        self._capacity = capacity
        self._kept: OrderedDict[Key, _Yes] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Verdicts [{len(self._kept)} remembered]>"

    def __len__(self) -> int:
        return len(self._kept)

    def remember(self, key: Key, *, expiry: float | None) -> None:
        """A yes, given just now to a token that ends at `expiry`."""
        left = math.inf if expiry is None else expiry - self._clock.time()
        if left <= 0:
            self.forget(key)
            return
        now = self._clock.monotonic()
        ends = math.inf if expiry is None else expiry
        self._kept[key] = _Yes(now, now + min(self._grace, left), ends)
        self._kept.move_to_end(key)
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def change(self, *, ttl: float, grace: float) -> None:
        """Other times, for what is remembered too; a longer grace holds for what is remembered from now on."""
        self._ttl = ttl
        self._grace = max(ttl, grace)

    def clear(self) -> None:
        """Another upstream is asked from now on: nothing that was said counts."""
        self._kept.clear()

    def forget(self, key: Key) -> None:
        """The upstream said no, or the right was withdrawn."""
        self._kept.pop(key, None)

    def standing(self, key: Key) -> Standing:
        """How good the remembered yes is now."""
        yes = self._kept.get(key)
        if yes is None:
            return Standing.NONE
        now = self._clock.monotonic()
        if now >= min(yes.end, yes.given + self._grace) or self._clock.time() >= yes.expiry:
            del self._kept[key]
            return Standing.NONE
        self._kept.move_to_end(key)
        return Standing.FRESH if now < yes.given + self._ttl else Standing.GRACE
