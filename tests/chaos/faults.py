"""Doing what the plan says, and undoing it; every fault leaves the fleet as it found it."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from tests.chaos.fleet import Fleet, pause
from tests.chaos.plan import Fault, Kind
from tests.chaos.verdict import Window
from tests.stage.toxics import Toxic

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
async def _cut(proxies: Sequence[Toxic]) -> AsyncIterator[None]:
    await _each(proxies, lambda one: one.enable(up=False))
    try:
        yield
    finally:
        await _each(proxies, lambda one: one.enable(up=True))


@asynccontextmanager
async def _toxic(proxies: Sequence[Toxic], kind: str, attributes: dict[str, int]) -> AsyncIterator[None]:
    await _each(proxies, lambda one: one.add(kind, attributes))
    try:
        yield
    finally:
        await _each(proxies, lambda one: one.remove(kind))


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


async def _each(proxies: Sequence[Toxic], do: Callable[[Toxic], Awaitable[None]]) -> None:
    await asyncio.gather(*(do(one) for one in proxies))


DOINGS: dict[Kind, Doing] = {
    Kind.KILL: _kill,
    Kind.STOP: _stop,
    Kind.RESTART: _restart,
    Kind.DRAIN: _drain,
    Kind.CUT_UPSTREAM: lambda fleet, fault: _cut(fleet.to("upstream", fault.replica)),
    Kind.CUT_STORE: lambda fleet, fault: _cut(fleet.to("store", fault.replica)),
    Kind.CUT_PEERS: lambda fleet, fault: _cut(fleet.to("peer", fault.replica)),
    Kind.STORE_SLOW: lambda fleet, fault: _toxic(
        fleet.to("store"), "latency", {"latency": int(200 + 800 * fault.size), "jitter": 100}
    ),
    Kind.STORE_FULL: lambda fleet, _: _refusing(fleet, "full"),
    Kind.STORE_DENIED: lambda fleet, _: _refusing(fleet, "denied"),
    Kind.UPSTREAM_DOWN: lambda fleet, _: _cut(fleet.to("upstream")),
    Kind.UPSTREAM_SLOW: lambda fleet, fault: _toxic(
        fleet.to("upstream"), "bandwidth", {"rate": int(300 + 2000 * fault.size)}
    ),
    Kind.UPSTREAM_BROKEN: lambda fleet, fault: _toxic(
        fleet.to("upstream"), "limit_data", {"bytes": int(200_000 + 2_000_000 * fault.size)}
    ),
    Kind.CLOCK: _clock,
}
