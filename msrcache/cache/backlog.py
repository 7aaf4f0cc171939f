"""The backlog: blobs that are all here and verified, on their way into a store that is slower than the upstream.

The spool absorbs them, within bounds; then a blob goes without being stored, so that pulls go on as fast as ever.

Rules:
1. A fill that has all its bytes gives its place to the next one (`fills`) and stands in the backlog until it is stored.
   So at most twice `limit` writers are open, half of them of fills that still get bytes.
2. At most `limit` stand here. One more, and the one that has stood here longest is given up.
3. A fill that finds no room in the spool has those given up that have stood here longest and that nobody reads, until
   their bytes are enough; it waits for these at most PATIENCE. Where all of them would not do, none is given up, and
   the pull is passed through.
4. What is given up is counted and not linked; whoever reads it has its bytes, and the next pull fetches it again.

Not here: how a fill lets go of its store.
"""

import asyncio
from typing import Final, Protocol

from msrcache.cache.spool import Spool, SpooledFile, SpoolFull
from msrcache.telemetry.metrics import Metrics

PATIENCE: Final = 2.0
"""Seconds that a fill waits for the room of those that were given up for it."""


class Lagging(Protocol):
    """A fill whose bytes are all here."""

    holders: int

    @property
    def reserved(self) -> int:
        """The bytes of the spool that it holds."""
        ...

    def give_up(self) -> None:
        """Store it no more. Its file goes as soon as the store has let go of it."""
        ...


class Backlog:
    """Those that stand behind, the longest first."""

    def __init__(self, spool: Spool, *, limit: int, metrics: Metrics) -> None:
        self._spool = spool
        self._limit = limit
        self._metrics = metrics
        self._behind: dict[Lagging, asyncio.Event] = {}
        self._given_up: set[Lagging] = set()

    def __repr__(self) -> str:
        return f"<Backlog [{len(self._behind)} behind, {len(self._given_up)} given up]>"

    def enter(self, fill: Lagging) -> None:
        """All its bytes are here, and it is being stored."""
        self._behind[fill] = asyncio.Event()
        self._metrics.fills_behind.inc()
        standing = [one for one in self._behind if one not in self._given_up]
        if len(standing) > self._limit:
            self._give_up(standing[0])

    def leave(self, fill: Lagging) -> None:
        """It is stored, or not; its file is gone unless somebody reads it."""
        gone = self._behind.pop(fill, None)
        if gone is not None:
            gone.set()
            self._given_up.discard(fill)
            self._metrics.fills_behind.dec()

    async def reserve(self, file: SpooledFile, size: int) -> None:
        """Room in the spool for a fill, of those behind if need be. Raises SpoolFull."""
        try:
            await self._spool.reserve(file, size)
        except SpoolFull as full:
            gone = self._make_room(full.missing)
            if not gone:
                raise
            await asyncio.wait(gone, timeout=PATIENCE)
            for task in gone:
                task.cancel()
            await self._spool.reserve(file, size)

    def _make_room(self, missing: int) -> "list[asyncio.Task[bool]]":
        """Give up as many as are needed; what tells that they are gone. Nothing where all would not do."""
        chosen: list[Lagging] = []
        for fill in self._behind:
            if missing <= 0:
                break
            if not fill.holders and fill not in self._given_up:
                chosen.append(fill)
                missing -= fill.reserved
        if missing > 0:
            return []
        for fill in chosen:
            self._give_up(fill)
        return [asyncio.create_task(self._behind[fill].wait()) for fill in chosen]

    def _give_up(self, fill: Lagging) -> None:
        self._given_up.add(fill)
        fill.give_up()
