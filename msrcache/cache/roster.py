"""What one replica has seen of the others, and what follows: who is alive, and whose record is read next.

Pure: values and decisions, no clock and no store. All times are the observer's own, and monotonic; nobody's clock is
ever compared with another's. The rules stand in `heartbeat`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from msrcache.cache.record import ReplicaRecord

AT_ONCE: Final = 3
"""Records of newcomers that are read in one interval; of those that are known, one is."""
NEVER: Final = float("-inf")
LEAVING: Final = "draining"


@dataclass(frozen=True, slots=True)
class Watch:
    """What one way of looking has shown: a value, when it showed it first, and when last."""

    value: object
    first: float
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Another replica: its record as it was read last, and what reading and listing have shown of it.

    `changed`: when it was last noticed to have written. `suspect`: its stamp was old when it was first listed, by the
    store's own clock. `missed`: the last listing lacked it.
    """

    replica: str
    record: ReplicaRecord | None = None
    read: Watch | None = None
    listed: Watch | None = None
    changed: float = NEVER
    suspect: bool = False
    missed: bool = False


def seen_in_list(known: Known, stamp: object, now: float) -> Known:
    """After a listing that had it with this stamp (whatever differs after every write)."""
    listed, changed = _looked(known.listed, stamp, now)
    return replace(known, listed=listed, missed=False, changed=now if changed else known.changed)


def seen_by_reading(known: Known, record: ReplicaRecord | None, data: bytes, now: float) -> Known:
    """After its record was read; a record that cannot be understood shows life all the same when it changes."""
    read, changed = _looked(known.read, data, now)
    record = record or known.record
    return replace(known, record=record, read=read, changed=now if changed else known.changed)


def heard(known: Known, now: float) -> Known:
    """After it spoke to us."""
    return replace(known, changed=now)


def _looked(watch: Watch | None, value: object, now: float) -> tuple[Watch, bool]:
    """The watch after another look, and whether that look showed that something was written in between."""
    if watch is None or watch.value != value:
        return Watch(value, now, now), watch is not None
    return replace(watch, last=now), False


def silent(known: Known, patience: float) -> bool:
    """Whether it shows no life: its record was read again and again for so long, and was the same each time."""
    if known.suspect and known.changed == NEVER:
        return True
    return _quiet(known.read, known) >= patience


def doubtful(known: Known, patience: float) -> bool:
    """Whether a listing, which may lag, makes one doubt that a living one lives: reading decides."""
    return not silent(known, patience) and (known.missed or _quiet(known.listed, known) >= patience)


def _quiet(watch: Watch | None, known: Known) -> float:
    return 0.0 if watch is None else watch.last - max(watch.first, known.changed)


def due(fleet: Iterable[Known], patience: float, *, rested: float = NEVER) -> Sequence[str]:
    """Whose records are read in this interval.

    Newcomers first, a few at once; else one: of those in doubt, else of the living, whoever was looked at longest ago,
    unless that was after `rested`. The silent are not read again until a listing shows that they have written.
    """
    fleet = list(fleet)
    unread = sorted(known.replica for known in fleet if known.read is None)
    if unread:
        return unread[:AT_ONCE]
    living = [known for known in fleet if not silent(known, patience)]
    doubted = [known for known in living if doubtful(known, patience)]
    waiting = doubted or [known for known in living if rested == NEVER or _looked_at(known) <= rested]
    waiting.sort(key=lambda known: (_looked_at(known), known.replica))
    return [known.replica for known in waiting[:1]]


def _looked_at(known: Known) -> float:
    return NEVER if known.read is None else known.read.last


def last_life(known: Known) -> float:
    """When it was last noticed to live: at the latest when its record was first read."""
    return max(known.changed, NEVER if known.read is None else known.read.first)


def can_be_asked(known: Known, patience: float) -> bool:
    """Whether it lives, stays, and says where its peer port is."""
    record = known.record
    if record is None or not record.address or record.state == LEAVING:
        return False
    return not silent(known, patience)
