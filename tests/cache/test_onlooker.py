"""Whoever looks at the fleet from outside: who beats is seen within two intervals, and nothing is written."""

import asyncio
from collections.abc import Mapping
from itertools import count

import pytest

from msrcache.cache.layout import replica_key
from msrcache.cache.onlooker import Onlooker, members_of
from msrcache.oci.peers import Member
from msrcache.storage.errors import StorageError
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import Sickness
from tests.stage.clock import FakeClock

INTERVAL = 0.05


class Stage:
    """A store with records that beat when they are read."""

    def __init__(self) -> None:
        self.contents, self.sickness = Contents(numbers=count(0, 0)), Beating(self)  # no time passes
        store = Store(Memory(self.contents, faults=self.sickness), metrics=Metrics(), clock=FakeClock())
        self.onlooker = Onlooker(store, FakeClock(), interval=INTERVAL)
        self.beats: dict[str, int] = {}

    def beat(self, replica: str) -> None:
        """Write its next beat."""
        self.beats[replica] = beat = self.beats.get(replica, 0) + 1
        self.contents.store(replica_key(replica), b'{"v": 1, "beat": %d}' % beat)

    async def lives(self) -> dict[str, str]:
        """How each is seen."""
        return lives_of(await self.onlooker.look())


class Beating(Sickness):
    """Each time that a record was read, its replica beats, unless it is dead."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.dead: set[str] = set()

    async def after(self, operation: str, key: str) -> None:
        """As Faults.after."""
        replica = key.rpartition("/")[2]
        if operation == "open" and replica not in self.dead:
            self.stage.beat(replica)


def lives_of(told: Mapping[str, object]) -> dict[str, str]:
    """How each replica is seen."""
    rows = told["replicas"]
    assert isinstance(rows, list)
    return {one["replica"]: one["life"] for one in rows}


async def test_the_living_and_the_dead() -> None:
    """Who beats is alive, who does not is silent; a second look knows the living from the first."""
    stage = Stage()
    for name in "abc":
        stage.beat(name)
    stage.sickness.dead.add("c")
    assert await stage.lives() == {"a": "alive", "b": "alive", "c": "silent"}
    stage.sickness.calls.clear()
    stage.sickness.dead.clear()
    stage.beat("c")
    assert await stage.lives() == {"a": "alive", "b": "alive", "c": "alive"}
    assert len(stage.sickness.calls) == 4  # a listing, and each record once
    assert {call.split()[0] for call in stage.sickness.calls} == {"list", "open"}


async def test_an_old_stamp_beside_the_newest_is_silent_at_once() -> None:
    """Both are the store's own: nobody is waited for."""
    stage = Stage()
    stage.beat("dead")
    stage.sickness.dead.add("dead")
    stage.contents.numbers = count(100, 0)
    stage.beat("a")
    await stage.lives()
    stage.sickness.calls.clear()
    async with asyncio.timeout(20):
        assert await stage.lives() == {"a": "alive", "dead": "silent"}
    assert stage.sickness.calls.count("open msrcache/replicas/dead") == 1


async def test_one_that_leaves_meanwhile_is_left_out() -> None:
    """Its record goes between two readings."""
    stage = Stage()
    stage.beat("a")

    class Leaves(Beating):
        async def after(self, operation: str, key: str) -> None:
            if operation == "open":
                self.stage.contents.objects.pop(key, None)

    driver = Memory(stage.contents, faults=Leaves(stage))
    store = Store(driver, metrics=Metrics(), clock=FakeClock())
    assert lives_of(await Onlooker(store, FakeClock(), interval=INTERVAL).look()) == {}


async def test_an_empty_store_and_a_sick_one() -> None:
    """Nobody is there; or the error is told."""
    stage = Stage()
    assert await stage.lives() == {}
    stage.beat("a")
    stage.sickness.fails = {"open": ""}
    with pytest.raises(StorageError):
        await stage.onlooker.look()


async def test_members_are_those_whose_record_is_young() -> None:
    """By the store's stamps, and who says where its peer port is and that it stays; also records of later versions."""
    contents = Contents(numbers=count(100))
    records = {
        "old": b'{"v": 1, "address": "old:1"}',
        "one": b'{"v": 1, "address": "one:1"}',
        "leaves": b'{"v": 1, "address": "leaves:1", "state": "draining"}',
        "alone": b'{"v": 1}',
        "torn": b'{"v": ',
        "later": b'{"v": 9, "address": "later:1", "more": []}',
    }
    for name, record in records.items():
        contents.store(replica_key(f"{name}-00000001"), record)
    store = Store(Memory(contents), metrics=Metrics(), clock=FakeClock())
    stamps = [(await store.stat(replica_key(f"{name}-00000001"))).modified for name in records]
    now = stamps[-1]
    members = sorted(await members_of(store, now=now, patience=now - stamps[0]), key=str)
    assert members == [Member(f"{name}-00000001", f"{name}:1") for name in ("later", "one")]
    empty = Store(Memory(Contents()), metrics=Metrics(), clock=FakeClock())
    assert await members_of(empty, now=now, patience=1.0) == []
