"""The fleet as one replica, or `msrcache status`, sees it: the mapping that /debug/fleet shows."""

from collections.abc import Iterable, Mapping
from typing import Final

from msrcache.cache.heartbeat import Heartbeat
from msrcache.cache.record import VERSION, ReplicaRecord
from msrcache.cache.roster import last_life

SELF: Final = "self"
ALIVE: Final = "alive"
SILENT: Final = "silent"


def view(fleet: Heartbeat, *, now: float) -> Mapping[str, object]:
    """What this replica knows of itself (just now) and of the others (as it read them last)."""
    rows = [row(fleet.compose(), SELF, seen=0.0)]
    for known, quiet in fleet.others():
        record = known.record or ReplicaRecord(replica=known.replica)
        seen = None if known.read is None else now - known.read.last
        silence = now - last_life(known) if quiet and known.read is not None else None
        rows.append(row(record, SILENT if quiet else ALIVE, seen=seen, silence=silence))
    return shown(rows, seen_by=fleet.replica, heartbeat=fleet.interval)


def row(
    record: ReplicaRecord, life: str, *, seen: float | None, silence: float | None = None
) -> Mapping[str, object]:
    """One replica; seconds since its record was read, and for which it has been silent at least; None: not known."""
    ages = {"seen": seen, "silence": silence}
    return {
        **record.told(),
        "life": life,
        **{name: None if age is None else round(age, 1) for name, age in ages.items()},
    }


def shown(rows: Iterable[Mapping[str, object]], *, seen_by: str, heartbeat: float) -> Mapping[str, object]:
    """The whole; `seen_by` is empty where no replica looked."""
    ordered = sorted(rows, key=lambda one: str(one["replica"]))
    return {"v": VERSION, "seen_by": seen_by, "heartbeat": heartbeat, "replicas": ordered}
