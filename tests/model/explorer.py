"""Explores a world of leases whole, and says which of its promises do not hold in some state."""

import gc
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from msrcache.cache.leaserules import Own
from tests.model.leaseworld import FAULTS, Replica, State, World, nonce
from tests.model.mirror import Mirror

CRASH, EXPIRY, SICK, FAIL, LEAVE = (
    1 + FAULTS.index(kind) for kind in ("crash", "expiry", "sick", "fail", "leave")
)
"""Where the budgets of these faults stand."""


@dataclass(slots=True)
class Report:
    """What was found: how many states there are, and for each broken promise the first state that breaks it."""

    states: int = 0
    moves: int = 0
    broken: dict[str, State] = field(default_factory=dict)


class Explorer:
    """One world, from its start to every end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._start = world.start()
        self._numbers = {self._start: 0}
        self._states = [self._start]
        self._from, self._to = array("i"), array("i")
        self._ends: list[int] = []
        self._mirror = Mirror() if world.replicas == 2 else None

    def run(self, until: str = "") -> Report:
        """Everything that can happen, or until that promise is broken."""
        report = Report()
        with _no_collection():
            number = 0
            while number < len(self._states) and until not in report.broken:
                state = self._states[number]
                for promise in self._broken(state):
                    report.broken.setdefault(promise, state)
                for after, fault in self._world.moves(state):
                    report.moves += 1
                    self._moved(number, after, fault=fault)
                if self._ended(state):
                    self._ends.append(number)
                number += 1
            report.states = number
            if not until and (stuck := self._stuck()) is not None:
                report.broken["everybody alive can be served"] = stuck
        return report

    def _moved(self, number: int, after: State, *, fault: bool) -> None:
        if self._mirror is not None:
            after = self._mirror.chosen(after)
        found = self._numbers.get(after)
        if found is None:
            found = self._numbers[after] = len(self._states)
            self._states.append(after)
        if not fault:
            self._from.append(number)
            self._to.append(found)

    def _ended(self, state: State) -> bool:
        last = self._world.arrivals - 1
        return all(
            replica.phase == "done" or (replica.phase == "down" and replica.k == last)
            for replica in state.replicas
        )

    def _broken(self, state: State) -> Iterator[str]:
        if state.slack < 0:
            yield "fetches are bounded by the faults"
        if sum(_holds(state, replica) for replica in state.replicas) > 1:
            yield "one holder, but for those who are told that they lost it"
        if not self._happened(state, CRASH, SICK) and self._ghost(state):
            yield "no ghost: who ended holds nothing"
        if state.waited > self._waits_allowed(state):
            yield "a dead holder is waited for once"
        if self._ended(state):
            yield from self._left(state)

    def _left(self, state: State) -> Iterator[str]:
        if not self._happened(state, *range(1, 1 + len(FAULTS))) and state.slack:
            yield "without faults exactly one fetch"
        if state.store.rungs and not self._happened(state, CRASH, EXPIRY, SICK):
            yield "no record is left"
        # A successor that fails leaves its rung released above a holder that was only paused; the janitor's.
        passed = self._happened(state, EXPIRY) and self._happened(state, FAIL, LEAVE)
        if state.store.rungs and state.store.blob and not passed and not self._happened(state, CRASH, SICK):
            yield "no record is left beside the blob"

    def _waits_allowed(self, state: State) -> int:
        """By each replica once, where nobody who passed it gave up before he had written."""
        if not set(self._world.kinds) <= {"crash", "fail"}:
            return 1000
        return len(state.replicas) * (self._start.left[CRASH] - state.left[CRASH])

    def _happened(self, state: State, *kinds: int) -> bool:
        return any(state.left[kind] != self._start.left[kind] for kind in kinds)

    def _ghost(self, state: State) -> bool:
        alive = {nonce(number, replica) for number, replica in enumerate(state.replicas)}
        return any(mark is not None and mark[1] and mark[0] not in alive for mark in state.store.rungs)

    def _stuck(self) -> State | None:
        """A state from which no way without a fault leads to an end."""
        before: list[list[int]] = [[] for _ in self._states]
        for start, stop in zip(self._from, self._to, strict=True):
            before[stop].append(start)
        reached = bytearray(len(self._states))
        waiting = list(self._ends)
        while waiting:
            number = waiting.pop()
            if not reached[number]:
                reached[number] = 1
                waiting.extend(before[number])
        missed = reached.find(0)
        return None if missed < 0 else self._states[missed]


def _holds(state: State, replica: Replica) -> bool:
    """Whether it fills as the holder, was not taken for dead, and will not see at its next beat that it lost."""
    if replica.phase not in ("fetch", "commit") or replica.step.own is not Own.HELD:
        return False
    return not replica.passed and state.store.at(replica.step.n + 1) is None


def explore(world: World) -> Report:
    """What an explorer of all of it reports."""
    return Explorer(world).run()


def breaks(world: World, promise: str) -> bool:
    """Whether the promise is broken in some state of it."""
    return promise in Explorer(world).run(promise).broken


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of tuples, none of them in a cycle: looking for some would take most of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
