"""Promises of access.buckets: limits by name that leak, wait their turn, and never grow without bound."""

import asyncio

import pytest

from msrcache.access.buckets import Buckets, Slots, network_of
from tests.stage.clock import FakeClock


def test_a_bucket_fills_and_leaks() -> None:
    """`burst` at once, then `burst` a minute."""
    clock = FakeClock()
    buckets = Buckets(clock=clock, burst=6)
    for _ in range(6):
        assert buckets.wait("a") == 0
        buckets.pour("a")
    assert buckets.wait("a") == pytest.approx(10)
    assert buckets.wait("b") == 0
    clock.advance(4)
    assert buckets.wait("a") == pytest.approx(6)
    clock.advance(6)
    assert buckets.wait("a") == 0


def test_more_than_full_is_full() -> None:
    """Nobody waits longer than it takes to leak one."""
    buckets = Buckets(clock=FakeClock(), burst=6)
    buckets.pour("a", 100)
    assert buckets.wait("a") == pytest.approx(10)


def test_what_was_counted_in_advance_is_given_back() -> None:
    """And an empty bucket is forgotten."""
    buckets = Buckets(clock=FakeClock(), burst=6)
    buckets.pour("a")
    buckets.pour("a", -1)
    assert len(buckets) == 0


def test_no_limit_is_no_limit() -> None:
    """burst 0 counts nothing."""
    buckets = Buckets(clock=FakeClock(), burst=0)
    buckets.pour("a", 1000)
    assert (buckets.wait("a"), len(buckets)) == (0, 0)


def test_the_table_is_bounded() -> None:
    """Whoever was quiet longest is forgotten first."""
    buckets = Buckets(clock=FakeClock(), burst=1, capacity=2)
    for name in ("a", "b", "a", "c"):
        buckets.pour(name)
    assert [buckets.wait(name) > 0 for name in ("a", "b", "c")] == [True, False, True]


async def test_slots_are_counted_by_name_and_forgotten() -> None:
    """Two at once of one name; another name is not held up; whoever leaves in the queue leaves no trace."""
    slots, inside, go = Slots(2), [], asyncio.Event()

    async def stay(name: str) -> None:
        async with slots.one(name):
            inside.append(name)
            await go.wait()

    tasks = [asyncio.create_task(stay(name)) for name in ("a", "a", "a", "a", "b")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sorted(inside) == ["a", "a", "b"]
    tasks[3].cancel()
    go.set()
    await asyncio.wait(tasks)
    assert sorted(inside) == ["a", "a", "a", "b"]
    assert len(slots) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_what_is_limited_as_one(address: str, network: str) -> None:
    """IPv4 by address, IPv6 by /64, anything else as it is."""
    assert network_of(address) == network
