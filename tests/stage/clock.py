"""A clock that a test turns by hand: nothing becomes older unless the test says so."""


class FakeClock:
    """Starts at a plausible date; both readings move together, and only by `advance`."""

    def __init__(self, *, monotonic: float = 1_000.0, time: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._time = time

    def __repr__(self) -> str:
        return f"<FakeClock {self._monotonic:g}>"

    def monotonic(self) -> float:
        """As Clock.monotonic."""
        return self._monotonic

    def time(self) -> float:
        """As Clock.time."""
        return self._time

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        if seconds < 0:
            raise ValueError("time does not go back; use jump() for a clock that was set")
        self._monotonic += seconds
        self._time += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock alone, as an administrator or NTP does."""
        self._time += seconds
