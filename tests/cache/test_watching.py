"""Read-after-write watched: beats that are told are looked for, and what the store does not show is counted."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from msrcache.cache.heartbeat import Heartbeat
from msrcache.cache.layout import replica_key
from msrcache.cache.news import News
from msrcache.cache.record import ReplicaRecord
from msrcache.cache.watching import MEASURES, Watching, chosen, message, understood
from msrcache.oci.digest import Digest
from msrcache.oci.peers import Member
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import Sickness
from tests.stage.clock import FakeClock
from tests.stage.process import until

ONE = Digest.of(b"one")


class Late(Sickness):
    """Shows a replica's record as it was for so many readings: a store that is not read-after-write consistent."""

    def __init__(self, contents: Contents) -> None:
        super().__init__()
        self.contents = contents
        self.late = 0
        self.old: dict[str, bytes] = {}
        self.new: dict[str, bytes] = {}

    async def before(self, operation: str, key: str) -> None:
        """As Faults.before."""
        await super().before(operation, key)
        if operation == "open" and key in self.old:
            self.late -= 1
            self.contents.store(key, self.old[key] if self.late >= 0 else self.new[key])


class Replica:
    """One replica that tells the others directly."""

    def __init__(self, name: str, contents: Contents, fleet: dict[str, "Replica"]) -> None:
        self.metrics, self.clock, self.faults = Metrics(), FakeClock(), Late(contents)
        store = Store(Memory(contents, faults=self.faults), metrics=self.metrics, clock=self.clock)
        self.violations: list[Digest] = []
        self.news = News(self.violations.append, self.clock)
        self.heartbeat = Heartbeat(
            store,
            lambda beat: ReplicaRecord(replica=name, beat=beat, address=f"{name}:1"),
            replica=name,
            interval=5.0,
            metrics=self.metrics,
            clock=self.clock,
        )
        self.told: list[str] = []

        async def tell(member: Member, body: bytes) -> None:
            self.told.append(member.replica)
            if (other := fleet.get(member.replica)) is not None:
                assert other.watching.hear(name, body)

        self.watching = Watching(self.heartbeat, self.news, tell, metrics=self.metrics, clock=self.clock)
        self.heartbeat.put_returned = self.watching.beat
        fleet[name] = self

    def value(self, name: str, **labels: str) -> float:
        """A metric."""
        return self.metrics.registry.get_sample_value(f"msrcache_{name}", labels) or 0.0


class Fleet:
    """Replicas on one store."""

    def __init__(self) -> None:
        self.contents, self.replicas = Contents(), dict[str, Replica]()

    def __getitem__(self, name: str) -> Replica:
        return self.replicas[name]

    def start(self, names: str) -> None:
        """These replicas, which have not beaten yet."""
        for name in names:
            Replica(name, self.contents, self.replicas)

    async def intervals(self, count: int, *, without: str = "") -> None:
        """Let so many pass, and all that was told be heard."""
        for _ in range(count):
            for name, replica in self.replicas.items():
                replica.clock.advance(5.0)
                if name not in without:
                    await replica.heartbeat.step()
                    await self.settled()

    async def settled(self) -> None:
        """Returns when nobody tells or looks."""

        async def quiet() -> bool:
            return not any(replica.watching._tasks for replica in self.replicas.values())

        await until(quiet, what="replicas that have heard each other")


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """Nobody yet."""
    one = Fleet()
    yield one
    for replica in one.replicas.values():
        await replica.watching.close()


async def test_a_beat_that_is_told_is_seen(fleet: Fleet) -> None:
    """Each beat of each replica is measured by one other, and a store that shows it at once violates nothing."""
    fleet.start("abc")
    await fleet.intervals(4)
    before = {name: replica.value("visibility_lag_seconds_count") for name, replica in fleet.replicas.items()}
    await fleet.intervals(10)
    for name, replica in fleet.replicas.items():
        assert replica.value("visibility_lag_seconds_count") - before[name] == 10
        assert replica.value("readafterwrite_violations_total", kind="beat") == 0
        assert replica.heartbeat.lag == 0.0


async def test_it_costs_the_store_nothing_more(fleet: Fleet) -> None:
    """The look at the one that told stands in for the look in turn: a reading an interval."""
    fleet.start("abcd")
    await fleet.intervals(6)
    for replica in fleet.replicas.values():
        replica.faults.calls.clear()
    await fleet.intervals(12)
    for replica in fleet.replicas.values():
        counted = [call.split()[0] for call in replica.faults.calls]
        assert (counted.count("put"), counted.count("list")) == (12, 4)
        assert counted.count("open") <= 13  # the phases may differ by one


