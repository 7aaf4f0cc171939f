"""Promises of access.verdicts: bounded in time and number, by both clocks."""

from msrcache.access.verdicts import Standing, Verdicts
from tests.stage.clock import FakeClock

KEY = ("jane", "team/app")


def made(capacity: int = 10) -> tuple[Verdicts, FakeClock]:
    """A memory with the default times."""
    clock = FakeClock()
    return Verdicts(clock=clock, ttl=60, grace=300, capacity=capacity), clock


def test_fresh_then_grace_then_nothing() -> None:
    """And what is over is forgotten."""
    verdicts, clock = made()
    assert verdicts.standing(KEY) is Standing.NONE
    verdicts.remember(KEY, expiry=None)
    assert verdicts.standing(KEY) is Standing.FRESH
    clock.advance(60)
    assert verdicts.standing(KEY) is Standing.GRACE
    clock.advance(240)
    assert verdicts.standing(KEY) is Standing.NONE
    assert len(verdicts) == 0


def test_a_clock_that_is_set_back_lengthens_nothing() -> None:
    """The token's end counts by the monotonic clock too; set ahead, by the wall clock."""
    verdicts, clock = made()
    verdicts.remember(KEY, expiry=clock.time() + 10)
    clock.jump(-10_000)
    assert verdicts.standing(KEY) is Standing.FRESH
    clock.advance(10)
    assert verdicts.standing(KEY) is Standing.NONE
    verdicts.remember(KEY, expiry=clock.time() + 50)
    clock.jump(50)
    assert verdicts.standing(KEY) is Standing.NONE


def test_an_ended_token_removes_what_was_remembered() -> None:
    """It is not remembered, and what was is over."""
    verdicts, clock = made()
    verdicts.remember(KEY, expiry=None)
    verdicts.remember(KEY, expiry=clock.time())
    assert verdicts.standing(KEY) is Standing.NONE


def test_the_longest_unused_goes_first() -> None:
    """At its capacity the memory drops what nobody asked for."""
    verdicts, _ = made(capacity=2)
    keys = [("jane", name) for name in "abc"]
    verdicts.remember(keys[0], expiry=None)
    verdicts.remember(keys[1], expiry=None)
    assert verdicts.standing(keys[0]) is Standing.FRESH
    verdicts.remember(keys[2], expiry=None)
    assert [verdicts.standing(key) for key in keys] == [Standing.FRESH, Standing.NONE, Standing.FRESH]


def test_forgetting_twice_is_harmless() -> None:
    """A no may come from several questions."""
    verdicts, _ = made()
    verdicts.remember(KEY, expiry=None)
    verdicts.forget(KEY)
    verdicts.forget(KEY)
    assert verdicts.standing(KEY) is Standing.NONE


def test_grace_is_never_shorter_than_a_fresh_verdict() -> None:
    """grace 0 means: no more than the verdict itself."""
    clock = FakeClock()
    verdicts = Verdicts(clock=clock, ttl=60, grace=0)
    verdicts.remember(KEY, expiry=None)
    clock.advance(59)
    assert verdicts.standing(KEY) is Standing.FRESH
    clock.advance(1)
    assert verdicts.standing(KEY) is Standing.NONE
