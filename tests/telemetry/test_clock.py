"""Promises of telemetry.clock and of the tests' own clock."""

import time

import pytest

from msrcache.telemetry.clock import Clock, SystemClock
from tests.stage.clock import FakeClock


def test_the_system_clock_is_the_machines() -> None:
    """Both readings are the standard library's."""
    clock: Clock = SystemClock()
    before = time.monotonic()
    assert before <= clock.monotonic() <= time.monotonic()
    assert abs(clock.time() - time.time()) < 60


def test_the_fake_clock_moves_only_when_told() -> None:
    """advance() moves both readings, jump() the wall clock alone."""
    clock = FakeClock(monotonic=5, time=100)
    as_seam: Clock = clock
    clock.advance(2.5)
    clock.jump(-50)
    assert (as_seam.monotonic(), as_seam.time()) == (7.5, 52.5)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
