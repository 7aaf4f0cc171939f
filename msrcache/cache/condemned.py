"""What is condemned, as one replica knows it: what it serves of that, it rescues, and sends no client there.

Rules (protocols, section 5):
1. Every `interval` the marks in the store are listed; between two listings nothing is asked.
2. Whatever is served here and has a mark is rescued at once, beside the pull: its mark is removed, then the uses are
   written down. What could not be is tried again with the next listing.
3. A blob that has a mark is streamed, not redirected: what is open outlives its deletion, a URL does not. The janitor
   deletes only after a URL that was given before the mark was known here has ended. So it stays for one interval more
   after the rescue, because the janitor may have looked at the mark just before; and where the marks could not be
   listed for STALE intervals, everything is streamed.
4. A mark that has gone may mean that the blob has: what was believed of it ends.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from msrcache.cache.layout import condemned_key
from msrcache.cache.ledger import marks, removed
from msrcache.oci.digest import Digest
from msrcache.storage.errors import StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

STALE: Final = 3
"""Intervals after which a listing tells nothing any more."""

log = get_logger(__name__)


class Condemned:
    """The marks that this replica knows, and its rescues."""

    def __init__(
        self,
        store: Store,
        *,
        interval: float,
        flush: Callable[[], Awaitable[object]],
        forget: Callable[[Digest], None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        """`flush` writes the uses down, `forget` ends what is believed of a blob."""
        self._store = store
        self._interval = interval
        self._flush = flush
        self._forget = forget
        self._rescued = metrics.rescued_total.labels("replica")
        self._clock = clock
        self._marks: set[Digest] = set()
        self._used: set[Digest] = set()
        self._settling: dict[Digest, float] = {}
        self._listed = clock.monotonic()
        self._wake = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Condemned [{len(self._marks)} marks, {len(self._used)} to be rescued]>"

    def may_go(self, digest: Digest) -> bool:
        """Whether the blob may be deleted before a URL of it ends."""
        if digest in self._marks or digest in self._settling:
            return True
        return self._clock.monotonic() - self._listed > STALE * self._interval

    def used(self, digest: Digest) -> None:
        """It was just served here, or is being brought in."""
        if digest in self._marks and digest not in self._used:
            self._used.add(digest)
            self._wake.set()

    async def run(self) -> None:
        """List and rescue until it is cancelled."""
        while True:
            await self.refresh()
            until = self._clock.monotonic() + self._interval
            while (left := until - self._clock.monotonic()) > 0:
                try:
                    async with asyncio.timeout(left):
                        await self._wake.wait()
                except TimeoutError:
                    break
                self._wake.clear()
                await self.rescue()

    async def refresh(self) -> None:
        """List the marks now. Never raises StorageError."""
        asked = self._clock.monotonic()
        try:
            found = set(await marks(self._store))
        except StorageError as error:
            log.debug("marks not listed", error=str(error))
            return
        settled = {digest for digest, since in self._settling.items() if asked - since >= self._interval}
        for digest in (self._marks - found) | settled:
            self._forget(digest)
        for digest in settled:
            del self._settling[digest]
        self._marks, self._listed = found, asked
        self._used &= found
        await self.rescue()

    async def rescue(self) -> None:
        """Remove the marks of what was used. Never raises StorageError."""
        saved = list(self._used)
        if not saved:
            return
        try:
            await removed(self._store, [condemned_key(digest) for digest in saved])
        except StorageError as error:
            log.warning("condemned blobs not rescued yet", blobs=len(saved), error=str(error))
            return
        now = self._clock.monotonic()
        for digest in saved:
            self._used.discard(digest)
            self._marks.discard(digest)
            self._settling[digest] = now
        self._rescued.inc(len(saved))
        await self._flush()
