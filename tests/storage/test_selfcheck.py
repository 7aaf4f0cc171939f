"""The proof at the start: what is broken is told, what is required refuses, what cannot be asked is asked again."""

import asyncio
from typing import get_args

import pytest
from structlog.testing import capture_logs

from msrcache.config.cache import StoreSection
from msrcache.storage.errors import Denied, Unavailable
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.selfcheck import AT_START, SelfCheck, prove_create
from msrcache.storage.store import Store, StoreSettings
from msrcache.telemetry.metrics import Metrics
from tests.contract.sabotage import Honest, SabotagedHarness
from tests.contract.sabotage_reading import MissesCommits, StopsAtTheMissing
from tests.contract.sabotage_writing import CreatesOver, LooksBeforeItCreates
from tests.stage.clock import FakeClock
from tests.storage.test_store import Script

NAMES = [promise.name for promise in AT_START]


class Bench:
    """A self-check over a store of two instances."""

    def __init__(self, saboteur: type[Honest] = Honest, *required: str) -> None:
        self.harness = SabotagedHarness(saboteur)
        self.metrics = Metrics()
        clock = FakeClock()
        self.store = Store(self.harness.driver(), metrics=self.metrics, clock=clock, twin=self.harness.driver)
        self.check = SelfCheck(self.store, required=required, metrics=self.metrics, clock=clock, again=0.0)

    def broken(self) -> dict[str, float | None]:
        """The gauge, by promise."""
        sample = self.metrics.registry.get_sample_value
        return {name: sample("msrcache_storage_promise_broken", {"promise": name}) for name in NAMES}


def test_what_can_be_required_is_what_is_proved() -> None:
    """The configuration and the proof know the same names."""
    annotation = StoreSection.model_fields["require"].annotation
    assert list(get_args(get_args(annotation)[0])) == NAMES


async def test_a_good_store_is_proved_and_nothing_stays() -> None:
    """Every gauge at 0, no warning, no trouble, no object."""
    bench = Bench()
    assert "not answered" in (bench.check.trouble() or "")
    with capture_logs() as lines:
        await bench.check.run()
    assert lines == []
    assert bench.broken() == dict.fromkeys(NAMES, 0.0)
    assert (bench.check.trouble(), bench.check.refusal()) == (None, None)
    assert bench.harness.contents.objects == {}
    assert bench.store.create_is_exclusive


@pytest.mark.parametrize("saboteur", [Honest, LooksBeforeItCreates])
async def test_a_command_proves_creates_alone(saboteur: type[Honest]) -> None:
    """Where they are not exclusive they are not relied on; nothing stays, and nothing is told."""
    bench = Bench(saboteur)
    with capture_logs() as lines:
        await prove_create(bench.store, clock=FakeClock())
    assert lines == []
    assert bench.store.create_is_exclusive is (saboteur is Honest)
    assert bench.harness.contents.objects == {}
    await prove_create(bench.store, clock=FakeClock())
    assert bench.store.create_is_exclusive is (saboteur is Honest)


BREAKS: dict[str, type[Honest]] = {
    "read-after-write": MissesCommits,
    "delete": StopsAtTheMissing,
    "create": CreatesOver,
    "exclusive-create": LooksBeforeItCreates,
}


@pytest.mark.parametrize("name", NAMES)
async def test_what_is_broken_is_told_and_counted(name: str) -> None:
    """A warning that says what follows, the gauge, and create is not relied on where it is create that is broken."""
    bench = Bench(BREAKS[name])
    with capture_logs() as lines:
        await bench.check.run()
    warned = {line["promise"]: line["error"] for line in lines}
    assert name in warned
    assert "; " in warned[name]
    assert bench.broken()[name] == 1.0
    assert "not kept" in (bench.check.trouble() or "")
    assert bench.store.create_is_exclusive is not ("create" in name)
    assert bench.check.refusal() is None


@pytest.mark.parametrize("name", NAMES)
async def test_what_is_required_refuses_in_one_sentence(name: str) -> None:
    """With the promise's name and what the store did instead; another promise refuses nothing."""
    bench = Bench(BREAKS[name], name)
    await bench.check.run()
    refusal = bench.check.refusal() or ""
    assert refusal.startswith(f"cache.storage.require asks for {name}, and the store does not keep it: ")
    assert "\n" not in refusal
    other = Bench(BREAKS["exclusive-create"], "read-after-write")
    await other.check.run()
    assert other.check.refusal() is None


async def test_what_a_driver_does_not_claim_is_missing_where_it_is_required() -> None:
    """Swift has no exclusive create: no warning by itself, a refusal for who requires it."""
    for required, refused in (((), False), (("exclusive-create",), True)):
        bench = Bench(Honest, *required)
        bench.store.create_is_exclusive = False
        await bench.check.run()
        assert (bench.check.refusal() is not None) is refused
        assert (bench.check.trouble() is not None) is refused


async def test_a_store_that_is_away_is_asked_again() -> None:
    """It has broken nothing, not even what is required; when it answers, it is proved."""
    script, contents, metrics = Script(), Contents(), Metrics()
    memory = Memory(contents, faults=script)
    store = Store(memory, metrics=metrics, clock=FakeClock(), twin=memory.twin)
    check = SelfCheck(store, required=["read-after-write"], metrics=metrics, clock=FakeClock(), again=0.0)
    script.fail("before", "stat", *[Unavailable("inmemory", "k")] * 5)
    async with asyncio.timeout(10):
        await check.run()
    assert script.seen.count("create") >= 3
    assert (check.trouble(), check.refusal(), contents.objects) == (None, None, {})
    await store.close()


async def test_what_was_told_is_not_told_again() -> None:
    """One promise is broken, another cannot be checked for a while: proved again and again, warned of once."""
    script, contents, metrics = Script(), Contents(), Metrics()
    memory = CreatesAnything(contents, faults=script)
    store = Store(
        memory, metrics=metrics, clock=FakeClock(), twin=lambda: CreatesAnything(contents, faults=script)
    )
    check = SelfCheck(store, required=(), metrics=metrics, clock=FakeClock(), again=0.0)
    script.fail("before", "stat", *[Unavailable("inmemory", "k")] * 3)
    with capture_logs() as lines:
        async with asyncio.timeout(10):
            await check.run()
    assert sorted(line["promise"] for line in lines) == ["create", "exclusive-create"]
    await store.close()


class CreatesAnything(Memory):
    """Says of every create that it made it."""

    async def create(self, key: str, data: bytes) -> bool:
        await super().create(key, data)
        return True


async def test_a_store_that_may_not_be_written_is_not_proved() -> None:
    """Neither where the operator forbids it, nor, for now, where the store refuses: the store tells that itself."""
    memory = Memory()
    store = Store(memory, metrics=Metrics(), clock=FakeClock(), settings=StoreSettings(writable=False))
    check = SelfCheck(store, required=NAMES, metrics=Metrics(), clock=FakeClock())
    await check.run()
    assert (check.trouble(), check.refusal()) == (None, None)

    script = Script()
    script.fail("before", "put", Denied("inmemory", "k"))
    store = Store(Memory(faults=script), metrics=Metrics(), clock=FakeClock())
    check = SelfCheck(store, required=NAMES, metrics=Metrics(), clock=FakeClock(), again=3600.0)
    running = asyncio.create_task(check.run())
    async with asyncio.timeout(10):
        while check.trouble() is not None:
            await asyncio.sleep(0)
    assert script.seen == ["put"]
    assert check.refusal() is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
