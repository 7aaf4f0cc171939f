"""One call to a driver: its deadline, its retries, its metrics, and how long its failure is told."""

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest

from msrcache.storage.calls import TROUBLE, Calls, Retries, TimedOut
from msrcache.storage.errors import (
    Denied,
    NoSpace,
    NotFound,
    RangeNotSatisfiable,
    Stale,
    StorageError,
    Unavailable,
)
from msrcache.telemetry.metrics import Metrics
from tests.stage.clock import FakeClock

AT_ONCE = Retries(attempts=3, base=0.0)


class Bench:
    """Calls with everything at hand."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.clock = FakeClock()
        self.calls = Calls("d", metrics=self.metrics, clock=self.clock, retries=AT_ONCE)

    def count(self, operation: str, result: str) -> float:
        """How often it was counted."""
        labels = {"operation": operation, "result": result}
        return self.metrics.registry.get_sample_value("msrcache_storage_calls_total", labels) or 0.0

    async def once(self, operation: str, *outcomes: object) -> object:
        """One attempt at a call with such outcomes."""
        return await self.calls.once(operation, "k", outcome_by_outcome(*outcomes), deadline=60.0)


def outcome_by_outcome(*outcomes: object) -> Callable[[], Awaitable[object]]:
    """A call that ends so, each time otherwise: raises exceptions, returns the rest."""
    coming = iter(outcomes)

    async def call() -> object:
        outcome = next(coming)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return call


@pytest.fixture
def bench() -> Bench:
    """A new one for each test."""
    return Bench()


async def test_a_call_is_counted_by_its_result(bench: Bench) -> None:
    """Label by label, with its duration by the clock."""
    assert await bench.once("stat", 7) == 7
    for error in (NotFound("d", "k"), NoSpace("d", "k")):
        with pytest.raises(type(error)):
            await bench.once("stat", error)
    assert [bench.count("stat", result) for result in ("ok", "notfound", "nospace")] == [1, 1, 1]
    sample = bench.metrics.registry.get_sample_value
    assert sample("msrcache_storage_seconds_count", {"operation": "stat"}) == 3


async def test_the_deadline_becomes_an_error_in_words(bench: Bench) -> None:
    """Which operation, how long; and a retry of it would only double the wait."""
    calls = 0

    async def hang() -> None:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()

    with pytest.raises(TimedOut, match=r"d: stat was not done within 0 s \[k\]"):
        await bench.calls.repeatedly("stat", "k", hang, deadline=0.0)
    assert (calls, bench.count("stat", "timeout")) == (1, 1)


async def test_a_drivers_own_time_out_counts_as_one(bench: Bench) -> None:
    """Libraries raise TimeoutError too."""
    with pytest.raises(Unavailable):
        await bench.once("stat", TimeoutError())


async def test_what_a_driver_lets_slip_is_translated(bench: Bench) -> None:
    """An OSError becomes a StorageError; a bug stays a bug, and cancellation is passed on."""
    with pytest.raises(NotFound):
        await bench.once("stat", OSError(errno.ENOENT, "-"))
    with pytest.raises(Unavailable):
        await bench.once("put", OSError(errno.ENOENT, "-"))
    for error in (ZeroDivisionError(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await bench.once("stat", error)


@pytest.mark.parametrize("error", [Unavailable("d", "k"), Stale("d", "k")])
async def test_what_may_pass_is_tried_again(bench: Bench, error: StorageError) -> None:
    """Up to the number of attempts; each is counted."""
    call = outcome_by_outcome(error, error, 7)
    assert await bench.calls.repeatedly("stat", "k", call, deadline=60.0) == 7
    call = outcome_by_outcome(error, error, error, 7)
    with pytest.raises(type(error)):
        await bench.calls.repeatedly("stat", "k", call, deadline=60.0)
    assert (bench.count("stat", error.result), bench.count("stat", "ok")) == (5, 1)


@pytest.mark.parametrize(
    "error", [NotFound("d", "k"), Denied("d", "k"), NoSpace("d", "k"), RangeNotSatisfiable("d", "k", size=1)]
)
async def test_what_stays_is_not_tried_again(bench: Bench, error: StorageError) -> None:
    """Asking again would not change it."""
    with pytest.raises(type(error)):
        await bench.calls.repeatedly("stat", "k", outcome_by_outcome(error, 7), deadline=60.0)


def test_waits_have_full_jitter() -> None:
    """Anything from nothing to a bound that doubles up to the cap; a file handle is renewed at once."""
    retries = Retries(base=0.1, cap=0.3)
    for attempt, bound in ((1, 0.1), (2, 0.2), (3, 0.3), (9, 0.3)):
        waits = [retries.wait(attempt, Unavailable("d", "k")) for _ in range(200)]
        assert 0.0 <= min(waits) < bound / 4 < bound * 3 / 4 < max(waits) <= bound
    assert retries.wait(1, Stale("d", "k")) == 0.0


def test_what_the_service_asks_for_is_honoured_up_to_the_cap() -> None:
    """A client waits meanwhile."""
    assert Retries(cap=2.0).wait(1, Unavailable("d", "k", retry_after=1.5)) == 1.5
    assert Retries(cap=2.0).wait(1, Unavailable("d", "k", retry_after=600.0)) == 2.0


async def test_trouble_is_the_last_failure_until_the_next_success(bench: Bench) -> None:
    """Reading and writing apart: that a full disk is still read does not make it well."""
    assert bench.calls.trouble() is None
    with pytest.raises(NoSpace):
        await bench.once("put", NoSpace("d", "k"))
    await bench.once("stat", 7)
    assert "disk" not in (bench.calls.trouble() or "")
    assert bench.calls.trouble() == "d: the store failed [k]"
    bench.clock.advance(1.0)
    with pytest.raises(Denied):
        await bench.once("stat", Denied("d", "read"))
    assert bench.calls.trouble() == "d: the store failed [read]"
    await bench.once("stat", 7)
    await bench.once("commit", 7)
    assert bench.calls.trouble() is None


async def test_trouble_is_forgotten_after_a_while(bench: Bench) -> None:
    """A store that nobody asked again may be well by now."""
    with pytest.raises(NoSpace):
        await bench.once("put", NoSpace("d", "k"))
    bench.clock.advance(TROUBLE - 0.1)
    assert bench.calls.trouble() is not None
    bench.clock.advance(0.1)
    assert bench.calls.trouble() is None


async def test_that_something_is_missing_is_no_trouble(bench: Bench) -> None:
    """It is an answer: the store works."""
    for error in (Denied("d", "k"), NotFound("d", "k")):
        with pytest.raises(type(error)):
            await bench.once("stat", error)
    assert bench.calls.trouble() is None


async def items(*outcomes: object, closed: list[bool]) -> AsyncGenerator[object, None]:
    """Items, or errors between them."""
    try:
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
        await asyncio.sleep(0)
    finally:
        closed.append(True)


async def test_a_body_is_one_call_in_all(bench: Bench) -> None:
    """Counted at its end, and closed."""
    closed: list[bool] = []
    each = bench.calls.each("read", "k", items(1, 2, 3, closed=closed), deadline=60.0)
    assert [item async for item in each] == [1, 2, 3]
    assert (bench.count("read", "ok"), closed) == (1, [True])


async def test_a_body_that_stalls_is_cut(bench: Bench) -> None:
    """The deadline holds for each pause, not for the whole; what waits inside is closed."""

    async def stall() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    each = bench.calls.each("read", "k", stall(), deadline=0.05)
    assert await anext(each) == 1
    with pytest.raises(TimedOut, match=r"read was not done within 0\.05 s"):
        await anext(each)
    assert bench.count("read", "timeout") == 1


async def test_a_body_that_fails_or_is_left_is_closed(bench: Bench) -> None:
    """The error is told and counted; leaving is no error."""
    closed: list[bool] = []
    each = bench.calls.each("read", "k", items(1, OSError(errno.EIO, "-"), closed=closed), deadline=60.0)
    with pytest.raises(Unavailable):
        [item async for item in each]
    left = bench.calls.each("read", "k", items(1, 2, closed=closed), deadline=60.0)
    assert await anext(left) == 1
    await left.aclose()
    assert (closed, bench.count("read", "unavailable"), bench.count("read", "ok")) == ([True, True], 1, 0)
