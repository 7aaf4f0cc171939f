"""Whether the store may be asked: decided over states, explored by Hypothesis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.storage.breaker import (
    PROOFS,
    WRITES,
    Breaker,
    BreakerSettings,
    Side,
    Verdict,
    ended,
    may_go,
    probed,
    side_of,
    verdict_of,
    wait_of,
)
from msrcache.storage.errors import (
    Denied,
    LeftAlone,
    NoSpace,
    NotFound,
    RangeNotSatisfiable,
    ReadOnly,
    Stale,
    StorageError,
    Unavailable,
    Unusable,
)

SETTINGS = BreakerSettings(failures=3, open_for=10.0, longest=60.0)
CLOSED = Breaker()
READS = ("stat", "open", "read", "list", "presign")

calls = st.sampled_from(list(Verdict))
steps = st.lists(st.tuples(st.booleans(), calls))
"""What happens to a breaker: (a probe?, verdict)."""


def played(history: list[tuple[bool, Verdict]]) -> Breaker:
    """The state after all of it."""
    state = CLOSED
    for probe, verdict in history:
        state = probed(state, verdict) if probe else ended(state, verdict, SETTINGS)
    return state


@pytest.mark.parametrize("operation", [*READS, *sorted(WRITES)])
@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Unavailable("d", "k"), Verdict.OUTAGE),
        (Unusable("d", "k"), Verdict.OUTAGE),
        (NotFound("d", "k"), Verdict.ANSWERED),
        (RangeNotSatisfiable("d", "k", size=1), Verdict.ANSWERED),
        (Denied("d", "k"), Verdict.ANSWERED),
        (ReadOnly("d", "k"), Verdict.ANSWERED),
        (NoSpace("d", "k"), Verdict.ANSWERED),
        (Stale("d", "k"), Verdict.NOTHING),
        (StorageError("d", "k"), Verdict.NOTHING),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, StorageError) else str(value),
)
def test_only_an_outage_is_an_outage(operation: str, error: StorageError, verdict: Verdict) -> None:
    """What the store said no to, it was there to say."""
    assert verdict_of(operation, error) is verdict


@pytest.mark.parametrize("operation", [*READS, *sorted(WRITES)])
def test_what_success_proves(operation: str) -> None:
    """Every read proves reading; letting go, deleting and sending parts prove no writing."""
    assert side_of(operation) is (Side.READING if operation in READS else Side.WRITING)
    proven = operation in PROOFS or operation in READS
    assert verdict_of(operation, None) is (Verdict.ANSWERED if proven else Verdict.NOTHING)


def test_a_refusal_of_its_own_is_never_noted_as_an_answer() -> None:
    """A call that was not made tells nothing good of the store."""
    assert verdict_of("stat", LeftAlone("d", "k")) is not Verdict.ANSWERED


@given(st.lists(calls))
def test_it_opens_after_so_many_outages_in_a_row_and_never_before(verdicts: list[Verdict]) -> None:
    """Counted by hand: the outages since the last answer."""
    state, row, was_open = CLOSED, 0, False
    for verdict in verdicts:
        row = {Verdict.ANSWERED: 0, Verdict.OUTAGE: row + 1, Verdict.NOTHING: row}[verdict]
        was_open = verdict is not Verdict.ANSWERED and (was_open or row >= SETTINGS.failures)
        state = ended(state, verdict, SETTINGS)
        assert state.is_open is was_open


@given(steps)
def test_any_answer_closes_at_once(history: list[tuple[bool, Verdict]]) -> None:
    """Whatever came before, of a probe or of a call that began earlier; no trace is left."""
    state = played(history)
    assert ended(state, Verdict.ANSWERED, SETTINGS) == CLOSED
    assert probed(state, Verdict.ANSWERED) == CLOSED


@given(steps, st.lists(calls.filter(lambda verdict: verdict is not Verdict.ANSWERED)))
def test_late_outages_change_nothing(history: list[tuple[bool, Verdict]], late: list[Verdict]) -> None:
    """A thousand calls that hung when it opened put off no probe."""
    state = played([*history, *[(False, Verdict.OUTAGE)] * SETTINGS.failures])
    assert state.is_open
    assert (
        played([*history, *[(False, Verdict.OUTAGE)] * SETTINGS.failures, *[(False, v) for v in late]])
        == state
    )


@given(st.integers(min_value=1, max_value=100_000))
def test_waits_grow_to_a_bound(openings: int) -> None:
    """Twice as long after each failed probe, and after a week of outage no longer than the bound."""
    wait = wait_of(Breaker(3, openings), SETTINGS)
    assert wait == min(60.0, 10.0 * 2.0 ** min(openings - 1, 10))


@given(steps, steps)
def test_what_may_go(reading: list[tuple[bool, Verdict]], writing: list[tuple[bool, Verdict]]) -> None:
    """Reads need reading alone; writes need both; nothing else is ever refused."""
    sides = {"reading": played(reading), "writing": played(writing)}
    for operation in READS:
        assert may_go(operation, **sides) is not sides["reading"].is_open
    for operation in WRITES:
        assert may_go(operation, **sides) is not (sides["reading"].is_open or sides["writing"].is_open)


@given(steps)
def test_a_store_that_is_well_is_never_left_alone_for_ever(history: list[tuple[bool, Verdict]]) -> None:
    """From every state, one probe that is answered, or that got through at all, ends it."""
    for verdict in (Verdict.ANSWERED, Verdict.NOTHING):
        assert not probed(played(history), verdict).is_open
