"""Expiry: what of the store's content is due to go. Pure: a function of records, decided without a store or a clock.

Rules (protocols, section 5):
1. Only what the fleet itself wrote down counts. What was first seen at `now` counts as used then, however old it is:
   a store that another program filled loses nothing by being adopted.
2. Due is what was last used more than `ttl` ago; then, where the rest still holds more than `budget` bytes, what was
   unused for longest, down to KEPT of it. Of what was used last at one moment the older object goes first.
3. Never due: what is spared (pinned, or being filled), and what was used at `now`.
4. A manifest stays as long as anything that it names stands and is not due itself: without it these bytes are of no
   use to anybody while the upstream is away.
"""

import math
from array import array
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from heapq import merge
from itertools import islice
from typing import Final

from msrcache.cache.journal import UseRecord
from msrcache.oci.digest import Digest

KEPT: Final = 0.9
"""What is left of the budget once it was exceeded, so that it is not exceeded again at once."""

RUN: Final = 10_000
"""Blobs that are sorted at one go."""

MOST: Final = 200_000
"""Blobs that are found due at one time: what is known of them is held in memory. The rest is found the next time."""


class Why(StrEnum):
    """Why a blob is due; the metrics' label."""

    TTL = "blobttl"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """`ttl` in seconds, None: for ever; `budget` in bytes, 0: no limit."""

    ttl: float | None = None
    budget: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """A blob that is due, and what is known of it."""

    digest: Digest
    why: Why
    record: UseRecord


def aged(
    known: Mapping[Digest, UseRecord],
    used: Mapping[Digest, float],
    held: Iterable[tuple[Digest, int, float]],
    *,
    now: float,
) -> dict[Digest, UseRecord]:
    """The records of all that is held (digest, size, stored): what was known of it, and what was used since."""
    records: dict[Digest, UseRecord] = {}
    for digest, size, stored in held:
        before = known.get(digest)
        last = now if before is None else before.used
        # To be stored is to be used, though a record of the one before it says that it was used long ago.
        records[digest] = UseRecord(max(last, used.get(digest, last), min(stored, now)), stored, size)
    return records


class Holdings:
    """The records of a whole store in little memory: some 60 bytes a blob."""

    def __init__(self) -> None:
        self.bytes = 0
        self._digests: list[bytes] = []
        self._used, self._stored, self._sizes = array("d"), array("d"), array("q")

    def __repr__(self) -> str:
        return f"<Holdings [{len(self)} blobs, {self.bytes} bytes]>"

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, records: Mapping[Digest, UseRecord]) -> None:
        """Have these too."""
        for digest, record in records.items():
            self._digests.append(bytes.fromhex(digest.hex))
            self._used.append(record.used)
            self._stored.append(record.stored)
            self._sizes.append(record.size)
            self.bytes += record.size

    def digest(self, place: int) -> Digest:
        """Which blob it is."""
        raw = self._digests[place]
        return Digest("sha256" if len(raw) == 32 else "sha512", raw.hex())

    def record(self, place: int) -> UseRecord:
        """What is known of it."""
        return UseRecord(self._used[place], self._stored[place], self._sizes[place])

    def among(self, wanted: Collection[Digest]) -> set[Digest]:
        """Those of these that are held."""
        raw = {bytes.fromhex(digest.hex): digest for digest in wanted}
        return {raw[one] for one in self._digests if one in raw}

    def used(self, place: int) -> float:
        """When it was used last."""
        return self._used[place]

    def used_before(self, moment: float) -> Iterator[int]:
        """The places of what was last used before then."""
        return (place for place, used in enumerate(self._used) if used < moment)

    def longest_unused(self, places: Iterable[int]) -> Iterator[int]:
        """These places, by their last use; the older object first where that is the same.

        Sorted in runs that are merged as they are asked for: one sort of a million would keep the interpreter, and
        the loop with it, for a second.
        """
        used, stored = self._used, self._stored

        def age(place: int) -> tuple[float, float]:
            return used[place], stored[place]

        left = iter(places)
        runs: list[list[int]] = []
        while run := sorted(islice(left, RUN), key=age):
            runs.append(run)
        return merge(*runs, key=age)


def due(
    holdings: Holdings, terms: Terms, spared: Container[Digest], *, now: float, most: int = MOST
) -> list[Due]:
    """What is due, longest unused first."""
    overdue = now - terms.ttl if terms.ttl is not None else -math.inf
    found = _taken(holdings, holdings.used_before(overdue), spared, Why.TTL, most=most)
    left = holdings.bytes - sum(one.record.size for one in found)
    if not terms.budget or left <= terms.budget:
        return found
    rest = (place for place in holdings.used_before(now) if holdings.used(place) >= overdue)
    over = left - terms.budget * KEPT
    return found + _taken(holdings, rest, spared, Why.BUDGET, most=most - len(found), size=over)


def _taken(
    holdings: Holdings,
    places: Iterable[int],
    spared: Container[Digest],
    why: Why,
    *,
    most: int,
    size: float = math.inf,
) -> list[Due]:
    """The longest unused of these places, until they have so many bytes."""
    found: list[Due] = []
    for place in holdings.longest_unused(places):
        if size <= 0 or len(found) >= most:
            break
        digest = holdings.digest(place)
        if digest not in spared:
            record = holdings.record(place)
            found.append(Due(digest, why, record))
            size -= record.size
    return found


def held_back(names: Mapping[Digest, Collection[Digest]], standing: Container[Digest]) -> set[Digest]:
    """The manifests among what is due that stay because of what they name.

    `names` are the due manifests, and what each names; `standing` is what stands of that without being due itself.
    """
    staying: set[Digest] = set()
    grew = True
    while grew:
        grew = False
        for manifest, named in names.items():
            if manifest not in staying and any(one in staying or one in standing for one in named):
                staying.add(manifest)
                grew = True
    return staying
