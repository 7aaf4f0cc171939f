"""The fills under way in this process: one a digest, bounded in number, with a fair queue.

A fill has its place until all its bytes are here; storing them goes on behind it (`backlog`).
Decides nothing about rights: whoever joins has asked its own question first (pullthrough).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from msrcache.cache.fill import Fill
from msrcache.cache.kitchen import Kitchen
from msrcache.oci.digest import Digest
from msrcache.oci.pulls import BlobPull
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.trail import TRAIL

PUBLISHED_WITHIN = 10.0
"""Seconds for which leaving waits for blobs that are all here and on their way into the store."""
BROKEN = "a fill was broken by an error of this program"

log = get_logger(__name__)


class Fills:
    """Opens fills, finds those under way, stops those that nobody wants."""

    def __init__(self, kitchen: Kitchen) -> None:
        self._kitchen = kitchen
        self._under_way: dict[Digest, Fill] = {}
        self._tasks: dict[Fill, asyncio.Task[None]] = {}
        self.ended = 0
        self._places = asyncio.Semaphore(kitchen.settings.concurrency)

    def __repr__(self) -> str:
        readers = sum(fill.holders for fill in self._under_way.values())
        return f"<Fills [{len(self._under_way)} fills, {readers} readers]>"

    def find(self, digest: Digest) -> Fill | None:
        """The fill of this digest that is under way."""
        fill = self._under_way.get(digest)
        return None if fill is None or fill.closed else fill

    def open(self, pull: BlobPull, *, alone: bool = False) -> Fill:
        """A new fill with this pull's repository and credential; there must be none under way. ``alone``: as Fill."""
        fill = Fill(pull, self._kitchen, alone=alone)
        task = asyncio.create_task(self._run(fill), name=f"fill {pull.digest}")
        self._under_way[fill.digest] = fill
        self._tasks[fill] = task
        task.add_done_callback(lambda done: self._ended(fill, done))
        return fill

    def dismiss(self, fill: Fill) -> None:
        """Somebody stopped waiting for its turn: a queued fill that nobody waits for is dropped."""
        if fill.state == "queued" and not fill.holders:
            self._forget(fill)

    def rows(self) -> Sequence[Mapping[str, object]]:
        """What /debug/fills shows, oldest first."""
        now = self._kitchen.clock.monotonic()
        return [
            {
                "digest": str(fill.digest),
                "repository": str(fill.pull.repository),
                "state": fill.state,
                "source": fill.source,
                "seconds": round(now - fill.started, 3),
                "size": fill.tail.size if fill.tail else None,
                "written": fill.tail.written if fill.tail else 0,
                "readers": fill.holders,
            }
            for fill in self._under_way.values()
        ]

    async def settled(self) -> None:
        """Returns when no fill is under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    async def close(self) -> None:
        """Stop what is under way; what is spooled stays for the next start.

        A fill that has all its bytes is let finish storing them, for a while: they were paid for.
        """
        almost = {t for fill, t in self._tasks.items() if fill.storing and fill.tail and fill.tail.verified}
        if almost:
            await asyncio.wait(almost, timeout=PUBLISHED_WITHIN)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, fill: Fill) -> None:
        TRAIL.set(fill.trail)  # it outlives the request that opened it
        metrics = self._kitchen.metrics
        metrics.fills_queued.inc()
        try:
            await self._places.acquire()
        except asyncio.CancelledError as error:
            fill.withdrawn(error)
            raise
        finally:
            metrics.fills_queued.dec()
        metrics.fills_active.inc()
        release = _once(self._places.release)

        def poured() -> None:
            release()
            self._kitchen.backlog.enter(fill)

        try:
            async with asyncio.timeout(None) as stop:
                self._watch(fill, stop, since=0)
                await fill.run(poured=poured)
        except TimeoutError:
            pass  # abandoned: the fill has told it as "left"
        finally:
            fill.state = "ended"
            metrics.fills_active.dec()
            self._kitchen.backlog.leave(fill)
            release()

    def _watch(self, fill: Fill, stop: asyncio.Timeout, *, since: int) -> None:
        """Look every ``abandon`` seconds: nobody there and not a byte since the last look means stop."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            written = fill.tail.written if fill.tail else 0
            if fill.state == "ended" or stop.expired():
                return
            if not fill.holders and written == since and fill.state != "publishing":
                stop.reschedule(loop.time())
            else:
                self._watch(fill, stop, since=written)

        loop.call_later(self._kitchen.settings.abandon, look)

    def _forget(self, fill: Fill) -> None:
        if self._under_way.get(fill.digest) is fill:
            del self._under_way[fill.digest]
            self._tasks[fill].cancel()

    def _ended(self, fill: Fill, task: asyncio.Task[None]) -> None:
        if self._under_way.get(fill.digest) is fill:
            del self._under_way[fill.digest]
        del self._tasks[fill]
        self.ended += 1
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error(BROKEN, digest=str(fill.digest), exc_info=error)
        if fill.state != "ended":  # cancelled before its first step: nobody has told those who wait
            fill.withdrawn(asyncio.CancelledError())


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """Calls it the first time only."""
    left = [call]

    def first() -> None:
        if left:
            left.pop()()

    return first
