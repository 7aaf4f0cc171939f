"""A replica rescues what it serves, and sends nobody to what may be deleted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from msrcache.cache.condemned import STALE, Condemned
from msrcache.cache.layout import CONDEMNED, condemned_key
from msrcache.cache.uses import Journal, Uses
from msrcache.oci.digest import Digest
from tests.cache.aging import Aging, aging

INTERVAL = 300.0
ONE, OTHER = Digest.of(b"1"), Digest.of(b"2")


@dataclass(slots=True)
class Stage:
    """A replica beside a store."""

    aging: Aging
    uses: Uses
    condemned: Condemned
    forgotten: list[Digest] = field(default_factory=list)

    def mark(self, *digests: Digest) -> None:
        """Condemn these."""
        for digest in digests:
            self.aging.memory.contents.store(condemned_key(digest), b'{"v": 1}')

    def marks(self) -> list[str]:
        """What stands condemned."""
        return self.aging.keys(CONDEMNED)

    def saved(self) -> float:
        """How many rescues were counted."""
        return float(self.aging.metrics.rescued_total.labels("replica")._value.get())


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Nothing is condemned at first."""
    async with aging() as made:
        uses, forgotten = Uses(), list[Digest]()
        journal = Journal(uses, made.store, replica="here-00000001", interval=INTERVAL, metrics=made.metrics)
        condemned = Condemned(
            made.store,
            interval=INTERVAL,
            flush=journal.flush,
            forget=forgotten.append,
            metrics=made.metrics,
            clock=made.clock,
        )
        uses.wanted = condemned.used
        yield Stage(made, uses, condemned, forgotten)


async def test_what_is_served_is_rescued() -> None:
    """Its mark goes, and the use is written down at once; other marks stay, and a hit asks nothing."""
    async with stage() as here:
        here.mark(ONE, OTHER)
        await here.condemned.refresh()
        del here.aging.sickness.calls[:]
        here.uses.note(ONE)
        here.uses.note(ONE)
        assert here.aging.sickness.calls == []
        await here.condemned.rescue()
        assert here.marks() == [condemned_key(OTHER)]
        assert [call.split()[0] for call in here.aging.sickness.calls] == ["delete", "put"]
        assert len(here.uses) == 0
        assert here.saved() == 1
        await here.condemned.rescue()
        assert here.saved() == 1


async def test_nobody_is_sent_to_what_may_go() -> None:
    """While it has a mark, and for an interval after the rescue; then what was believed of it ends."""
    async with stage() as here:
        assert not here.condemned.may_go(ONE)
        here.mark(ONE)
        await here.condemned.refresh()
        assert here.condemned.may_go(ONE)
        assert not here.condemned.may_go(OTHER)
        here.uses.note(ONE)
        await here.condemned.rescue()
        assert here.condemned.may_go(ONE)
        await here.condemned.refresh()
        assert (here.condemned.may_go(ONE), here.forgotten) == (True, [])
        here.aging.clock.advance(INTERVAL)
        await here.condemned.refresh()
        assert (here.condemned.may_go(ONE), here.forgotten) == (False, [ONE])


async def test_a_mark_that_has_gone_ends_what_was_believed() -> None:
    """Somebody rescued it, or it was deleted: the next redirect looks."""
    async with stage() as here:
        here.mark(ONE, OTHER)
        await here.condemned.refresh()
        here.aging.memory.contents.objects.pop(condemned_key(ONE))
        await here.condemned.refresh()
        assert here.forgotten == [ONE]
        assert not here.condemned.may_go(ONE)


async def test_without_listings_nobody_is_sent_anywhere() -> None:
    """After some intervals: nobody can tell what is condemned. The first listing that succeeds ends it."""
    async with stage() as here:
        await here.condemned.refresh()
        here.aging.sickness.fails["list"] = CONDEMNED.rstrip("/")
        for _ in range(STALE):
            here.aging.clock.advance(INTERVAL)
            await here.condemned.refresh()
        assert not here.condemned.may_go(ONE)
        here.aging.clock.advance(1)
        assert here.condemned.may_go(ONE)
        here.aging.sickness.fails.clear()
        await here.condemned.refresh()
        assert not here.condemned.may_go(ONE)


async def test_a_rescue_that_fails_is_tried_again() -> None:
    """With the next listing, though nothing is served meanwhile."""
    async with stage() as here:
        here.mark(ONE)
        await here.condemned.refresh()
        here.uses.note(ONE)
        here.aging.sickness.fails["delete"] = CONDEMNED
        await here.condemned.rescue()
        assert (here.marks(), here.saved()) == ([condemned_key(ONE)], 0)
        here.aging.sickness.fails.clear()
        await here.condemned.refresh()
        assert (here.marks(), here.saved()) == ([], 1)


async def test_a_use_before_the_mark_was_known_is_left_to_the_journal() -> None:
    """Only what is served later is rescued from here."""
    async with stage() as here:
        here.uses.note(ONE)
        here.mark(ONE)
        await here.condemned.refresh()
        await here.condemned.rescue()
        assert here.marks() == [condemned_key(ONE)]
        assert here.uses.taken() == [ONE]


async def test_it_rescues_between_two_listings() -> None:
    """A use wakes the task; nothing waits for the interval."""
    async with stage() as here:
        here.mark(ONE)
        running = asyncio.create_task(here.condemned.run())
        try:
            while not here.condemned.may_go(ONE):
                await asyncio.sleep(0)
            here.uses.note(ONE)
            while here.marks():
                await asyncio.sleep(0)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert here.saved() == 1
