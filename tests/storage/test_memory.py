"""The memory driver as a stage: faults before and after each call, and a listing that lags."""

import asyncio

import pytest

from msrcache.storage.errors import Unavailable
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.contract.harness import keys
from tests.stage.clock import FakeClock


class Gate:
    """Lets calls through when the test says so, and may lose their replies."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.lost = False

    async def before(self, operation: str, key: str) -> None:
        """Wait at the gate."""
        self.reached.set()
        await self.open.wait()

    async def after(self, operation: str, key: str) -> None:
        """Lose the reply."""
        if self.lost:
            raise Unavailable("inmemory", key)


async def test_a_call_waits_at_its_barrier() -> None:
    """Nothing has happened until the test lets it."""
    contents, gate = Contents(), Gate()
    putting = asyncio.create_task(Memory(contents, faults=gate).put("k", b"1"))
    await gate.reached.wait()
    assert contents.objects == {}
    gate.open.set()
    await putting
    assert list(contents.objects) == ["k"]


async def test_a_reply_may_be_lost() -> None:
    """The call took effect, and the caller cannot know."""
    contents, gate = Contents(), Gate()
    gate.open.set()
    gate.lost = True
    with pytest.raises(Unavailable):
        await Memory(contents, faults=gate).create("k", b"1")
    assert list(contents.objects) == ["k"]


async def test_a_listing_may_lag() -> None:
    """It shows what was; everything else shows what is."""
    contents = Contents()
    driver = Memory(contents)
    await driver.put("old", b"")
    contents.lag()
    await driver.put("new", b"")
    await driver.delete("old")
    assert await keys(driver.list("")) == ["old"]
    assert (await driver.stat("new")).size == 0
    contents.catch_up()
    assert await keys(driver.list("")) == ["new"]


async def test_it_tells_its_state() -> None:
    """For whoever looks at what runs."""
    driver = Memory()
    await driver.put("k", b"1")
    assert repr(driver) == "<Memory [1 objects]>"
    assert repr(driver.writer("w")) == "<MemoryWriter 0 bytes to w>"


async def test_a_version_is_removed_as_the_driver_can() -> None:
    """Only what was seen where it tells versions apart; else whatever stands there."""

    class Plain(Memory):
        delete_version = None  # type: ignore[assignment]

    for driver, stays in ((Memory(), True), (Plain(), False)):
        store = Store(driver, metrics=Metrics(), clock=FakeClock())
        await store.put("a/b", b"one")
        seen = await store.stat("a/b")
        await store.put("a/b", b"other")
        await store.delete_version("a/b", seen)
        assert ("a/b" in driver.contents.objects) == stays
        await store.close()
