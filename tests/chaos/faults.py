"""Doing what the plan says, and undoing it; every fault leaves the fleet as it found it."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from tests.chaos.fleet import Fleet, pause
from tests.chaos.plan import Fault, Kind
from tests.chaos.verdict import Window
from tests.chaos.wire import Spoil

ALL = (
    Kind.STORE_SLOW,
    Kind.STORE_FULL,
    Kind.STORE_DENIED,
    Kind.UPSTREAM_DOWN,
    Kind.UPSTREAM_SLOW,
    Kind.UPSTREAM_BROKEN,
)
"""Kinds that meet all replicas."""

Doing = Callable[[Fleet, Fault], AbstractAsyncContextManager[None]]


@dataclass(slots=True)
class Hand:
    """Plays lanes of faults on a fleet; `windows` has what was done, and when."""

    fleet: Fleet
    began: float
    tell: Callable[[str], None]
    windows: list[Window] = field(default_factory=list)

    async def play(self, lanes: Sequence[Sequence[Fault]]) -> None:
        """All lanes at once, to their ends."""
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(self._lane(lane))

    async def _lane(self, lane: Sequence[Fault]) -> None:
        for fault in lane:
            await asyncio.sleep(max(0.0, fault.at - self._now()))
            start = self._now()
            self.tell(f"{start:6.1f} s  {fault}")
            async with DOINGS[fault.kind](self.fleet, fault):
                await asyncio.sleep(fault.lasts)
            replica = None if fault.kind in ALL else fault.replica
            self.windows.append(Window(fault.kind, start, self._now(), replica))

    def _now(self) -> float:
        return time.monotonic() - self.began


@asynccontextmanager
async def _kill(fleet: Fleet, fault: Fault) -> AsyncIterator[None]:
    replica = fleet.replicas[fault.replica]
    assert replica.process is not None
    replica.process.kill()
    yield
    await replica.start()


@asynccontextmanager
async def _stop(fleet: Fleet, fault: Fault) -> AsyncIterator[None]:
    process = fleet.replicas[fault.replica].process
    assert process is not None
    pause(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        pause(process.pid, signal.SIGCONT)


@asynccontextmanager
async def _restart(fleet: Fleet, fault: Fault) -> AsyncIterator[None]:
    """Asked to leave, and back as soon as it is gone."""
    replica = fleet.replicas[fault.replica]
    replica.leave()
    await replica.ended()
    await replica.start()
    yield


@asynccontextmanager
async def _drain(fleet: Fleet, fault: Fault) -> AsyncIterator[None]:
    """Asked to leave, and away for a while."""
    replica = fleet.replicas[fault.replica]
    replica.leave()
    await replica.ended()
    yield
    await replica.start()


@asynccontextmanager
async def _refusing(fleet: Fleet, how: str) -> AsyncIterator[None]:
    await fleet.front.refuse(how, on=True)
    try:
        yield
    finally:
        await fleet.front.refuse(how, on=False)


@asynccontextmanager
async def _clock(fleet: Fleet, fault: Fault) -> AsyncIterator[None]:
    """Forwards or back by up to an hour."""
    replica = fleet.replicas[fault.replica]
    replica.set_clock((fault.size - 0.5) * 7200)
    try:
        yield
    finally:
        replica.set_clock(0)


def _wire(what: str, spoil: Callable[[float], Spoil], *, all_of_them: bool = False) -> Doing:
    """Spoil the wires of a replica, or of all; `spoil` is given the size of the fault."""
    return lambda fleet, fault: fleet.network.spoilt(
        fleet.to(what, None if all_of_them else fault.replica), spoil(fault.size)
    )


def _cut(size: float) -> Spoil:
    del size
    return Spoil(refused=True)


def _dumb(size: float) -> Spoil:
    del size
    return Spoil(silent=True)


def _late(size: float) -> Spoil:
    return Spoil(delay=0.2 + 0.8 * size)


def _narrow(size: float) -> Spoil:
    return Spoil(rate=int(300_000 + 2_000_000 * size))


def _broken(size: float) -> Spoil:
    """An orderly end, which only the length betrays, or a reset."""
    return Spoil(after=int(200_000 + 2_000_000 * size), reset=size < 0.5)


DOINGS: dict[Kind, Doing] = {
    Kind.KILL: _kill,
    Kind.STOP: _stop,
    Kind.RESTART: _restart,
    Kind.DRAIN: _drain,
    Kind.CUT_UPSTREAM: _wire("upstream", _cut),
    Kind.CUT_STORE: _wire("store", _cut),
    Kind.CUT_PEERS: _wire("peer", _cut),
    Kind.CUT_CLIENTS: _wire("front", _cut),
    Kind.DUMB_UPSTREAM: _wire("upstream", _dumb),
    Kind.DUMB_STORE: _wire("store", _dumb),
    Kind.DUMB_PEERS: _wire("peer", _dumb),
    Kind.STORE_SLOW: _wire("store", _late, all_of_them=True),
    Kind.STORE_FULL: lambda fleet, _: _refusing(fleet, "full"),
    Kind.STORE_DENIED: lambda fleet, _: _refusing(fleet, "denied"),
    Kind.UPSTREAM_DOWN: _wire("upstream", _cut, all_of_them=True),
    Kind.UPSTREAM_SLOW: _wire("upstream", _narrow, all_of_them=True),
    Kind.UPSTREAM_BROKEN: _wire("upstream", _broken, all_of_them=True),
    Kind.CLOCK: _clock,
}
