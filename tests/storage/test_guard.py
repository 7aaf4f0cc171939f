"""The breakers at work: calls let through or refused, one probe at a time, back without anybody's pull."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from msrcache.storage.breaker import BreakerSettings, Side
from msrcache.storage.errors import LeftAlone, NotFound, StorageError, Unavailable
from msrcache.storage.guard import Guard
from msrcache.telemetry.metrics import Metrics

SICK = Unavailable("d", "k", None, "it hangs")


class Bench:
    """A guard whose waits end when the test says so."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.waits: list[float] = []
        self.waiting = asyncio.Event()
        self.on = asyncio.Semaphore(0)
        self.probes: list[str] = []
        self.answer: StorageError | None = SICK
        self.guard = Guard(
            "d", BreakerSettings(failures=2, open_for=8.0), metrics=self.metrics, sleep=self._sleep
        )
        self.guard.probe_with(
            {Side.READING: lambda: self._probe("reading"), Side.WRITING: lambda: self._probe("writing")}
        )

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.waiting.set()
        await self.on.acquire()

    async def _probe(self, side: str) -> None:
        self.probes.append(side)
        if self.answer is not None:
            raise self.answer

    async def probed(self) -> None:
        """Let one wait end; returns at the next wait, or when nothing is probed any more."""
        self.waiting.clear()
        self.on.release()
        waiting = asyncio.ensure_future(self.waiting.wait())
        healing = set(self.guard._healing.values())
        await asyncio.wait({waiting, *healing}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        waiting.cancel()

    def open(self, side: Side) -> float:
        """The gauge."""
        labels = {"side": side.value}
        return self.metrics.registry.get_sample_value("msrcache_storage_breaker_open", labels) or 0.0


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A new one for each test, closed after it."""
    bench = Bench()
    yield bench
    await bench.guard.close()


async def test_a_store_that_cannot_be_read_is_left_alone(bench: Bench) -> None:
    """Reads and writes are refused at once, with the reason, counted as skipped; one line says so."""
    with capture_logs() as lines:
        for _ in range(5):
            bench.guard.note("open", SICK)
    assert [line["event"] for line in lines] == ["store left alone"]
    for operation in ("stat", "put"):
        with pytest.raises(LeftAlone, match=r"until a probe succeeds.*it hangs"):
            bench.guard.check(operation, "k")
    labels = {"operation": "stat", "result": "skipped"}
    assert bench.metrics.registry.get_sample_value("msrcache_storage_calls_total", labels) == 1
    assert (bench.open(Side.READING), bench.open(Side.WRITING)) == (1, 0)


async def test_a_store_that_cannot_be_written_is_still_read(bench: Bench) -> None:
    """And what its reads answer does not make it writable."""
    bench.guard.note("commit", SICK)
    bench.guard.note("stat", None)
    bench.guard.note("put", SICK)
    bench.guard.note("stat", NotFound("d", "k"))
    bench.guard.check("stat", "k")
    with pytest.raises(LeftAlone, match="is not written"):
        bench.guard.check("writer", "k")


async def test_probes_bring_it_back(bench: Bench) -> None:
    """One at a time, each after a longer wait, until one is answered: then everything goes out again."""
    bench.guard.note("stat", SICK)
    bench.guard.note("stat", SICK)
    await bench.waiting.wait()
    for _ in range(3):
        await bench.probed()
    bench.answer = None
    await bench.probed()
    assert bench.probes == ["reading"] * 4
    for wait, bound in zip(bench.waits, (8.0, 16.0, 32.0, 60.0), strict=True):
        assert bound / 2 <= wait <= bound
    bench.guard.check("put", "k")
    assert (bench.guard.trouble(), bench.open(Side.READING)) == (None, 0)


async def test_a_late_answer_ends_the_probing(bench: Bench) -> None:
    """A call from before it opened is answered: nothing is probed any more, and it can open again."""
    bench.guard.note("stat", SICK)
    bench.guard.note("stat", SICK)
    await bench.waiting.wait()
    bench.guard.note("stat", None)
    bench.guard.check("stat", "k")
    bench.guard.note("stat", SICK)
    bench.guard.note("stat", SICK)
    with pytest.raises(LeftAlone):
        bench.guard.check("stat", "k")
    bench.answer = None
    await bench.probed()
    bench.guard.check("stat", "k")


async def test_both_sides_are_probed_by_themselves(bench: Bench) -> None:
    """Each with its own question."""
    for operation in ("stat", "put") * 2:
        bench.guard.note(operation, SICK)
    bench.answer = None
    async with asyncio.timeout(10):
        while bench.guard._healing:
            bench.on.release()
            await asyncio.sleep(0)
    assert sorted(bench.probes) == ["reading", "writing"]
    bench.guard.check("put", "k")


async def test_closing_ends_the_probing(bench: Bench) -> None:
    """No task is left."""
    bench.guard.note("stat", SICK)
    bench.guard.note("stat", SICK)
    await bench.waiting.wait()
    await bench.guard.close()
    assert bench.guard._healing == {}
