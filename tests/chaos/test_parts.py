"""The parts of a chaos run that decide: the plan and the verdict."""

import itertools
from collections import Counter

import pytest

from tests.chaos.plan import AROUND, PROCESS, Kind, plan
from tests.chaos.verdict import UNEXCUSED, Attempt, Pulled, Sent, Window, cause, judge

MB = 1_000_000


def test_a_plan_is_made_from_its_seed() -> None:
    """The same faults at the same times, another seed others."""
    assert plan(1, seconds=600, rounds=5) == plan(1, seconds=600, rounds=5)
    assert plan(1, seconds=600, rounds=5) != plan(2, seconds=600, rounds=5)


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_has_every_kind_and_no_two_replicas_gone_at_once(seed: int) -> None:
    """Each kind as often as asked for; of one lane one fault after the other, within the time."""
    lanes = plan(seed, seconds=600, rounds=5)
    counted = Counter(fault.kind for lane in lanes for fault in lane)
    assert counted == Counter(dict.fromkeys(Kind, 5))
    for lane in lanes:
        assert all(one.at + one.lasts < two.at for one, two in itertools.pairwise(lane))
        assert lane[-1].at + lane[-1].lasts < 600
    assert {fault.kind for fault in lanes[0]} == set(PROCESS)
    assert {fault.kind for fault in lanes[1]} == set(AROUND)


@pytest.mark.parametrize(
    ("attempt", "window", "excuse"),
    [
        (Attempt(5, 6, replica=1), Window(Kind.KILL, 5.5, 8, 1), "kill -9"),
        (Attempt(5, 6, replica=0), Window(Kind.KILL, 5.5, 8, 1), UNEXCUSED),
        (Attempt(5, 6), Window(Kind.STOP, 5.5, 8, 1), "SIGSTOP"),
        (Attempt(5, 6, replica=1), Window(Kind.CUT_CLIENTS, 5.5, 8, 1), "cut from the load balancer"),
        (Attempt(5, 6, replica=1), Window(Kind.DUMB_STORE, 5.5, 8, 1), UNEXCUSED),
        (Attempt(5, 6, replica=1), Window(Kind.DRAIN, 5.5, 8, 1), UNEXCUSED),
        (Attempt(5, 6, replica=1), Window(Kind.STORE_DENIED, 0, 8, None), UNEXCUSED),
        (Attempt(5, 6, replica=1), Window(Kind.CUT_PEERS, 0, 8, 1), UNEXCUSED),
        (Attempt(15, 16, replica=1), Window(Kind.UPSTREAM_DOWN, 0, 8, None), "upstream down"),
        (Attempt(35, 36, replica=1), Window(Kind.UPSTREAM_DOWN, 0, 8, None), UNEXCUSED),
    ],
)
def test_what_excuses_a_failure(attempt: Attempt, window: Window, excuse: str) -> None:
    """A replica that is gone, an upstream that is away; no store, no peer, no drain."""
    attempt.error = "cut"
    assert cause(attempt, [window]) == excuse


def _green() -> list[Pulled]:
    return [Pulled("sha256:a", 2 * MB, [Attempt(1, 2, replica=0)], ended_well=True)]


def test_a_quiet_run_with_enough_of_everything_is_green() -> None:
    """Each kind of fault once, no failure, one fetch."""
    windows = [Window(kind, 100, 101, 0) for kind in Kind]
    sent = [Sent("sha256:a", 2 * MB, 1.0)]
    verdict = judge(
        _green(), windows, sent, deleted={}, threshold=MB, wrong_stored=0, leftovers={"leases": 0}
    )
    assert verdict.ratio == 1.0
    assert verdict.red(pulls=1, rounds=1) == []
    assert "| wrong bytes served, stored | 0, 0 |" in verdict.table()


def test_whatever_is_wrong_is_red() -> None:
    """Each reason by its own words."""
    pulled = _green()
    pulled[0].wrong = True
    pulled += [Pulled("sha256:b", 7, [Attempt(1, 2, error="cut")])]
    sent = [Sent("sha256:a", 3 * MB, 1.0)]
    verdict = judge(pulled, [], sent, deleted={}, threshold=MB, wrong_stored=1, leftovers={})
    reasons = verdict.red(pulls=3, rounds=1)
    assert reasons[:6] == [
        "1 attempts failed without an excuse",
        "1 pulls were given up",
        "1 pulls ended well with wrong bytes",
        "1 stored blobs are wrong",
        "upstream bytes are 1.50x the unique ones",
        "only 2 pulls",
    ]
    assert len(reasons) == 6 + len(Kind)


def test_what_a_faulty_store_did_not_take_is_counted_apart() -> None:
    """It is fetched again, and that is no failure of the lease; nor is a peer port that looks like a dead process."""
    windows = [Window(Kind.STORE_FULL, 10, 20, None), Window(Kind.CUT_PEERS, 50, 52, 1)]
    pulled = [*_green(), Pulled("sha256:b", 4 * MB, [Attempt(12, 13, replica=0)], ended_well=True)]
    sent = [Sent("sha256:a", 2 * MB, 1.0), Sent("sha256:b", 4 * MB, 15.0), Sent("sha256:b", 4 * MB, 51.0)]
    verdict = judge(pulled, windows, sent, deleted={}, threshold=MB, wrong_stored=0, leftovers={})
    assert (verdict.ratio, verdict.ratio_store) == (1.0, 10 / 6)


def test_a_blob_that_is_fetched_twice_for_no_reason_is_counted() -> None:
    """Once before a fault and once long after it: the second had no excuse."""
    windows = [Window(Kind.STORE_FULL, 10, 20, None)]
    sent = [Sent("sha256:a", 2 * MB, 1.0), Sent("sha256:a", 2 * MB, 60.0)]
    assert judge(_green(), windows, sent, deleted={}, threshold=MB, wrong_stored=0, leftovers={}).ratio == 2.0


def test_a_blob_that_was_deleted_and_comes_again_is_another_one() -> None:
    """Once in each of its lives is no waste; twice in one is."""
    sent = [Sent("sha256:a", 2 * MB, at) for at in (1.0, 30.0, 60.0)]

    def ratio(deleted: list[float]) -> float:
        times = {"sha256:a": deleted}
        return judge(_green(), [], sent, deleted=times, threshold=MB, wrong_stored=0, leftovers={}).ratio

    assert (ratio([]), ratio([20.0]), ratio([20.0, 59.0])) == (3.0, 1.5, 1.0)


def test_a_run_in_which_nothing_expired_is_red_where_that_is_asked_for() -> None:
    """The ten-minute run says that expiry was at work."""
    verdict = judge(_green(), [], [], deleted={"sha256:a": [1.0]}, threshold=MB, wrong_stored=0, leftovers={})
    assert "only 1 blobs expired" in verdict.red(pulls=1, rounds=0, deleted=2)
    assert verdict.red(pulls=1, rounds=0, deleted=1) == []