async def test_a_store_that_shows_a_beat_late(fleet: Fleet) -> None:
    """The first reading that does not show it is a violation; reading goes on until it does, and that is the lag."""
    fleet.start("ab")
    await fleet.intervals(4)
    a, b = fleet["a"], fleet["b"]
    key = replica_key("a")
    b.faults.old[key] = fleet.contents.objects[key].data
    b.faults.late = 2
    a.clock.advance(5.0)
    b.faults.calls.clear()
    seen = b.value("visibility_lag_seconds_count")

    class Ticking(FakeClock):
        def monotonic(self) -> float:
            self.advance(0.25)
            return super().monotonic()

    b.watching._clock = Ticking()
    b.faults.new[key] = ReplicaRecord(replica="a", beat=5, address="a:1").encode()
    await a.heartbeat.step()
    await fleet.settled()
    assert b.value("readafterwrite_violations_total", kind="beat") == 1
    assert b.value("visibility_lag_seconds_count") == seen + 1
    assert b.heartbeat.lag == 0.75
    assert b.faults.calls.count(f"open {key}") == 3


async def test_who_dies_is_found_silent_all_the_same(fleet: Fleet) -> None:
    """It tells nothing any more, and the others have looks to spare for it."""
    fleet.start("abc")
    await fleet.intervals(6)
    await fleet.intervals(12, without="c")
    assert [known.replica for known, silent in fleet["a"].heartbeat.others() if silent] == ["c"]


async def test_a_store_that_cannot_be_read_is_no_measure(fleet: Fleet) -> None:
    """Nor is a replica that has left."""
    fleet.start("ab")
    await fleet.intervals(4)
    b = fleet["b"]
    seen = b.value("visibility_lag_seconds_count")
    b.faults.fails = {"open": ""}
    await fleet.intervals(1, without="b")
    b.faults.fails = {}
    assert b.watching.hear("nobody", message(beat=1))
    await fleet.settled()
    assert b.value("visibility_lag_seconds_count") == seen
    assert b.value("readafterwrite_violations_total", kind="beat") == 0


async def test_a_flood_of_beats_is_not_looked_for(fleet: Fleet) -> None:
    """So many an interval: a replica that is told by all at once does not flood the store."""
    fleet.start("a")
    await fleet.intervals(1)
    a = fleet["a"]
    a.faults.calls.clear()
    for number in range(20):
        assert a.watching.hear(f"r{number}", message(beat=1))
    await fleet.settled()
    assert len(a.faults.calls) == MEASURES


async def test_what_is_published_is_told_to_all(fleet: Fleet) -> None:
    """Gathered, with its age; whoever missed it after that says so."""
    fleet.start("abc")
    await fleet.intervals(4)
    fleet["a"].watching.start()
    missed = fleet["b"].news.looking() + 0.001
    fleet["b"].news.missed(ONE, missed)
    fleet["a"].news.note(ONE)
    fleet["a"].clock.advance(1.0)

    async def heard() -> bool:
        return fleet["b"].violations == [ONE]

    await until(heard, what="a violation")
    fleet["c"].news.missed(ONE, fleet["c"].news.looking())
    assert fleet["c"].violations == [ONE]
    assert fleet["a"].violations == []


def test_whom_to_tell() -> None:
    """Another each time; of replicas that beat together no two tell the same one."""
    alive = [Member(name, f"{name}:1") for name in "abcd"]
    for beat in range(8):
        told = [chosen(alive, name, beat) for name in "abcd"]
        assert {member.replica for member in told if member} == set("abcd")
        assert all(member and member.replica != name for member, name in zip(told, "abcd", strict=True))
    assert {one.replica for beat in range(3) if (one := chosen(alive, "a", beat))} == set("bcd")
    assert chosen(alive[:1], "a", 3) is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (message(beat=7, published=[(ONE, 0.25)]), (7, [(ONE, 0.25)])),
        (b"{}", (0, [])),
        (b'{"v": 9, "beat": 3, "published": {"a": 1}, "new": []}', (3, [])),
        (b'{"beat": "x", "published": [1, ["sha256:00", 1], ["x"], ["a", "b"]]}', (0, [])),
        (f'{{"published": [["{ONE}", 2, "more"]]}}'.encode(), (0, [(ONE, 2.0)])),
        (b"[]", None),
        (b"\xff", None),
    ],
)
def test_messages_of_all_versions(body: bytes, told: object) -> None:
    """As far as they are understood."""
    assert understood(body) == told


async def test_leaving_ends_what_is_under_way(fleet: Fleet) -> None:
    """A look at a beat that never shows is dropped."""
    fleet.start("ab")
    await fleet.intervals(4)
    b = fleet["b"]
    assert b.watching.hear("a", message(beat=1000))

    async def violated() -> bool:
        return b.value("readafterwrite_violations_total", kind="beat") == 1

    await until(violated, what="a violation")
    async with asyncio.timeout(20):
        await b.watching.close()
