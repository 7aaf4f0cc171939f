"""The heartbeat over a store in memory: who is seen, at what cost, and what a sick store does to it."""

from collections import Counter
from dataclasses import dataclass, field

import pytest

from msrcache.cache.heartbeat import LISTED, PATIENCE, Heartbeat
from msrcache.cache.layout import replica_key, replica_of
from msrcache.cache.record import ReplicaRecord
from msrcache.oci.peers import Fleet, Member
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import Sickness
from tests.stage.clock import FakeClock

INTERVAL = 5.0


@dataclass(slots=True)
class Replica:
    """One replica's heartbeat with a driver of its own, and what that driver was asked."""

    name: str
    heartbeat: Heartbeat
    sickness: Sickness
    metrics: Metrics
    clock: FakeClock
    state: list[str]

    def sees(self) -> list[str]:
        """The living that it would ask."""
        return [member.replica for member in self.heartbeat.alive()]

    def quiet(self) -> list[str]:
        """Those that it holds for silent."""
        return [known.replica for known, silent in self.heartbeat.others() if silent]


@dataclass(slots=True)
class Stage:
    """Replicas on one store, each with a clock of its own."""

    contents: Contents = field(default_factory=Contents)
    replicas: dict[str, Replica] = field(default_factory=dict)

    def start(self, name: str, *, clock: FakeClock | None = None) -> Replica:
        """A replica that has not beaten yet."""
        sickness, metrics, clock = Sickness(), Metrics(), clock or FakeClock()
        store = Store(Memory(self.contents, faults=sickness), metrics=metrics, clock=clock)
        state = ["ready"]

        def compose(beat: int) -> ReplicaRecord:
            return ReplicaRecord(replica=name, beat=beat, address=f"{name}:1", state=state[0])

        heartbeat = Heartbeat(store, compose, replica=name, interval=INTERVAL, metrics=metrics, clock=clock)
        one = self.replicas[name] = Replica(name, heartbeat, sickness, metrics, clock, state)
        return one

    async def intervals(self, count: int, *, without: str = "") -> None:
        """Let so many pass: every replica but those without beats once in each."""
        for _ in range(count):
            for name, replica in self.replicas.items():
                replica.clock.advance(INTERVAL)
                if name not in without:
                    await replica.heartbeat.step()


@pytest.fixture
def stage() -> Stage:
    """An empty store."""
    return Stage()


async def test_replicas_find_each_other(stage: Stage) -> None:
    """Within two listings each knows all others with their addresses, itself among them, in one order."""
    for name in "cab":
        stage.start(name)
    await stage.intervals(1 + LISTED)
    members = [Member(name, f"{name}:1") for name in "abc"]
    for replica in stage.replicas.values():
        fleet: Fleet = replica.heartbeat
        assert list(fleet.alive()) == members
        assert replica.metrics.registry.get_sample_value("msrcache_replicas", {"state": "alive"}) == 3


async def test_a_killed_replica_falls_silent_and_a_newcomer_is_found(stage: Stage) -> None:
    """Its record stays; the others stop asking it after a few intervals, and say that it is silent."""
    for name in "abc":
        stage.start(name)
    await stage.intervals(6)
    await stage.intervals(2 * LISTED + PATIENCE, without="c")
    a = stage.replicas["a"]
    assert (a.sees(), a.quiet()) == (["a", "b"], ["c"])
    assert a.metrics.registry.get_sample_value("msrcache_replicas", {"state": "silent"}) == 1
    stage.start("d")
    await stage.intervals(1 + LISTED, without="c")
    assert a.sees() == ["a", "b", "d"]


async def test_a_paused_replica_comes_back(stage: Stage) -> None:
    """The next listing shows that it writes again."""
    for name in "ab":
        stage.start(name)
    await stage.intervals(6)
    await stage.intervals(2 * LISTED + PATIENCE, without="b")
    assert stage.replicas["a"].quiet() == ["b"]
    await stage.intervals(1 + LISTED)
    assert stage.replicas["a"].sees() == ["a", "b"]


async def test_clocks_an_hour_apart_change_nothing(stage: Stage) -> None:
    """Neither wall clocks nor the moments when machines started are ever compared."""
    clocks = {"a": FakeClock(), "b": FakeClock(monotonic=9e6, time=1_700_003_600.0)}
    for name, clock in clocks.items():
        stage.start(name, clock=clock)
    for _ in range(12):
        await stage.intervals(1)
        clocks["b"].jump(-3600.0)
    assert stage.replicas["a"].sees() == stage.replicas["b"].sees() == ["a", "b"]


async def test_a_clean_stop_is_seen_at_the_next_reading(stage: Stage) -> None:
    """The record goes, and nobody waits for silence."""
    for name in "ab":
        stage.start(name)
    await stage.intervals(6)
    b = stage.replicas.pop("b")
    await b.heartbeat.close()
    assert list(stage.contents.objects) == [replica_key("a")]
    await stage.intervals(1)
    assert stage.replicas["a"].sees() == ["a"]
    assert stage.replicas["a"].quiet() == []


async def test_who_drains_is_not_asked(stage: Stage) -> None:
    """It lives, and is nobody's home replica any more."""
    for name in "ab":
        stage.start(name)
    await stage.intervals(6)
    stage.replicas["b"].state[0] = "draining"
    await stage.intervals(2)
    assert (stage.replicas["a"].sees(), stage.replicas["a"].quiet()) == (["a"], [])


