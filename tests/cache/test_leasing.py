"""Leases of a fleet: one fills, the others follow or find, and whatever ends leaves no ghost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from msrcache.cache.layout import blob_key, lease_key
from msrcache.cache.lease import Arrival, Fetch, Follow, Found
from msrcache.cache.leaserecord import LeaseRecord
from msrcache.oci.peers import NotFollowed, Sign
from tests.cache.ladders import DIGEST, LEASE, TTL, Fleet, holder_of, quiet


async def test_one_fetches_and_the_other_follows_it() -> None:
    """The follower is told who, by which nonce and where; when the blob is there it is found, and no record is left."""
    fleet = Fleet()
    async with fleet.one.leases.arrive(DIGEST, size=None) as first:
        assert await first.turn() == Fetch()
        async with fleet.other.leases.arrive(DIGEST, size=None) as second:
            turn = await second.turn()
            record = fleet.record()
            assert isinstance(turn, Follow)
            assert record is not None
            assert (turn.holder.replica, turn.holder.nonce, turn.holder.address) == (
                "one",
                record.nonce,
                "one:7000",
            )
            assert fleet.one.leases.holds(DIGEST, record.nonce)
            assert not fleet.other.leases.holds(DIGEST, record.nonce)
            fleet.publish()
            assert await fleet.other.broken(second) == Found()
        first.stored()
    await fleet.settled()
    assert fleet.rungs() == []
    assert not fleet.one.leases.holds(DIGEST, record.nonce)
    assert fleet.one.counted("lease_turns_total", turn="fetch") == 1
    assert fleet.other.counted("lease_turns_total", turn="follow") == 1
    assert fleet.other.counted("lease_turns_total", turn="found") == 1


async def test_what_a_miss_costs() -> None:
    """Four requests, two of them at once, and three a beat; none for a small blob."""
    fleet = Fleet(threshold=100)
    calls = fleet.one.sickness.calls
    async with fleet.one.leases.arrive(DIGEST, size=101) as arrival:
        await arrival.turn()
        rung, above, blob = lease_key(LEASE, 0), lease_key(LEASE, 1), blob_key(DIGEST)
        assert calls == [f"create {rung}", f"stat {blob}", f"stat {above}"]
        calls.clear()
        await fleet.one.timer.advance(TTL / 4)
        assert sorted(calls) == [f"open {rung}", f"put {rung}", f"stat {above}"]
        calls.clear()
        arrival.stored()
    await fleet.settled()
    assert calls == [f"delete {rung}"]
    calls.clear()
    async with fleet.one.leases.arrive(DIGEST, size=100) as arrival:
        assert await arrival.turn() == Fetch()
        arrival.stored()
    await fleet.settled()
    assert calls == []
    assert fleet.one.counted("lease_skipped_total", reason="small") == 1


async def test_a_holder_that_beats_is_never_succeeded() -> None:
    """However long it takes, and whatever the clocks say."""
    fleet = Fleet()
    async with holding(fleet) as second:
        dead = asyncio.create_task(second.dead())
        for _ in range(40):
            await fleet.one.timer.advance(TTL / 4)
            await fleet.other.timer.advance(TTL / 4)
        assert not dead.done()
        for _ in range(3):
            assert holder_of(await fleet.other.broken(second)) == "one"
        dead.cancel()
        assert fleet.one.counted("leases_held") == 1
    await fleet.settled()
    assert fleet.one.counted("leases_held") == 0


async def test_a_holder_that_stands_still_is_succeeded() -> None:
    """After the time to live: its follower is told, takes the next rung, and the paused one knows that it lost."""
    fleet = Fleet()
    async with holding(fleet) as second:
        dead = asyncio.create_task(second.dead())
        await fleet.other.timer.advance(TTL * 0.9)
        assert not dead.done()
        await fleet.other.timer.advance(TTL * 0.6)
        assert dead.done()
        assert await fleet.other.broken(second) == Fetch()
        assert fleet.other.counted("lease_successions_total", reason="expired") == 1
        await fleet.one.timer.advance(TTL / 4)
        async with fleet.one.leases.arrive(DIGEST, size=None) as third:
            assert holder_of(await third.turn()) == "other", "nobody waits for the dead rung below"
        fleet.publish()
        second.stored()
    await fleet.settled()
    assert fleet.rungs() == []
    assert fleet.one.counted("leases_lost_total") == 1


@pytest.mark.parametrize(
    ("signs", "why"),
    [((Sign.UNREACHED, Sign.UNREACHED), "refused twice"), ((Sign.REPLACED,), "another process is there")],
)
async def test_a_holder_that_is_gone_is_succeeded_soon(signs: tuple[Sign, ...], why: str) -> None:
    """In about a second, long before the time to live."""
    fleet = Fleet()
    async with holding(fleet) as second:
        began = fleet.other.timer.clock.monotonic()
        for sign in signs[:-1]:
            assert holder_of(await fleet.other.broken(second, sign)) == "one"
        assert await fleet.other.broken(second, signs[-1]) == Fetch(), why
        assert fleet.other.timer.clock.monotonic() - began < TTL / 4
        assert fleet.other.counted("lease_successions_total", reason="gone") == 1


@pytest.mark.parametrize("sign", [Sign.NOFILL, Sign.BROKEN])
async def test_what_proves_nothing_succeeds_nobody(sign: Sign) -> None:
    """A fill that is not there yet, or a stream that broke: the same holder is followed again, after growing waits."""
    fleet = Fleet()
    async with holding(fleet) as second:
        waits = []
        for _ in range(8):
            began = fleet.other.timer.clock.monotonic()
            await fleet.one.timer.advance(TTL / 4)
            assert holder_of(await fleet.other.broken(second, sign)) == "one"
            waits.append(round(fleet.other.timer.clock.monotonic() - began, 1))
        assert waits == sorted(waits)
        assert waits[-1] > waits[0]


async def test_a_failure_leaves_nothing() -> None:
    """The next arrival is the next to fetch, at once, as often as it fails."""
    fleet = Fleet()
    for replica in (fleet.one, fleet.other) * 2:
        async with replica.leases.arrive(DIGEST, size=None) as arrival:
            assert await arrival.turn() == Fetch()
        await fleet.settled()
        assert fleet.rungs() == []


async def test_a_failure_above_the_dead_is_released() -> None:
    """Newcomers go past the dead rung and the released one at once; who ends well removes all."""
    fleet = Fleet()
    dead = LeaseRecord(replica="gone", nonce="n", address="gone:1").encoded()
    fleet.contents.store(lease_key(LEASE, 0), dead)
    for n in (1, 2):
        async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
            for _ in range(2 if n == 1 else 0):
                assert holder_of(await fleet.one.turn(arrival)) == "gone"
                arrival.failed(_unreached())
            assert await fleet.one.turn(arrival) == Fetch()
            assert (held := fleet.record(n)) is not None
            assert not held.released
        await fleet.settled()
        assert (left := fleet.record(n)) is not None
        assert left.released
    async with fleet.other.leases.arrive(DIGEST, size=None) as arrival:
        assert await arrival.turn() == Fetch()
        fleet.publish()
        arrival.stored()
    await fleet.settled()
    assert fleet.rungs() == []


async def test_the_second_look_finds_what_was_just_stored() -> None:
    """A winner that finds the blob fetches nothing, and takes its record away again."""
    fleet = Fleet()
    fleet.publish()
    async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
        assert await arrival.turn() == Found()
        assert fleet.rungs() == []


async def test_without_peers_waiting_works_too() -> None:
    """Where nobody can be followed, an arrival waits until the blob is there, or its holder dead."""
    fleet = Fleet()
    fleet.other.address = ""
    async with (
        fleet.one.leases.arrive(DIGEST, size=None) as first,
        fleet.other.leases.arrive(DIGEST, size=None) as second,
    ):
        await first.turn()
        turn = asyncio.create_task(second.turn())
        for _ in range(20):
            await fleet.one.timer.advance(TTL / 4)
            await fleet.other.timer.advance(TTL / 4)
        assert not turn.done()
        fleet.publish()
        await fleet.other.timer.advance(TTL / 4)
        assert await turn == Found()


async def test_a_replica_without_an_address_is_waited_for() -> None:
    """Its own peer port may be off; when it is dead it is succeeded."""
    fleet = Fleet()
    fleet.one.address = ""
    async with (
        fleet.one.leases.arrive(DIGEST, size=None) as first,
        fleet.other.leases.arrive(DIGEST, size=None) as second,
    ):
        await first.turn()
        assert await fleet.other.turn(second) == Fetch()
        assert fleet.other.counted("lease_successions_total", reason="expired") == 1


async def test_a_record_of_this_very_process_that_nobody_holds_is_no_holder() -> None:
    """An end that the store did not take is not waited for by who wrote it."""
    fleet = Fleet()
    fleet.contents.store(
        lease_key(LEASE, 0), LeaseRecord(replica="one", nonce="ended", address="one:7000").encoded()
    )
    async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
        assert await arrival.turn() == Fetch()


@pytest.mark.parametrize("data", [b'{"v": 2, "state": "?"}', b"", b"\xff", b"[" * 9999, b'{"v": 1}'])
async def test_what_cannot_be_read_is_held_and_never_deleted(data: bytes) -> None:
    """A newer version's record is waited for; its every change is a sign of life."""
    fleet = Fleet()
    fleet.contents.store(lease_key(LEASE, 0), data[:4000])
    async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
        turn = asyncio.create_task(arrival.turn())
        await fleet.one.timer.advance(TTL * 0.9)
        fleet.contents.store(lease_key(LEASE, 0), b'{"v": 2, "other": 1}')
        await fleet.one.timer.advance(TTL * 0.9)
        assert not turn.done()
        await fleet.one.timer.advance(TTL)
        assert await turn == Fetch()
        fleet.publish()
        arrival.stored()
    await fleet.settled()
    assert fleet.rungs() == [lease_key(LEASE, 0)]


