"""What is due, decided by records alone."""

from hypothesis import given
from hypothesis import strategies as st

from msrcache.cache.expiry import KEPT, Due, Holdings, Terms, Why, aged, due, held_back
from msrcache.cache.journal import UseRecord
from msrcache.oci.digest import Digest

NOW = 1_000_000.0
BLOBS = [Digest.of(bytes([number])) for number in range(12)]
RECORDS = st.builds(
    UseRecord,
    st.integers(0, 20).map(lambda ago: NOW - ago * 10),
    st.integers(0, 3).map(float),
    st.integers(0, 5),
)
STORES = st.dictionaries(st.sampled_from(BLOBS), RECORDS)
TERMS = st.builds(Terms, ttl=st.none() | st.integers(0, 200).map(float), budget=st.integers(0, 40))
SOME = st.frozensets(st.sampled_from(BLOBS))


def holdings(records: dict[Digest, UseRecord]) -> Holdings:
    """A store that has these."""
    made = Holdings()
    made.add(records)
    return made


def test_what_was_never_seen_was_used_now() -> None:
    """However old the object is, and whatever a store holds that another program filled."""
    old, known = (
        UseRecord(NOW - 50, 1.0, 7),
        {BLOBS[1]: UseRecord(NOW - 50, 1.0, 7), BLOBS[2]: UseRecord(0.0, 1.0, 1)},
    )
    used = {BLOBS[1]: NOW - 5, BLOBS[3]: NOW}
    held = [(BLOBS[0], 7, 1.0), (BLOBS[1], 7, 1.0), (BLOBS[3], 2, 2.0)]
    records = aged(known, used, held, now=NOW)
    assert records == {
        BLOBS[0]: UseRecord(NOW, 1.0, 7),
        BLOBS[1]: UseRecord(NOW - 5, 1.0, 7),
        BLOBS[3]: UseRecord(NOW, 2.0, 2),
    }
    assert aged({BLOBS[0]: old}, {BLOBS[0]: NOW - 90}, held[:1], now=NOW) == {BLOBS[0]: old}
    first = holdings(aged({}, {}, held, now=NOW))
    assert due(first, Terms(ttl=0.0, budget=1), frozenset(), now=NOW) == []


@given(STORES, TERMS, SOME)
def test_nothing_is_due_but_by_the_rules(
    records: dict[Digest, UseRecord], terms: Terms, spared: frozenset[Digest]
) -> None:
    """By age only what is older than ttl and all of that; by size only where the rest is too much, and no more."""
    found = due(holdings(records), terms, spared, now=NOW)
    digests = [one.digest for one in found]
    assert len(set(digests)) == len(digests)
    assert not spared.intersection(digests)
    assert all(one.record == records[one.digest] and one.record.used < NOW for one in found)
    by_age = {one.digest for one in found if one.why is Why.TTL}
    overdue = {d for d, r in records.items() if terms.ttl is not None and r.used < NOW - terms.ttl}
    assert by_age == overdue - spared
    _by_size_is_right(records, terms, spared, found)


def _by_size_is_right(
    records: dict[Digest, UseRecord], terms: Terms, spared: frozenset[Digest], found: list[Due]
) -> None:
    total = sum(record.size for record in records.values())
    left = total - sum(one.record.size for one in found if one.why is Why.TTL)
    by_size = [one for one in found if one.why is Why.BUDGET]
    if not terms.budget or left <= terms.budget:
        assert by_size == []
        return
    ages = [(one.record.used, one.record.stored) for one in by_size]
    assert ages == sorted(ages)
    # The last one was still needed; without any left to take, all that could go has gone.
    assert left - sum(one.record.size for one in by_size[:-1]) > terms.budget * KEPT
    chosen = {one.digest for one in found}
    others = [r for d, r in records.items() if d not in chosen | spared and r.used < NOW]
    assert all((r.used, r.stored) >= ages[-1] for r in others) if ages else not others
    assert left - sum(one.record.size for one in by_size) <= terms.budget * KEPT or not others


@given(STORES, TERMS, st.integers(0, 4))
def test_the_rest_follows_the_next_time(records: dict[Digest, UseRecord], terms: Terms, most: int) -> None:
    """No more than `most` at once, and those that the whole would begin with."""
    whole = due(holdings(records), terms, frozenset(), now=NOW)
    some = due(holdings(records), terms, frozenset(), now=NOW, most=most)
    assert some == whole[:most]


@given(st.dictionaries(st.sampled_from(BLOBS), SOME), SOME)
def test_a_manifest_stays_with_what_it_names(
    names: dict[Digest, frozenset[Digest]], standing: frozenset[Digest]
) -> None:
    """Also the one that names a manifest that stays; no other."""
    staying = held_back(names, standing)
    for manifest, named in names.items():
        assert (manifest in staying) == bool(named & (standing | staying))


def test_it_tells_what_it_has() -> None:
    """Blobs, bytes, and which of some are there; sha512 too."""
    long = Digest.of(b"x", "sha512")
    made = holdings({BLOBS[0]: UseRecord(1.0, 2.0, 3), long: UseRecord(4.0, 5.0, 6)})
    assert (len(made), made.bytes) == (2, 9)
    assert {made.digest(0), made.digest(1)} == {BLOBS[0], long}
    assert made.record(1) == UseRecord(4.0, 5.0, 6)
    assert made.among([long, BLOBS[1]]) == {long}
    assert repr(made) == "<Holdings [2 blobs, 9 bytes]>"
