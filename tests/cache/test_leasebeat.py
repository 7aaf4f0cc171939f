"""Signs of life: what was seen when, on the observer's own clock."""

from msrcache.cache.leasebeat import Watch
from msrcache.cache.leaserecord import LeaseRecord

HELD = LeaseRecord(replica="one", nonce="n", beat=1)


def test_unchanged_is_between_two_readings() -> None:
    """From the first answer to the last question: what is between an answer and the next question proves nothing."""
    watch = Watch().saw(HELD, asked=1.0, answered=2.0)
    assert watch.unchanged == 0
    assert watch.saw(HELD, asked=5.0, answered=50.0).unchanged == 3.0


def test_a_beat_or_another_holder_begins_anew() -> None:
    """Also the same beat of another nonce."""
    watch = Watch().saw(HELD, asked=1.0, answered=2.0).saw(HELD, asked=5.0, answered=6.0)
    assert watch.saw(HELD.beaten(2), asked=7.0, answered=8.0).unchanged == 0
    assert watch.saw(LeaseRecord(replica="two", nonce="m", beat=1), asked=7.0, answered=8.0).unchanged == 0


def test_a_record_that_is_gone_is_no_sign_of_life() -> None:
    """While it is followed, whoever ended his lease is known only by his stream."""
    watch = Watch().saw(HELD, asked=1.0, answered=2.0)
    assert watch.missed(asked=9.0).unchanged == 7.0
