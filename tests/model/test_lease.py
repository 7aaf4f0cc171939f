"""Every interleaving of single store calls keeps the lease's promises; each trap that the protocol avoids breaks one.

What is explored is the code's own decision functions (`leaserules`), which `leasearrival` runs.
"""

from dataclasses import replace

import pytest

from msrcache.cache import leaserules
from msrcache.cache.leaserules import Act, End, Last, Rung, Seen, Step
from msrcache.oci.peers import Sign
from tests.model.explorer import breaks, explore
from tests.model.leaseworld import FAULTS, Replica, Rules, World


def test_without_faults_one_fetches() -> None:
    """Two replicas, two arrivals each: one fetch, one holder, no record left, everybody served."""
    report = explore(World())
    assert report.broken == {}
    assert report.states > 300


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_each_kind_twice(kind: str) -> None:
    """At any step: fetches are bounded by the faults, and from every state everybody alive can be served."""
    report = explore(World(faults=2, each=2, kinds=(kind,)))
    assert report.broken == {}
    assert report.states > 1_000


def test_crashes_and_failures() -> None:
    """Each replica waits for a dead holder once at most."""
    assert explore(World(faults=2, kinds=("crash", "fail"))).broken == {}


def test_failures_alone() -> None:
    """Nothing is left however often it fails."""
    assert explore(World(faults=4, each=4, kinds=("fail",))).broken == {}


@pytest.mark.timeout(600)
def test_two_faults_of_any_kinds() -> None:
    """All pairs of a crash, a pause, a lost reply, a sick store, a failed fill, a cancelled arrival, an idle time."""
    report = explore(World(faults=2))
    assert report.broken == {}
    assert report.states > 100_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [None, *FAULTS])
def test_three_replicas(kind: str | None) -> None:
    """Three replicas with two arrivals each without faults, with one arrival each and one fault."""
    world = World(replicas=3) if kind is None else World(replicas=3, arrivals=1, faults=1, kinds=(kind,))
    report = explore(world)
    assert report.broken == {}
    assert report.states > 5_000


# What the exploration threw out before the protocol was written down: each is caught.


def _not_found_is_gone(step: Step, seen: Seen) -> Step:
    gone = step.act is Act.FOLLOW and seen.sign is Sign.NOFILL
    return leaserules.after(step, replace(seen, sign=Sign.REPLACED) if gone else seen)


def test_a_404_proves_nothing() -> None:
    """Taken as proof that nobody fills, it makes two fetches, without any fault."""
    assert breaks(World(rules=Rules(after=_not_found_is_gone)), "fetches are bounded by the faults")


def test_a_beat_is_awaited() -> None:
    """A beat that races the release puts the record back: a ghost."""
    assert breaks(World(rules=Rules(awaits_beat=False)), "no ghost: who ended holds nothing")


def _where_it_was(last: Replica) -> Step:
    return Step(Act.CREATE, n=last.step.n)


def test_no_generation_is_remembered() -> None:
    """Who begins where he was last makes two holders once the records have gone."""
    world = World(rules=Rules(first=_where_it_was), faults=2, kinds=("expiry", "idle"))
    assert breaks(world, "fetches are bounded by the faults")


def test_released_records_stay() -> None:
    """A janitor that removes them at once makes two holders."""
    assert breaks(
        World(rules=Rules(janitor=True), faults=2, kinds=("expiry", "fail")),
        "one holder, but for those who are told that they lost it",
    )


def _looks_at_no_rung_above(step: Step, seen: Seen) -> Step:
    return leaserules.after(step, replace(seen, above=False) if step.act is Act.READ else seen)


def test_a_dead_record_below_is_passed() -> None:
    """Else every newcomer waits for it again."""
    assert breaks(
        World(rules=Rules(after=_looks_at_no_rung_above), faults=2, kinds=("crash", "fail")),
        "a dead holder is waited for once",
    )


def _releases_always(step: Step, *, well: bool, lost: bool) -> End:
    end = leaserules.ending(step, well=well, lost=lost)
    return end if well or end.last is not Last.CLEAR else replace(end, last=Last.CHECK, delete=False)


def test_a_failed_fill_leaves_no_rung() -> None:
    """Released instead of deleted, the first rung of each failure would stay for ever."""
    assert breaks(
        World(rules=Rules(ending=_releases_always), faults=4, each=4, kinds=("fail",)), "no record is left"
    )


def _looks_once(step: Step, seen: Seen) -> Step:
    return leaserules.after(step, replace(seen, blob=False) if step.act is Act.PROVE else seen)


def test_the_second_look_carries_the_proof() -> None:
    """Without it a newcomer fetches what was stored while it asked for the lease."""
    assert breaks(World(rules=Rules(after=_looks_once)), "fetches are bounded by the faults")


def _believes_no_reply(step: Step, seen: Seen) -> Step:
    settled = step.act is Act.READ and seen.rung is Rung.OWN
    return leaserules.after(step, replace(seen, rung=Rung.HELD, nonce="0.0") if settled else seen)


def test_a_lost_reply_is_settled() -> None:
    """Who doesn't know his own record waits for himself."""
    assert explore(World(rules=Rules(after=_believes_no_reply), faults=1, kinds=("lost",))).broken
