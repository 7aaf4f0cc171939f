"""What /debug/fleet shows, from what a heartbeat has seen."""

from msrcache.cache.fleetview import view
from msrcache.cache.heartbeat import LISTED, PATIENCE
from tests.cache.test_heartbeat import INTERVAL, Stage


async def test_the_living_the_silent_and_oneself() -> None:
    """Each in order of its name, with how long ago it was seen, and the silent with how long they have been so."""
    stage = Stage()
    for name in "bac":
        stage.start(name)
    await stage.intervals(6)
    count = 2 * LISTED + PATIENCE
    await stage.intervals(count, without="c")
    b = stage.replicas["b"]
    told = view(b.heartbeat, now=b.clock.monotonic())
    rows = told["replicas"]
    assert isinstance(rows, list)
    assert (told["v"], told["seen_by"], told["heartbeat"]) == (1, "b", INTERVAL)
    assert [(row["replica"], row["life"]) for row in rows] == [("a", "alive"), ("b", "self"), ("c", "silent")]
    assert [row["silence"] is None for row in rows] == [True, True, False]
    assert rows[2]["silence"] >= PATIENCE * INTERVAL
    assert rows[1]["seen"] == 0.0
    assert rows[0]["seen"] < 2 * INTERVAL
    assert rows[0]["beat"] > count


async def test_one_that_was_never_read() -> None:
    """It is listed, and nothing more is known of it."""
    stage = Stage()
    a = stage.start("a")
    a.heartbeat.heard_of("z")
    row = list(view(a.heartbeat, now=a.clock.monotonic())["replicas"])[1]  # type: ignore[call-overload]
    assert (row["replica"], row["life"], row["seen"], row["silence"]) == ("z", "alive", None, None)
