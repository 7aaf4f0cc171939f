"""Which upstream to ask next: a decision over states, without a loop, a clock or a socket.

States of one upstream:
  closed    asked in turn; outages in a row are counted, any answer sets the count to nothing
  open      left alone until a moment; `failures` outages in a row led here
  probing   past that moment, one pull is under way to it: an answer closes, an outage opens again, and if it
            ends without either, the next pull probes
Only outages count. A refusal is an answer, and so is nonsense about one blob: it says nothing of the next
one. A late outage of a pull that began before the breaker opened changes nothing; a late answer closes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from msrcache.upstream.settings import BalanceSettings


class Verdict(Enum):
    """What one attempt tells about the upstream."""

    ANSWERED = auto()
    OUTAGE = auto()
    NOTHING = auto()  # left early, or it never got there


@dataclass(frozen=True, slots=True)
class Breaker:
    """One upstream's state; `until` is monotonic, None while closed."""

    failures: int = 0
    until: float | None = None
    probing: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it is left alone, or merely probed."""
        return self.until is not None


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask this one."""

    index: int
    probe: bool = False


@dataclass(frozen=True, slots=True)
class NextRound:
    """All that may be asked have been."""


@dataclass(frozen=True, slots=True)
class Away:
    """Every breaker is open; one is probed in so many seconds at the earliest."""

    retry_after: float


Choice = Ask | NextRound | Away


def choose(breakers: Sequence[Breaker], *, turn: int, tried: frozenset[int], now: float) -> Choice:
    """The next attempt of a pull whose turn it is; `tried` are those it has asked in this round."""
    order = [(turn + step) % len(breakers) for step in range(len(breakers))]
    for index in order:
        breaker = breakers[index]
        if index not in tried and _may_be_asked(breaker, now):
            return Ask(index, probe=breaker.is_open)
    if any(not breaker.is_open for breaker in breakers):
        return NextRound()
    return Away(min(max(1.0, (breaker.until or now) - now) for breaker in breakers))


def _may_be_asked(breaker: Breaker, now: float) -> bool:
    return breaker.until is None or (now >= breaker.until and not breaker.probing)


def started(breaker: Breaker, *, probe: bool) -> Breaker:
    """The state while an attempt is under way."""
    return replace(breaker, probing=True) if probe else breaker


def ended(
    breaker: Breaker, verdict: Verdict, *, probe: bool, now: float, settings: BalanceSettings
) -> Breaker:
    """The state after an attempt."""
    match verdict:
        case Verdict.ANSWERED:
            return Breaker()
        case Verdict.NOTHING:
            return replace(breaker, probing=False) if probe else breaker
    failures = breaker.failures + 1
    if probe or (not breaker.is_open and failures >= settings.failures):
        return Breaker(failures, now + settings.open_for)
    return replace(breaker, failures=failures)
