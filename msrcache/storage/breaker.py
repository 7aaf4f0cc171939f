"""Whether the store may be asked: a decision over states, without a loop, a clock or a call.

A store has two breakers, one for reading and one for writing: a full or refusing store may still be read well.
States of one:
  closed   every call goes out; outages in a row are counted, any answer sets the count to nothing
  open     no call goes out: reads are misses at once, writes are skipped. `failures` outages in a row led here.
           After a wait one probe of the store's own goes out: an answer closes, an outage opens again for twice
           as long, up to `longest`

Rules:
1. Only outages count: the store could not be asked, or not as it is configured. That something is missing, denied
   or too large is an answer; what failed otherwise says nothing of the next call.
2. No pull is a probe: while the store is sick, nobody waits for it.
3. Calls that began before it opened end late: an answer of theirs closes, an outage changes nothing.
4. Whatever cannot be read is not written either: a write goes out only where both are closed.
5. Letting go of a writer, or deleting what is not there, succeeds on a full disk too: it is no answer to writing.
"""

from dataclasses import dataclass, replace
from enum import StrEnum, auto
from typing import Final

from msrcache.storage.errors import (
    Denied,
    NoSpace,
    NotFound,
    RangeNotSatisfiable,
    ReadOnly,
    Unavailable,
    Unusable,
)

WRITES: Final = frozenset({"put", "create", "writer", "write", "commit", "abort", "delete", "sweep"})
"""The operations that change the store; all others read it."""

PROOFS: Final = frozenset({"put", "create", "commit"})
"""The operations whose success shows that the store can be written."""


class Side(StrEnum):
    """What a breaker guards; the metric's label."""

    READING = "reading"
    WRITING = "writing"


class Verdict(StrEnum):
    """What the end of one call tells about the store."""

    ANSWERED = auto()
    OUTAGE = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """Outages in a row that open; seconds before the first probe, and the most that this grows to."""

    failures: int = 5
    open_for: float = 10.0
    longest: float = 60.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """One state: outages in a row, and how often it opened without an answer in between."""

    failures: int = 0
    openings: int = 0

    @property
    def is_open(self) -> bool:
        """Whether no call goes out."""
        return self.openings > 0


def side_of(operation: str) -> Side:
    """What an operation does."""
    return Side.WRITING if operation in WRITES else Side.READING


def verdict_of(operation: str, error: BaseException | None) -> Verdict:
    """What the end of a call tells; `error` None is success."""
    match error:
        case None:
            proves = operation in PROOFS or operation not in WRITES
            return Verdict.ANSWERED if proves else Verdict.NOTHING
        case Unavailable() | Unusable():
            return Verdict.OUTAGE
        case NotFound() | RangeNotSatisfiable() | Denied() | ReadOnly() | NoSpace():
            return Verdict.ANSWERED
        case _:
            return Verdict.NOTHING


def may_go(operation: str, *, reading: Breaker, writing: Breaker) -> bool:
    """Whether a call goes out."""
    return not reading.is_open and not (operation in WRITES and writing.is_open)


def ended(breaker: Breaker, verdict: Verdict, settings: BreakerSettings) -> Breaker:
    """The state after a call ended."""
    match verdict:
        case Verdict.ANSWERED:
            return Breaker()
        case Verdict.OUTAGE if not breaker.is_open:
            failures = breaker.failures + 1
            return Breaker(failures, int(failures >= settings.failures))
        case _:
            return breaker


def probed(breaker: Breaker, verdict: Verdict) -> Breaker:
    """The state after a probe ended; one that told nothing got through to the store all the same."""
    if verdict is Verdict.OUTAGE and breaker.is_open:
        return replace(breaker, openings=breaker.openings + 1)
    return Breaker()


def wait_of(breaker: Breaker, settings: BreakerSettings) -> float:
    """Seconds from the opening to the probe."""
    # The exponent is bounded: after a week of outage 2.0 ** openings is no number any more.
    return min(settings.longest, settings.open_for * 2.0 ** min(breaker.openings - 1, 30))