async def test_the_beat_is_awaited_before_the_end_is_written() -> None:
    """A beat that comes late would put a record back that was deleted."""
    fleet = Fleet()
    async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
        await arrival.turn()
        fleet.one.sickness.held = "put"
        await fleet.one.timer.advance(TTL / 4)
        assert fleet.one.sickness.reached.is_set()
    await quiet()
    assert len(fleet.rungs()) == 1
    fleet.one.sickness.release.set()
    await fleet.settled()
    assert fleet.rungs() == []


async def test_a_store_that_hangs_costs_the_patience() -> None:
    """Then the fill goes on without the lease; a create that took effect after all is taken back in the end."""
    fleet = Fleet(patience=0.01)
    fleet.one.sickness.held = "create"
    with capture_logs():
        async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
            assert await arrival.turn() == Fetch()
    await quiet()
    fleet.one.sickness.release.set()
    await fleet.settled()
    assert fleet.rungs() == []
    assert fleet.one.counted("lease_skipped_total", reason="slow") == 1


@pytest.mark.parametrize("operation", ["create", "open", "stat"])
async def test_a_store_that_fails_costs_the_lease(operation: str) -> None:
    """Counted, and never an error for the pull."""
    fleet = Fleet()
    if operation == "open":
        fleet.contents.store(
            lease_key(LEASE, 0), LeaseRecord(replica="x", nonce="n", address="x:1").encoded()
        )
    fleet.one.sickness.fails = {operation: "leases/"}
    with capture_logs():
        async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
            assert await fleet.one.turn(arrival) == Fetch()
    assert fleet.one.counted("lease_skipped_total", reason="failed") == 1
    fleet.one.sickness.fails = {}
    await fleet.one.timer.advance(TTL)
    await fleet.settled()
    assert len(fleet.rungs()) == (operation == "open")


