"""What `msrcache status` says: the fleet as a table, and below it in words whatever deserves a look.

Pure: from the mapping that /debug/fleet shows to lines of text.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msrcache.cache.fleetview import SILENT
from msrcache.cache.record import ReplicaRecord, record_of

COLUMNS: Final = (
    "replica",
    "state",
    "version",
    "up",
    "pulls",
    "hits",
    "sent",
    "fetched",
    "fills",
    "lag",
    "peers",
)
LEFT: Final = 3
"""Columns of text; the others are numbers."""
UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, slots=True)
class Row:
    """A replica, how it is seen (self, alive, silent), and for how many seconds it has been silent at least."""

    record: ReplicaRecord
    life: str
    silence: float


def rows_of(told: Mapping[str, object]) -> Sequence[Row]:
    """The replicas of a view, as far as it is understood; it may be a later version's."""
    listed = told.get("replicas")
    rows = []
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and isinstance(one.get("replica"), str):
            life = str(one.get("life", "alive"))
            rows.append(Row(record_of(one["replica"], one), life, _number(one, "silence")))
    return rows


def trouble(rows: Sequence[Row]) -> bool:
    """Whether something deserves a look."""
    return not rows or any(True for _ in _remarks(rows))


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table and the words below it."""
    if not rows:
        yield "no replica shows itself in this store: none runs, or cache.heartbeat is 0s"
        return
    cells = [COLUMNS, *(_cells(row, rows) for row in rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(COLUMNS))]
    for line in cells:
        padded = (
            cell.ljust(width) if number < LEFT else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield "  ".join(padded).rstrip()
    yield ""
    yield _summary(rows)
    yield from _remarks(rows)
    yield from _fills(rows)


def _cells(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    record, figures = row.record, row.record.figures
    pulls = figures.get("pulls", 0)
    lag = figures.get("lag")
    return (
        record.replica,
        _state(row),
        record.version or "?",
        span(record.uptime),
        f"{pulls:,.0f}",
        f"{figures.get('hits', 0) / pulls:.0%}" if pulls else "-",
        size(figures.get("bytes", 0) + figures.get("redirected_bytes", 0)),
        size(figures.get("upstream_bytes", 0)),
        f"{figures.get('fills_active', 0):.0f}",
        "-" if lag is None else f"{lag * 1000:.0f} ms",
        _peers(row, rows),
    )


def _state(row: Row) -> str:
    if row.life == SILENT:
        return SILENT
    return f"{row.record.state}, degraded" if row.record.degraded else row.record.state


def _peers(row: Row, rows: Sequence[Row]) -> str:
    """How many of the living others it reaches."""
    others = [one.record.replica for one in rows if one.life != SILENT and one is not row]
    if row.life == SILENT or not others:
        return "-"
    if not row.record.address:
        return "none"
    return f"{len(set(others) - row.record.unreached.keys())} of {len(others)}"


def _summary(rows: Sequence[Row]) -> str:
    quiet = sum(row.life == SILENT for row in rows)
    total = {name: sum(row.record.figures.get(name, 0) for row in rows) for name in ("pulls", "hits")}
    ratio = (
        f", {total['hits'] / total['pulls']:.0%} of {total['pulls']:,.0f} pulls were hits"
        if total["pulls"]
        else ""
    )
    return f"{len(rows) - quiet} alive, {quiet} silent{ratio}"


def _remarks(rows: Sequence[Row]) -> Iterator[str]:
    alive = [row for row in rows if row.life != SILENT]
    for row in rows:
        if row.life == SILENT:
            yield (
                f"{row.record.replica} is silent{_for(row.silence)}: its heartbeat stopped without a goodbye."
                " It was killed, is paused, or cannot write to the store"
            )
    for row in alive:
        for part, reason in row.record.degraded.items():
            yield f"{row.record.replica}: {part}: {reason}"
        violations = row.record.figures.get("violations", 0)
        if violations:
            yield f"{row.record.replica} missed {violations:.0f} times what another had just stored: {_BROKEN}"
    yield from _unreached(alive)
    versions = sorted({row.record.version for row in alive})
    if len(versions) > 1:
        yield f"{len(versions)} versions run side by side: {', '.join(version or '?' for version in versions)}"


def _for(silence: float) -> str:
    return f" for {span(silence)} at least" if silence >= 1 else ""


_BROKEN: Final = "the store is not read-after-write consistent (msrcache check-storage tells more)"


def _unreached(alive: Sequence[Row]) -> Iterator[str]:
    names = {row.record.replica for row in alive}
    for row in alive:
        for other, reason in sorted(row.record.unreached.items()):
            if other in names:
                yield (
                    f"{row.record.replica} cannot reach {other}: {reason}. It polls the store instead of"
                    " following that one's fills: open the peer port (cache.peer.addr) between them"
                )
    mute = [row.record.replica for row in alive if not row.record.address]
    if mute and len(alive) > 1:
        yield f"without a peer port: {', '.join(mute)}. A peer port needs http.secret, the same on all replicas"


def _fills(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for fill in row.record.fills if row.life != SILENT else ():
            written, whole = _number(fill, "written"), _number(fill, "size")
            done = f"{written / whole:.0%} of {size(whole)}" if whole else size(written)
            readers = f"{_number(fill, 'readers'):.0f} readers"
            yield (
                f"{row.record.replica} fills {fill.get('repository')} {str(fill.get('digest'))[:19]}:"
                f" {done}, {readers}, {span(_number(fill, 'seconds'))}"
            )


def _number(told: Mapping[str, object], name: str) -> float:
    value = told.get(name)
    return value if isinstance(value, int | float) else 0.0


def span(seconds: float) -> str:
    """A duration in two units at most: 42s, 3m12s, 5h04m, 12d03h."""
    whole = int(seconds)
    for large, small, unit, part in ((86400, 3600, "d", "h"), (3600, 60, "h", "m"), (60, 1, "m", "s")):
        if whole >= large:
            return f"{whole // large}{unit}{whole % large // small:02}{part}"
    return f"{whole}s"


def size(count: float) -> str:
    """Bytes with three digits: 0 B, 12.3 GB."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {UNITS[unit]}"
