"""Presence: what is believed of blobs, for how long, and for whom it is not enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.cache import presence as module
from msrcache.cache.presence import AGAIN, GLANCE, Presence, Sighting, stands
from msrcache.oci.digest import Digest
from tests.stage.clock import FakeClock

ONE, TWO, THREE = (Digest.of(text) for text in (b"1", b"2", b"3"))
HERE, THERE = "192.0.2.1", "192.0.2.2"
BELIEF = 600.0

seconds = st.floats(0, 10_000)


@given(seen=seconds, sent=st.none() | seconds, later=seconds)
def test_no_belief_outlives_its_time_or_a_doubt(seen: float, sent: float | None, later: float) -> None:
    """Whatever happened when: what stands is young enough, and no client that came back is sent on an old word."""
    now = max(seen, sent or 0.0) + later
    held = stands(Sighting(1, seen), sent, now=now, belief=BELIEF)
    assert not held or now - seen < BELIEF
    if held and sent is not None and now - sent < AGAIN:
        assert now - seen < GLANCE
    if not held:
        assert now - seen >= BELIEF or (sent is not None and now - sent < AGAIN)


def test_what_was_never_seen_is_not_believed() -> None:
    """Absence is no belief: the next look may find it."""
    assert not stands(None, None, now=0.0, belief=BELIEF)


def test_a_sighting_is_good_for_its_time() -> None:
    """A redirect within it costs no look, by whoever; a new sighting begins anew, a read that found nothing ends it."""
    clock = FakeClock()
    presence = Presence(clock, belief=BELIEF)
    presence.saw(ONE, 5)
    clock.advance(BELIEF - 1)
    assert presence.believed(ONE, HERE)
    assert presence.size(ONE) == 5
    clock.advance(1)
    assert not presence.believed(ONE, HERE)
    presence.saw(ONE, 5)
    assert presence.believed(ONE, HERE)
    presence.forget(ONE)
    assert not presence.believed(ONE, HERE)
    assert presence.size(ONE) is None


def test_who_comes_back_is_not_sent_on_the_same_word() -> None:
    """Within a minute of its redirect a client may have met a 404: the blob is looked at, for this client only."""
    clock = FakeClock()
    presence = Presence(clock, belief=BELIEF)
    presence.saw(ONE, 5)
    presence.saw(TWO, 5)
    clock.advance(10)
    presence.sent(ONE, HERE)
    assert not presence.believed(ONE, HERE)
    assert presence.believed(ONE, THERE)
    assert presence.believed(TWO, HERE)
    presence.saw(ONE, 5)
    assert presence.believed(ONE, HERE)  # it was looked at just now
    clock.advance(GLANCE)
    assert not presence.believed(ONE, HERE)
    clock.advance(AGAIN)
    assert presence.believed(ONE, HERE)


def test_both_memories_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was longest unused goes first, and costs one look; what no longer matters goes with the next."""
    monkeypatch.setattr(module, "BELIEFS", 2)
    monkeypatch.setattr(module, "SENT", 2)
    clock = FakeClock()
    presence = Presence(clock)
    for digest in (ONE, TWO):
        presence.saw(digest, 1)
    assert presence.believed(ONE, HERE)
    presence.saw(THREE, 1)
    assert [presence.believed(digest, HERE) for digest in (ONE, TWO, THREE)] == [True, False, True]
    for digest in (ONE, TWO, THREE):
        presence.sent(digest, HERE)
    assert len(presence._sent) == 2
    clock.advance(AGAIN)
    presence.sent(ONE, THERE)
    assert (HERE, TWO) not in presence._sent