async def test_a_store_that_takes_no_writes_is_not_asked() -> None:
    """Read-only: whoever misses fetches."""
    fleet = Fleet()
    fleet.one.store.allowed = False
    async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
        assert await arrival.turn() == Fetch()
    assert fleet.one.sickness.calls == []
    assert fleet.one.counted("lease_skipped_total", reason="readonly") == 1


async def test_a_store_without_exclusive_creates_has_no_leases() -> None:
    """Of many at once several could win; the driver says so, or the probe has found it out."""
    fleet = Fleet()
    fleet.one.store.create_is_exclusive = False
    async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
        assert await arrival.turn() == Fetch()
    assert fleet.one.sickness.calls == []
    assert fleet.one.counted("lease_skipped_total", reason="inexclusive") == 1


async def test_the_next_arrival_waits_for_the_end_of_the_last() -> None:
    """In one process nobody meets its own record."""
    fleet = Fleet()
    async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
        await arrival.turn()
        fleet.one.sickness.held = "delete"
    async with asyncio.timeout(10):
        entered = asyncio.create_task(_turn(fleet))
        await fleet.one.sickness.reached.wait()
        assert not entered.done()
        fleet.one.sickness.release.set()
        assert await entered == Fetch()


async def test_close_waits_for_what_is_ending() -> None:
    """The peer port is open until then."""
    fleet = Fleet()
    async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
        await arrival.turn()
    await fleet.one.leases.close()
    assert fleet.rungs() == []


async def test_an_end_that_the_store_refuses_is_told() -> None:
    """Others wait until it expires; nothing raises."""
    fleet = Fleet()
    with capture_logs() as logs:
        async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
            await arrival.turn()
            fleet.one.sickness.fails = {"delete": "leases/"}
        settled = asyncio.create_task(fleet.settled())
        await fleet.one.timer.advance(2 * TTL)
        await settled
    assert any("not ended" in entry["event"] for entry in logs)
    assert len(fleet.rungs()) == 1


@asynccontextmanager
async def holding(fleet: Fleet) -> AsyncIterator[Arrival]:
    """While one holds the lease, the arrival of the other, which was told to follow it."""
    async with (
        fleet.one.leases.arrive(DIGEST, size=None) as first,
        fleet.other.leases.arrive(DIGEST, size=None) as second,
    ):
        assert await first.turn() == Fetch()
        assert holder_of(await second.turn()) == "one"
        yield second


def _unreached() -> NotFollowed:
    return NotFollowed(Sign.UNREACHED, "refused")


async def _turn(fleet: Fleet) -> object:
    async with fleet.one.leases.arrive(DIGEST, size=None) as arrival:
        return await arrival.turn()
