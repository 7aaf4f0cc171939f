"""Which upstream is asked: decided over states, without a loop."""

import pytest

from msrcache.upstream.breaker import Ask, Away, Breaker, NextRound, Verdict, choose, ended, started
from msrcache.upstream.settings import BalanceSettings

SETTINGS = BalanceSettings(failures=3, open_for=10.0)
NONE: frozenset[int] = frozenset()
CLOSED = Breaker()


def after(breaker: Breaker, *verdicts: Verdict, now: float = 0.0, probe: bool = False) -> Breaker:
    """The state after attempts that ended so."""
    for verdict in verdicts:
        breaker = ended(breaker, verdict, probe=probe, now=now, settings=SETTINGS)
    return breaker


OPEN = after(CLOSED, *[Verdict.OUTAGE] * 3)


def test_in_turn() -> None:
    """Each pull begins with the next one, and goes round."""
    breakers = [CLOSED] * 3
    assert [choose(breakers, turn=turn, tried=NONE, now=0) for turn in range(3)] == [Ask(0), Ask(1), Ask(2)]
    assert choose(breakers, turn=2, tried=frozenset({2}), now=0) == Ask(0)
    assert choose(breakers, turn=2, tried=frozenset({0, 1, 2}), now=0) == NextRound()


def test_outages_in_a_row_open() -> None:
    """The third in a row opens; any answer in between starts the count anew."""
    assert not after(CLOSED, Verdict.OUTAGE, Verdict.OUTAGE).is_open
    assert not after(CLOSED, Verdict.OUTAGE, Verdict.OUTAGE, Verdict.ANSWERED, Verdict.OUTAGE).is_open
    assert OPEN.until == 10.0
    assert after(CLOSED, *[Verdict.NOTHING] * 9) == CLOSED


def test_an_open_one_is_left_out() -> None:
    """While it is open, the others are asked; it does not even wait for the next round."""
    assert choose([OPEN, CLOSED], turn=0, tried=NONE, now=9.9) == Ask(1)
    assert choose([OPEN, CLOSED], turn=0, tried=frozenset({1}), now=9.9) == NextRound()


def test_then_one_probe() -> None:
    """Past its time one pull probes it, and no second one meanwhile."""
    probe = choose([OPEN, CLOSED], turn=0, tried=NONE, now=10.0)
    assert probe == Ask(0, probe=True)
    probing = started(OPEN, probe=True)
    assert choose([probing, CLOSED], turn=0, tried=NONE, now=10.0) == Ask(1)
    assert choose([probing], turn=0, tried=NONE, now=10.0) == Away(1.0)


@pytest.mark.parametrize(
    ("verdict", "then"),
    [
        (Verdict.ANSWERED, CLOSED),
        (Verdict.OUTAGE, Breaker(4, 22.0)),
        (Verdict.NOTHING, OPEN),
    ],
)
def test_the_probe_decides(verdict: Verdict, then: Breaker) -> None:
    """An answer closes, an outage opens for as long again, and a probe that left leaves the next pull to probe."""
    assert after(started(OPEN, probe=True), verdict, now=12.0, probe=True) == then


def test_late_news() -> None:
    """An outage of a pull from before neither prolongs nor takes the probe; a late answer closes."""
    probing = started(OPEN, probe=True)
    late = after(probing, Verdict.OUTAGE, now=11.0)
    assert (late.until, late.probing) == (10.0, True)
    assert after(OPEN, Verdict.ANSWERED, now=1.0) == CLOSED


def test_all_away() -> None:
    """When all are open, it is known at once for how long at least."""
    other = Breaker(3, 4.0)
    assert choose([OPEN, other], turn=0, tried=NONE, now=1.5) == Away(2.5)
