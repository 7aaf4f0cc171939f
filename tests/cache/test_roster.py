"""Who is alive, and whose record is read next: decided from what one observer has seen, on its own clock."""

from msrcache.cache.record import ReplicaRecord
from msrcache.cache.roster import (
    Known,
    can_be_asked,
    doubtful,
    due,
    heard,
    seen_by_reading,
    seen_in_list,
    silent,
)

PATIENCE = 15.0


def known(name: str, *, read_at: float | None = None, data: bytes = b"1", address: str = "h:1") -> Known:
    """A replica that was read once, or never."""
    one = Known(replica=name)
    if read_at is None:
        return one
    return seen_by_reading(one, ReplicaRecord(replica=name, address=address), data, read_at)


def test_one_reading_proves_nothing() -> None:
    """A replica that was read once, however long ago, counts as alive: it was not looked at since."""
    one = known("a", read_at=0.0)
    assert not silent(one, PATIENCE)
    assert can_be_asked(one, PATIENCE)


def test_unchanged_for_the_patience_is_silent() -> None:
    """Between two readings of the same record, on the observer's clock; a little less is not enough."""
    one = known("a", read_at=0.0)
    assert not silent(seen_by_reading(one, None, b"1", 14.9), PATIENCE)
    quiet = seen_by_reading(one, None, b"1", 15.0)
    assert silent(quiet, PATIENCE)
    assert not can_be_asked(quiet, PATIENCE)
    assert not silent(seen_by_reading(quiet, None, b"2", 20.0), PATIENCE)


def test_a_listing_revives_and_makes_nobody_silent() -> None:
    """It may lag: a stamp that stays makes one doubt, a stamp that changes is a sign of life."""
    one = seen_in_list(known("a", read_at=0.0), 1.0, 0.0)
    lagging = seen_in_list(one, 1.0, 500.0)
    assert not silent(lagging, PATIENCE)
    assert doubtful(lagging, PATIENCE)
    quiet = seen_by_reading(lagging, None, b"1", 500.0)
    assert silent(quiet, PATIENCE)
    assert not silent(seen_in_list(quiet, 2.0, 505.0), PATIENCE)
    assert not silent(heard(quiet, 505.0), PATIENCE)


def test_silence_is_counted_from_the_last_sign_of_life() -> None:
    """Two readings 2 s apart after a change that a listing showed say nothing of the time before."""
    one = seen_in_list(seen_in_list(Known(replica="a"), 1.0, 0.0), 2.0, 30.0)
    one = seen_by_reading(one, ReplicaRecord(replica="a"), b"1", 44.0)
    assert not silent(seen_by_reading(one, None, b"1", 46.0), PATIENCE)
    assert silent(seen_by_reading(one, None, b"1", 60.0), PATIENCE)
    # listed as changed after the readings: it wrote after them, or they would have shown it
    assert not silent(seen_in_list(seen_by_reading(one, None, b"1", 60.0), 3.0, 61.0), PATIENCE)


def test_a_suspect_is_silent_until_it_writes() -> None:
    """An old stamp beside ours, when it was first listed: the record of a dead one costs nobody a wait."""
    one = Known(replica="a", suspect=True)
    assert silent(one, PATIENCE)
    read = seen_by_reading(one, ReplicaRecord(replica="a"), b"1", 0.0)
    assert silent(read, PATIENCE)
    assert not silent(seen_by_reading(read, None, b"2", 5.0), PATIENCE)


def test_newcomers_are_read_first_and_a_few_at_once() -> None:
    """So a replica that starts knows nine others in three intervals."""
    fleet = [known(name) for name in "fedcba"] + [known("z", read_at=0.0)]
    assert due(fleet, PATIENCE) == ["a", "b", "c"]


def test_the_living_are_read_in_turn() -> None:
    """One an interval: who was looked at longest ago; the silent are left alone, the doubtful go first."""
    fleet = [known("a", read_at=3.0), known("b", read_at=1.0), known("c", read_at=2.0)]
    assert due(fleet, PATIENCE) == ["b"]
    fleet[1] = seen_by_reading(fleet[1], None, b"1", 17.0)
    assert due(fleet, PATIENCE) == ["c"]
    fleet[0] = seen_in_list(seen_in_list(fleet[0], 1.0, 3.0), 1.0, 18.0)
    assert due(fleet, PATIENCE) == ["a"]
    assert due(fleet[1:2], PATIENCE) == []


def test_who_leaves_or_has_no_address_is_not_asked() -> None:
    """It lives, and is no home of anything."""
    assert not can_be_asked(known("a", read_at=0.0, address=""), PATIENCE)
    leaving = ReplicaRecord(replica="a", address="h:1", state="draining")
    assert not can_be_asked(seen_by_reading(Known(replica="a"), leaving, b"1", 0.0), PATIENCE)
    assert not can_be_asked(known("a"), PATIENCE)


def test_a_record_that_turns_unreadable_keeps_what_was_known() -> None:
    """And its change is a sign of life."""
    one = seen_by_reading(known("a", read_at=0.0), None, b"\xff", 20.0)
    assert one.record == ReplicaRecord(replica="a", address="h:1")
    assert can_be_asked(one, PATIENCE)
