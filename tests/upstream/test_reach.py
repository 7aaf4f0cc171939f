"""Which replicas are not reached: told while it is so, and not for ever."""

from msrcache.upstream.reach import MOST, REMEMBERED, Reach
from tests.stage.clock import FakeClock


async def test_the_latest_try_counts() -> None:
    """One that answers is met; the reason is the last one."""
    reach = Reach(FakeClock())
    reach.lost("a", "Connection refused")
    reach.lost("b", "Connection refused")
    reach.lost("a", "No route to host")
    reach.met("b")
    reach.met("c")
    assert reach.unreached() == {"a": "No route to host"}


async def test_what_nobody_tries_is_forgotten() -> None:
    """After a while, and beyond a number: replicas that are gone have other names when they come back."""
    clock = FakeClock()
    reach = Reach(clock)
    reach.lost("a", "x")
    clock.advance(REMEMBERED)
    assert reach.unreached() == {}
    for number in range(MOST + 3):
        reach.lost(str(number), "x")
    assert list(reach.unreached()) == [str(number) for number in range(3, MOST + 3)]
