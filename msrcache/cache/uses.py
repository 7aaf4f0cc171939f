"""Uses: which blobs and manifests this replica has served, and writing them down for whoever decides what expires.

Rules:
1. Noting a use costs no request: it is kept in memory, at most LIMIT digests; beyond that the ones noted first are
   lost and counted. A lost use costs one more pull at worst.
2. Every `interval`, and when the process leaves, what was noted is written as one journal under a key of its own. No
   journal is ever written twice, so whoever has read one may remove it.
3. A journal that could not be written is tried again with the next, under another key: the store may have taken it.
"""

import asyncio
from collections.abc import Callable

from msrcache.cache.journal import journal_text
from msrcache.cache.layout import journal_key
from msrcache.oci.digest import Digest
from msrcache.storage.errors import LeftAlone, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

LIMIT = 200_000
"""Digests of one interval."""

log = get_logger(__name__)


class Uses:
    """What was used since it was last written down."""

    def __init__(self, *, limit: int = LIMIT) -> None:
        self.lost = 0
        self.wanted: Callable[[Digest], None] | None = None
        """Told of every use, besides."""
        self._limit = limit
        self._noted: dict[Digest, None] = {}

    def __repr__(self) -> str:
        return f"<Uses [{len(self._noted)} noted, {self.lost} lost]>"

    def __len__(self) -> int:
        return len(self._noted)

    def note(self, digest: Digest) -> None:
        """It was just served, or brought in to be."""
        self._noted[digest] = None
        if len(self._noted) > self._limit:
            self._lose_first()
        if self.wanted is not None:
            self.wanted(digest)

    def taken(self) -> list[Digest]:
        """What was noted, each once; it is noted no more."""
        noted, self._noted = list(self._noted), {}
        return noted

    def returned(self, digests: list[Digest]) -> None:
        """They could not be written: noted again, as the ones noted first."""
        later, self._noted = self._noted, dict.fromkeys(digests)
        self._noted.update(later)
        while len(self._noted) > self._limit:
            self._lose_first()

    def _lose_first(self) -> None:
        del self._noted[next(iter(self._noted))]
        self.lost += 1


class Journal:
    """Writes the uses of one replica down."""

    def __init__(self, uses: Uses, store: Store, *, replica: str, interval: float, metrics: Metrics) -> None:
        """`interval` in seconds."""
        self._uses = uses
        self._store = store
        self._replica = replica
        self._interval = interval
        self._metrics = metrics
        self._number = 0
        self._turn = asyncio.Lock()
        self._lost = 0

    def __repr__(self) -> str:
        return f"<Journal {self._replica} {self._uses!r}>"

    async def run(self) -> None:
        """Write every interval, until it is cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            await self.flush()

    async def flush(self) -> bool:
        """Write now what was noted; whether nothing is left to be written. Never raises StorageError."""
        async with self._turn:
            self._count_lost()
            digests = self._uses.taken()
            if not digests:
                return True
            written = False
            try:
                written = await self._write(digests)
            finally:
                if not written:
                    self._uses.returned(digests)
            return written

    def _count_lost(self) -> None:
        self._metrics.uses_lost_total.inc(self._uses.lost - self._lost)
        self._lost = self._uses.lost

    async def _write(self, digests: list[Digest]) -> bool:
        self._number += 1
        data = await asyncio.to_thread(journal_text, digests)
        try:
            await self._store.put(journal_key(self._replica, self._number), data)
        except StorageError as error:
            self._metrics.journals_total.labels("failed").inc()
            tell = log.debug if isinstance(error, LeftAlone) else log.warning
            tell("uses not written down, tried again", uses=len(digests), error=str(error))
            return False
        self._metrics.journals_total.labels("written").inc()
        return True
