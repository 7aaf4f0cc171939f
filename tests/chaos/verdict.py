"""What a run of chaos came to: the cause of every failure, the table, and what makes it red. Pure.

An attempt may fail where its own replica was killed, stopped or cut off under it, or where its bytes were to come from
an upstream that nobody let through. Nothing else is an excuse: no store, no peer, no clock, no drain.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.plan import AROUND, PROCESS, Kind

GONE: Final = (Kind.KILL, Kind.STOP, Kind.CUT_CLIENTS)
NO_UPSTREAM: Final = (
    Kind.CUT_UPSTREAM,
    Kind.DUMB_UPSTREAM,
    Kind.UPSTREAM_DOWN,
    Kind.UPSTREAM_BROKEN,
    Kind.UPSTREAM_SLOW,
)
NO_STORE: Final = (
    Kind.CUT_STORE,
    Kind.DUMB_STORE,
    Kind.STORE_SLOW,
    Kind.STORE_FULL,
    Kind.STORE_DENIED,
    Kind.CLOCK,
)
WRONG_SIGN: Final = (Kind.CUT_PEERS,)
"""A peer port that refuses looks like a process that is gone: by the protocol that costs one more pull."""
AFTER: Final = 12.0
"""Seconds that a fault is felt for after it has ended: breakers stay open for ten."""
MOST: Final = 1.1
UNEXCUSED: Final = "none: a defect"


@dataclass(frozen=True, slots=True)
class Window:
    """When a fault was at work, on the run's clock; no replica: it was all of them."""

    kind: Kind
    start: float
    stop: float
    replica: int | None

    def meets(self, start: float, stop: float, *, after: float) -> bool:
        """Whether it was felt between."""
        return self.start < stop and start < self.stop + after


@dataclass(slots=True)
class Attempt:
    """One request of a client. `replica` is None where no answer told it; `error` is empty where it ended well."""

    start: float
    stop: float = 0.0
    replica: int | None = None
    error: str = ""
    stall: float = 0.0


@dataclass(slots=True)
class Pulled:
    """One blob or manifest pulled by one client, with all its attempts."""

    digest: str
    size: int
    attempts: list[Attempt] = field(default_factory=list)
    wrong: bool = False
    ended_well: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes of a blob that the upstream's answer brought to a replica, and when they were asked for."""

    digest: str
    count: int
    at: float


def cause(attempt: Attempt, windows: Iterable[Window]) -> str:
    """What excuses a failed attempt, or UNEXCUSED."""
    for window in windows:
        mine = attempt.replica is None or window.replica in (None, attempt.replica)
        if window.kind in GONE and mine and window.meets(attempt.start, attempt.stop, after=2.0):
            return str(window.kind)
    for window in windows:
        mine = attempt.replica is None or window.replica in (None, attempt.replica)
        if window.kind in NO_UPSTREAM and mine and window.meets(attempt.start, attempt.stop, after=AFTER):
            return str(window.kind)
    return UNEXCUSED


