"""Faults at every await of the lease: an arrival that is cancelled anywhere, a store that fails or hides its reply at
any call. Nobody's pull gets an error, and when all is over nothing is held by anybody who is gone.
"""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from structlog.testing import capture_logs

from msrcache.cache.layout import blob_key, lease_key
from msrcache.cache.lease import Fetch, Follow, Found, Turn
from msrcache.cache.leaserecord import LeaseRecord
from msrcache.oci.peers import NotFollowed, Sign
from msrcache.storage.errors import Unavailable
from tests.cache.awaits import Point, Trap, points
from tests.cache.ladders import DIGEST, LEASE, TTL, Fleet, Replica, quiet

POINTS = {"leasing": 13, "leasearrival": 31, "leasebeat": 7, "rungs": 5}
"""How many awaits, and entries into and exits from an `async with`, each module has."""

OWN = frozenset({"Climber._asked", "FleetLeases._ended", "Beat._run"})
"""Tasks of the lease's own, which nobody has to cancel."""

CANCELLED = {"arrive", "_climbing", "turn", "_climbed", "_seen", "_wait", "_answer"}
"""What runs in the task of the fill; all else runs in those tasks, or writes nothing (`dead`)."""


def _cases() -> Iterator[object]:
    for name in ("leasing", "leasearrival"):
        for point in points(name):
            if point.function in CANCELLED:
                for passage in (1, 3):
                    yield pytest.param(point, "cancel", passage, id=f"{point}-cancel-{passage}")
    for point in points("rungs"):
        for fault in ("failed", "lost"):
            for passage in (1, 2, 4):
                yield pytest.param(point, fault, passage, id=f"{point}-{fault}-{passage}")


def test_every_await_has_been_looked_at() -> None:
    """A new await changes this table, and is thereby looked at."""
    assert {name: len(points(name)) for name in POINTS} == POINTS
    assert {point.function for name in POINTS for point in points(name)} >= CANCELLED


async def _arrives(fleet: Fleet, replica: Replica, signs: Sequence[Sign], *, well: bool) -> Turn | None:
    """One arrival to its end: what it was told last, None where it was cancelled."""
    try:
        async with replica.leases.arrive(DIGEST, size=None) as arrival:
            turn: Turn = await arrival.turn()
            for sign in signs:
                if isinstance(turn, Follow):
                    arrival.failed(NotFollowed(sign, "as the test wants"))
                    turn = await arrival.turn()
            if turn == Fetch():
                await replica.timer.sleep(TTL)
                if well:
                    fleet.publish()
                    arrival.stored()
            return turn
    except asyncio.CancelledError:
        return None


async def _turned(fleet: Fleet, *tasks: "asyncio.Task[Turn | None]") -> None:
    """Let time pass until all of these are done, and what they wrote is ended."""
    settling = asyncio.create_task(_all(fleet, tasks))
    for _ in range(200):
        await quiet()
        if settling.done():
            break
        await fleet.one.timer.advance(TTL / 20)
        await fleet.other.timer.advance(TTL / 20)
    await settling


async def _all(fleet: Fleet, tasks: Sequence["asyncio.Task[Turn | None]"]) -> None:
    await asyncio.wait(tasks)
    await fleet.settled()


async def _twice(fleet: Fleet, replica: Replica) -> Turn | None:
    """Two arrivals, the second while the first is being ended."""
    await _arrives(fleet, replica, (), well=False)
    return await _arrives(fleet, replica, (), well=True)


async def _scenes(fleet: Fleet) -> None:
    """One fails above a dead rung while another follows it; then one ends well while another waits, or polls."""
    fleet.contents.store(
        lease_key(LEASE, 0), LeaseRecord(replica="dead", nonce="n", address="dead:1").encoded()
    )
    gone = (Sign.UNREACHED, Sign.UNREACHED, Sign.NOFILL, Sign.BROKEN)
    for well in (False, True):
        first = asyncio.create_task(_arrives(fleet, fleet.one, gone, well=False))
        second = asyncio.create_task(_arrives(fleet, fleet.other, gone, well=well))
        await _turned(fleet, first, second)
    fleet.contents.objects.pop(blob_key(DIGEST), None)
    fleet.one.address = ""
    polling = asyncio.create_task(_twice(fleet, fleet.one))
    other = asyncio.create_task(_arrives(fleet, fleet.other, (), well=True))
    await _turned(fleet, polling, other)


@pytest.mark.parametrize(("point", "fault", "passage"), list(_cases()))
async def test_a_fault_at_an_await_leaves_no_ghost(
    monkeypatch: pytest.MonkeyPatch, point: Point, fault: str, passage: int
) -> None:
    """And the next arrival is told at once what to do."""
    error = None if fault == "cancel" else Unavailable("inmemory", "k")
    trap = Trap(
        point, error, passage=passage, behind=fault == "lost", spares=OWN if error is None else frozenset()
    )
    fleet = Fleet()
    with capture_logs():
        with monkeypatch.context() as patch:
            trap.set(patch)
            await _scenes(fleet)
        last = asyncio.create_task(_arrives(fleet, fleet.other, (), well=True))
        await _turned(fleet, last)
    assert trap.sprung or passage > 1 or "_refused" in point.text  # only a store that fails gets there
    assert await last in (Fetch(), Found())
    records = [record for n in range(8) if (record := fleet.record(n)) is not None]
    assert [record for record in records if not record.released and record.replica != "dead"] == []
