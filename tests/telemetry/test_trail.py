"""Which upstreams had a part in a request: by the task's context, and by following a fill's trail."""

import asyncio

from msrcache.telemetry.trail import TRAIL, Trail


def test_each_upstream_once_in_order() -> None:
    """However often one is asked, it is named once; nobody asked is an empty text."""
    trail = Trail()
    assert str(trail) == ""
    for name in ("b", "a", "b"):
        trail.asked(name)
    assert str(trail) == "b,a"


def test_what_is_followed_counts_too_also_what_comes_later() -> None:
    """A reader of a fill has the fill's upstreams, those of a later fail-over included; not the other way round."""
    reader, fill = Trail(), Trail()
    reader.asked("a")
    reader.follow(fill)
    fill.asked("b")
    assert (str(reader), str(fill)) == ("a,b", "b")


async def test_a_task_has_the_trail_of_its_request() -> None:
    """What a task of the request asks is noted for it; without a request nothing is noted."""
    assert TRAIL.get() is None
    trail = Trail()
    TRAIL.set(trail)

    async def ask() -> None:
        found = TRAIL.get()
        assert found is not None
        found.asked("a")

    await asyncio.create_task(ask())
    assert str(trail) == "a"
