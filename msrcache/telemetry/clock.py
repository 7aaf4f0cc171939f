"""Time as a seam: whoever waits or forgets is given a Clock, so that a test can turn it.

Durations and deadlines are measured with `monotonic`; `time` is only for stamps that people or other machines
read.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What the time is, in seconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    def time(self) -> float:
        """Seconds since the epoch; may jump when the machine's clock is set."""
        ...


class SystemClock:
    """The machine's own clock."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Seconds since the machine started."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()
