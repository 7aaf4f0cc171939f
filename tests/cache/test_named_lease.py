"""Leases by name: work of which there is one in the fleet."""

import asyncio

from tests.cache.ladders import TTL, Fleet


async def test_work_of_which_there_is_one_in_the_fleet() -> None:
    """A named lease is had by one; the others are told so at once."""
    fleet = Fleet()
    async with fleet.one.leases.named("janitor") as mine:
        assert mine is not None
        async with fleet.other.leases.named("janitor") as other:
            assert other is None
        assert not mine.lost
    await fleet.settled()
    async with fleet.other.leases.named("janitor") as other:
        assert other is not None
    await fleet.settled()
    assert fleet.rungs() == []


async def test_a_dead_janitor_is_succeeded() -> None:
    """By whoever tries twice, the time to live apart; the paused one is told that it lost, and leaves no rung."""
    fleet = Fleet()
    async with fleet.one.leases.named("janitor") as paused:
        assert paused is not None
        gone = asyncio.create_task(paused.gone())
        async with fleet.other.leases.named("janitor") as other:
            assert other is None
        await fleet.other.timer.advance(TTL)
        async with fleet.other.leases.named("janitor") as other:
            assert other is not None
            await fleet.one.timer.advance(TTL / 4)
            assert paused.lost
            await gone
    await fleet.settled()
    assert fleet.rungs() == []
