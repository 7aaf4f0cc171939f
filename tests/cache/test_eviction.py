"""Eviction: the bound holds, the longest unused leave, and no more of them than is needed."""

from hypothesis import given
from hypothesis import strategies as st

from msrcache.cache.eviction import evicted

sizes = st.lists(st.integers(0, 50), max_size=30)


@given(kept=sizes, arriving=st.integers(0, 200), incoming=st.integers(0, 300), limit=st.integers(0, 500))
def test_what_leaves_is_enough_and_no_more(kept: list[int], arriving: int, incoming: int, limit: int) -> None:
    """Afterwards everything fits; without the last one that left it would not; the order is by use."""
    used = sum(kept) + arriving
    leaving = evicted(enumerate(kept), incoming, used=used, limit=limit)
    if leaving is None:
        assert arriving + incoming > limit, "it is refused only where it could not fit whatever leaves"
        return
    assert leaving == list(range(len(leaving)))
    left = used - sum(kept[: len(leaving)])
    assert left + incoming <= limit
    if leaving:
        assert left + kept[leaving[-1]] + incoming > limit


@given(kept=sizes, incoming=st.integers(0, 300))
def test_nobody_leaves_where_there_is_room(kept: list[int], incoming: int) -> None:
    """A blob that fits costs nobody his place."""
    assert evicted(enumerate(kept), incoming, used=sum(kept), limit=sum(kept) + incoming) == []