async def test_the_dead_of_yesterday_are_not_waited_for(stage: Stage) -> None:
    """A record whose stamp is old beside ours, by the store's own clock, is silent from the first look on."""
    stage.start("dead")
    await stage.intervals(1)
    del stage.replicas["dead"]
    for _ in range(100):  # the stamps of this store count its changes
        stage.contents.store("other", b"")
    a = stage.start("a")
    await stage.intervals(1)
    assert (a.sees(), a.quiet()) == (["a"], ["dead"])
    del stage.contents.objects[replica_key("dead")]  # the janitor's
    await stage.intervals(LISTED)
    assert a.heartbeat.others() == []


@pytest.mark.parametrize("size", [1, 3, 9])
async def test_nine_cost_no_more_than_three(stage: Stage, size: int) -> None:
    """The ledger: at most one request to the store a second and replica, at any size, from the first beat on."""
    for number in range(size):
        stage.start(f"r{number:02}")
    await stage.intervals(20)
    for replica in stage.replicas.values():
        assert len(replica.sickness.calls) <= 20 * INTERVAL, replica.name
    for replica in stage.replicas.values():
        replica.sickness.calls.clear()
    await stage.intervals(30)
    for replica in stage.replicas.values():
        counted = Counter(call.split()[0] for call in replica.sickness.calls)
        assert counted["put"] == 30
        assert counted["open"] <= 30
        assert counted["list"] == 30 / LISTED
        assert sum(counted.values()) <= 0.5 * 30 * INTERVAL


async def test_a_store_that_fails_shows_nothing_and_is_told_once(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everybody stays what he was, nothing is raised, and the log has one line for each kind of failure."""
    for name in "ab":
        stage.start(name)
    await stage.intervals(6)
    a = stage.replicas["a"]
    a.sickness.fails = {"put": "", "open": "", "list": ""}
    await stage.intervals(20)
    assert a.sees() == ["a", "b"]
    said = capsys.readouterr()
    assert (said.out + said.err).count("heartbeat was not stored") == 1
    a.sickness.fails = {}
    await stage.intervals(2 * LISTED)
    assert a.sees() == ["a", "b"]
    assert stage.replicas["b"].sees() == ["a", "b"]


async def test_a_listing_that_lags_makes_nobody_silent(stage: Stage) -> None:
    """Reading decides: the stamps of a listing may be old for as long as it likes."""
    for name in "abc":
        stage.start(name)
    await stage.intervals(6)
    stage.contents.lag()
    for _ in range(30):
        await stage.intervals(1)
        for replica in stage.replicas.values():
            assert replica.quiet() == []


async def test_a_store_that_may_not_be_written_is_read(stage: Stage) -> None:
    """A read-only replica sees the others; they do not see it, and it removes nothing."""
    stage.start("a")
    metrics, clock = Metrics(), FakeClock()
    store = Store(Memory(stage.contents), metrics=metrics, clock=clock)
    store.allowed = False
    heartbeat = Heartbeat(
        store,
        lambda beat: ReplicaRecord(replica="r", beat=beat),
        replica="r",
        interval=INTERVAL,
        metrics=metrics,
        clock=clock,
    )
    await stage.intervals(1)
    await heartbeat.step()
    await heartbeat.close()
    assert [member.replica for member in heartbeat.alive()] == ["a", "r"]
    assert list(stage.contents.objects) == [replica_key("a")]


async def test_records_of_other_versions_are_alive_by_their_beat(stage: Stage) -> None:
    """One before, one to come, and one that nobody can read: each lives while it changes."""
    records = {"old": '{"beat": %d}', "new": '{"v": 9, "beat": %d, "x": [], "address": "n:1"}', "odd": "%d{"}
    a = stage.start("a")
    for beat in range(4 * (LISTED + PATIENCE)):
        for name, text in records.items():
            stage.contents.store(replica_key(name), (text % beat).encode())
        await stage.intervals(1)
        assert a.quiet() == []
    assert a.sees() == ["a", "new"]
    for _ in range(4 * (LISTED + PATIENCE)):
        await stage.intervals(1)
    assert a.quiet() == ["new", "odd", "old"]


async def test_hearing_from_a_silent_one_revives_it(stage: Stage) -> None:
    """What it says over the network is a sign of life as good as its record."""
    for name in "ab":
        stage.start(name)
    await stage.intervals(6)
    await stage.intervals(2 * LISTED + PATIENCE, without="b")
    stage.replicas["a"].heartbeat.heard_of("b")
    assert stage.replicas["a"].sees() == ["a", "b"]


async def test_the_task_beats_and_leaves_cleanly(stage: Stage) -> None:
    """Started, it beats by itself; closed, its put is awaited before the record is removed, so no ghost stays."""
    a = stage.start("a")
    a.sickness.held = "put"
    a.heartbeat.start()
    await a.sickness.reached.wait()
    a.sickness.held = ""
    a.sickness.release.set()
    await a.heartbeat.close()
    assert stage.contents.objects == {}
    assert "put msrcache/replicas/a" in a.sickness.calls
    assert a.sickness.calls[-1] == "delete msrcache/replicas/a"


async def test_an_interval_of_nothing_never_beats(stage: Stage) -> None:
    """A single replica may do without: it is alone, and its store is not asked."""
    a = stage.start("a")
    a.heartbeat.interval = 0.0
    a.heartbeat.start()
    await a.heartbeat.close()
    assert (a.sees(), a.sickness.calls) == (["a"], [])


def test_only_records_are_replicas() -> None:
    """What else stands below the folder is nobody."""
    assert replica_of(replica_key("a-1")) == "a-1"
    for key in ("msrcache/replicas/", "msrcache/replicas/a/b", "msrcache/uses/a", "a"):
        assert replica_of(key) is None
