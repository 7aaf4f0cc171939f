"""What goes wrong and when: a plan made from a seed, so that a run can be played again. Pure.

Two lanes, each one fault after the other, both at the same time: what is done to the process of a replica (so that two
of three are never gone at once), and what is done to the network, the store, the upstream and the clocks.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

REPLICAS: Final = 3


class Kind(StrEnum):
    """A kind of fault."""

    KILL = "kill -9"
    STOP = "SIGSTOP"
    RESTART = "restart"
    DRAIN = "drain"
    CUT_UPSTREAM = "cut from the upstream"
    CUT_STORE = "cut from the store"
    CUT_PEERS = "cut from the replicas"
    CUT_CLIENTS = "cut from the load balancer"
    DUMB_UPSTREAM = "no byte passes to the upstream"
    DUMB_STORE = "no byte passes to the store"
    DUMB_PEERS = "no byte passes to the replica"
    STORE_SLOW = "store slow"
    STORE_FULL = "store full"
    STORE_DENIED = "store denied"
    UPSTREAM_DOWN = "upstream down"
    UPSTREAM_SLOW = "upstream slow"
    UPSTREAM_BROKEN = "upstream bodies broken"
    CLOCK = "clock step"


PROCESS: Final = (Kind.KILL, Kind.STOP, Kind.RESTART, Kind.DRAIN)
AROUND: Final = tuple(kind for kind in Kind if kind not in PROCESS)
LASTS: Final = {Kind.STOP: (0.1, 16.0), Kind.KILL: (0.5, 4.0), Kind.CLOCK: (2.0, 5.0)}
"""Seconds between which a fault of a kind lasts; the others: 2 to 6."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `at` and `lasts` in seconds from the start, `replica` from 0, `size` as its kind reads it (0 to 1)."""

    kind: Kind
    at: float
    lasts: float
    replica: int
    size: float

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.kind} (replica {self.replica + 1}, {self.lasts:.1f} s)"


def plan(seed: int, *, seconds: float, rounds: int) -> tuple[list[Fault], list[Fault]]:
    """Both lanes: every kind `rounds` times, spread over the time, in an order made from the seed."""
    chance = random.Random(seed)
    return _lane(chance, PROCESS, seconds, rounds), _lane(chance, AROUND, seconds, rounds)


def _lane(chance: random.Random, kinds: Sequence[Kind], seconds: float, rounds: int) -> list[Fault]:
    order = [kind for kind in kinds for _ in range(rounds)]
    chance.shuffle(order)
    return list(_spread(chance, order, seconds / len(order)))


def _spread(chance: random.Random, order: Sequence[Kind], slot: float) -> Iterator[Fault]:
    """Each fault within a slot of its own, with a quarter of it to recover in."""
    for number, kind in enumerate(order):
        shortest, longest = LASTS.get(kind, (2.0, 6.0))
        lasts = min(chance.uniform(shortest, longest), slot * 0.7)
        yield Fault(kind, number * slot + slot * 0.05, lasts, chance.randrange(REPLICAS), chance.random())