@dataclass(slots=True)
class Verdict:
    """The figures of a run."""

    pulls: int
    attempts: int
    faults: Counter[Kind]
    failures: Counter[str]
    failed_pulls: int
    wrong: int
    wrong_stored: int
    ratio: float
    """Upstream bytes over unique bytes of blobs above the threshold of the lease, while neither the store was at fault
    nor the peers were cut off. What was deleted and came again is another blob.
    """
    ratio_store: float
    """The same at all times: what a store does not take, or does not give, is fetched again."""
    ratio_small: float
    deleted: int
    stall: float
    leftovers: dict[str, int]

    def red(self, *, pulls: int, rounds: int, most: float = MOST, deleted: int = 0) -> list[str]:
        """Why the run has failed; empty: it has not."""
        reasons = [
            f"{self.failures[UNEXCUSED]} attempts failed without an excuse" * bool(self.failures[UNEXCUSED]),
            f"{self.failed_pulls} pulls were given up" * bool(self.failed_pulls),
            f"{self.wrong} pulls ended well with wrong bytes" * bool(self.wrong),
            f"{self.wrong_stored} stored blobs are wrong" * bool(self.wrong_stored),
            f"upstream bytes are {self.ratio:.2f}x the unique ones" * (self.ratio > most),
            f"only {self.pulls} pulls" * (self.pulls < pulls),
            f"only {self.deleted} blobs expired" * (self.deleted < deleted),
            *(
                f"only {self.faults[kind]} x {kind}" * (self.faults[kind] < rounds)
                for kind in (*PROCESS, *AROUND)
            ),
        ]
        return [reason for reason in reasons if reason]

    def table(self) -> str:
        """For people, and for docs/reliability.md."""
        rows = [
            ("pulls (attempts)", f"{self.pulls} ({self.attempts})"),
            ("pulls given up", str(self.failed_pulls)),
            ("wrong bytes served, stored", f"{self.wrong}, {self.wrong_stored}"),
            *(
                (f"attempts failed, cause: {name}", str(count))
                for name, count in sorted(self.failures.items())
            ),
            ("upstream bytes / unique bytes, above the threshold", f"{self.ratio:.2f}x"),
            ("the same, faults of the store and cut peers included", f"{self.ratio_store:.2f}x"),
            ("the same, blobs up to the threshold", f"{self.ratio_small:.2f}x"),
            ("blobs that expired and were deleted", str(self.deleted)),
            ("longest stall of an attempt that ended well", f"{self.stall:.1f} s"),
            *((f"left over: {name}", str(count)) for name, count in sorted(self.leftovers.items())),
            *((f"fault: {kind}", f"{self.faults[kind]}x") for kind in Kind),
        ]
        return "\n".join(
            ["| what | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
        )


def judge(
    pulled: Sequence[Pulled],
    windows: Sequence[Window],
    sent: Sequence[Sent],
    *,
    deleted: Mapping[str, Sequence[float]],
    threshold: int,
    wrong_stored: int,
    leftovers: dict[str, int],
) -> Verdict:
    """The verdict on a run."""
    attempts = [attempt for one in pulled for attempt in one.attempts]
    large = {one.digest: one.size for one in pulled if one.size > threshold}
    small = {one.digest: one.size for one in pulled if one.size <= threshold}
    calm = [part for part in sent if not _met(part.at, windows)]
    return Verdict(
        pulls=len(pulled),
        attempts=len(attempts),
        faults=Counter(window.kind for window in windows),
        failures=Counter(cause(attempt, windows) for attempt in attempts if attempt.error),
        failed_pulls=sum(not one.ended_well for one in pulled),
        wrong=sum(one.wrong for one in pulled),
        wrong_stored=wrong_stored,
        ratio=_ratio(large, calm, deleted),
        ratio_store=_ratio(large, sent, deleted),
        ratio_small=_ratio(small, sent, deleted),
        deleted=sum(len(times) for times in deleted.values()),
        stall=max((attempt.stall for attempt in attempts if not attempt.error), default=0.0),
        leftovers=leftovers,
    )


def _met(at: float, windows: Iterable[Window]) -> bool:
    """Whether such a fault was felt then."""
    return any(
        (w.kind in NO_STORE and w.meets(at, at, after=AFTER))
        or (w.kind in WRONG_SIGN and w.meets(at - 1.0, at, after=1.0))
        for w in windows
    )


def _ratio(sizes: Mapping[str, int], sent: Sequence[Sent], deleted: Mapping[str, Sequence[float]]) -> float:
    """Bytes sent of these blobs over their sizes, each that was sent at all counted once in each of its lives."""
    lives = {
        (part.digest, bisect_right(deleted.get(part.digest, ()), part.at))
        for part in sent
        if part.digest in sizes
    }
    unique = sum(sizes[digest] for digest, _ in lives)
    return sum(part.count for part in sent if part.digest in sizes) / unique if unique else 0.0
