"""The hot tier: stored blobs of a remote store, kept in a bounded local folder too and served from there as files.

States: well -> closed to new blobs (its disk is full or read-only) | away (its disk failed otherwise) -> well; tried
again every RECHECK seconds, beside the pulls. Of a blob in it: unverified (found after a start) -> verified -> gone.

Rules:
1. It saves requests and bytes, and is never needed: whatever fails here is counted, told by degraded(), and the pull
   goes on without it. While it is away nothing waits for its disk.
2. No byte is served of a file that was not hashed since this process first saw it. Hashing waits for nobody and
   nobody for it: meanwhile hits come from the store.
3. A blob is admitted at its second use, or at once (`eager`): from the stream of a hit that is read whole, or from the
   spool of a fill that was stored. All that is kept or on its way in is at most `size` bytes; what was unused for
   longest leaves first (eviction).
4. No disk call runs on the loop; processes share no file (localfolder).
"""

import asyncio
import contextlib
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msrcache.cache.eviction import evicted
from msrcache.cache.incoming import Arrival, Incoming, Queue
from msrcache.cache.localfolder import LocalFolder, Opened, Stamp
from msrcache.oci.digest import Digest
from msrcache.oci.registry import Chunk
from msrcache.storage.disk import Disk
from msrcache.storage.driver import SpoolFile
from msrcache.storage.errors import NoSpace, NotFound, ReadOnly, StorageError
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

RECHECK = 60.0
"""Seconds after which a disk that failed is tried again."""
PATIENCE = 2.0
"""Seconds that a pull waits for the disk to open a file."""
CLAIMED_WITHIN = 10.0
"""Seconds that the start waits for the disk."""
SWEPT_AFTER = 3600.0
"""Seconds after the start until what other processes left for good is removed."""
ARRIVING = 64
"""Blobs on their way in at once."""
QUEUED = 64 << 20
"""Bytes that all of them may have in memory."""
USES = 50_000
"""Blobs whose uses are counted."""
THREADS = 8

log = get_logger(__name__)


@dataclass(slots=True)
class Kept:
    """A blob in the tier; no stamp: not verified yet."""

    size: int
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with the disk since when (monotonic seconds); `closed`: only to new blobs."""

    since: float
    words: str
    closed: bool


class LocalTier:
    """Keeps and serves blobs."""

    def __init__(self, path: Path, *, size: int, eager: bool, metrics: Metrics, clock: Clock) -> None:
        """`size` in bytes; `eager`: admitted at the first use."""
        self.used = 0
        """Bytes that are kept or on their way in."""
        self._size = size
        self._enough = 1 if eager else 2
        self._clock = clock
        self._metrics = metrics
        self._folder = LocalFolder(path)
        self._disk = Disk("cache.local", threads=THREADS)
        self._queue = Queue(QUEUED)
        self._kept: OrderedDict[Digest, Kept] = OrderedDict()
        self._arriving: set[Digest] = set()
        self._uses: OrderedDict[Digest, int] = OrderedDict()
        self._trouble: Trouble | None = None
        self._verifying: set[Digest] = set()
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._rechecking = False
        self._closed = False
        metrics.local_bytes.set_function(lambda: self.used)

    def __repr__(self) -> str:
        return f"<LocalTier {self.used}/{self._size} bytes [{len(self._kept)} blobs] {self.degraded() or 'well'}>"

    @property
    def folder(self) -> Path:
        """The subfolder that is ours; the whole while none is."""
        return self._folder.own or self._folder.path

    def degraded(self) -> str | None:
        """What is wrong with its disk, in words; None when all is well."""
        return self._trouble.words if self._trouble is not None else None

    async def start(self) -> None:
        """Take a part of the folder, and stock of it. Never raises: a tier that cannot be had is away."""
        await self._claim()
        self._later(self._sweep())

    def note_use(self, digest: Digest) -> None:
        """A pull of the blob that was not served from here."""
        self._uses[digest] = self._uses.get(digest, 0) + 1
        self._uses.move_to_end(digest)
        if len(self._uses) > USES:
            self._uses.popitem(last=False)

    async def open(self, digest: Digest, stack: AsyncExitStack) -> Opened | None:
        """The verified file of a blob, open as long as the stack; None where there is none just now."""
        kept = self._kept.get(digest)
        if kept is None or not self._well():
            return None
        if kept.stamp is None:
            self._verify(digest, kept)
            return None
        opened = await self._opened(digest)
        if opened is None:
            return None
        stack.callback(self._disk.submit, opened.close)
        if kept.stamp != opened.stamp:  # somebody changed the file
            kept.stamp = None
            return None
        if digest in self._kept:
            self._kept.move_to_end(digest)
        return opened

    def teed(
        self, digest: Digest, size: int, chunks: AsyncGenerator[Chunk, None]
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks of a whole blob from the store, kept on their way where the blob is to be admitted."""
        return self._teed(digest, size, chunks) if self._wants(digest) else chunks

    async def _teed(
        self, digest: Digest, size: int, chunks: AsyncGenerator[Chunk, None]
    ) -> AsyncGenerator[Chunk, None]:
        incoming: Incoming | None = None
        # Only now that its reader is there: a body that is never read leaves nothing behind.
        if len(self._arriving) < ARRIVING and self._admits(digest, size):
            incoming = Incoming(digest, size, self._disk, self._folder, self._queue, self._landed)
            self._later(incoming.run())
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if incoming is not None:
                        assert isinstance(chunk, bytes), "a stream has no files"
                        incoming.offer(chunk)
                    yield chunk
            if incoming is not None:
                incoming.complete()
        finally:
            if incoming is not None:
                incoming.leave()

    async def take(self, digest: Digest, source: SpoolFile, size: int) -> None:
        """A blob that was just filled and stored: its spool file is linked or copied. Never raises StorageError."""
        if not self._admits(digest, size):
            return
        fd = os.dup(source.fd)  # the fill may end while a thread still copies

        def adopt() -> Stamp:
            try:
                return self._folder.adopt(digest, fd, source.path, size)
            finally:
                os.close(fd)

        arrival = Arrival(digest, size, "left")
        try:
            stamp = await self._disk.run(
                str(digest), adopt, writing=True, dispose=lambda _: self._removed(digest)
            )
            arrival = Arrival(digest, size, "kept", stamp)
        except StorageError as failure:
            arrival = Arrival(digest, size, "failed", failure=failure)
        finally:
            self._landed(arrival)

    def lost(self, digest: Digest) -> None:
        """Reading its file failed: it is not served again."""
        self._metrics.local_failures_total.labels("read").inc()
        self._drop(digest)

    async def close(self) -> None:
        """Stop what is under way; what is kept stays for the next start."""
        self._closed = True
        self._folder.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._disk.submit(self._folder.release)
        await self._disk.close()

    # What comes in and leaves.

    def _wants(self, digest: Digest) -> bool:
        """Whether the blob has been used often enough, and is not here yet."""
        known = digest in self._kept or digest in self._arriving
        return not known and self._uses.get(digest, 0) >= self._enough

    def _admits(self, digest: Digest, size: int) -> bool:
        """Whether the blob is to come in; its room is then reserved."""
        if not self._wants(digest) or not self._well(writing=True):
            return False
        if not self._made_room(size):
            self._metrics.local_admissions_total.labels("large").inc()
            return False
        self._arriving.add(digest)
        self.used += size
        return True

    def _made_room(self, size: int) -> bool:
        order = ((digest, kept.size) for digest, kept in self._kept.items())
        leaving = evicted(order, size, used=self.used, limit=self._size)
        for digest in leaving or ():
            self._metrics.local_evictions_total.inc()
            self._drop(digest)
        return leaving is not None

    def _landed(self, arrival: Arrival) -> None:
        digest, size = arrival.digest, arrival.size
        self._arriving.discard(digest)
        self._metrics.local_admissions_total.labels(arrival.result).inc()
        if arrival.stamp is not None:
            self._kept[digest] = Kept(size, arrival.stamp)
            self._uses.pop(digest, None)
        else:
            self.used -= size
        if arrival.result == "corrupt":
            log.error(
                "the store sent wrong bytes for a blob: not kept locally", digest=str(digest), bytes=size
            )
        if arrival.failure is not None:
            self._fail("write", arrival.failure)

    def _drop(self, digest: Digest) -> None:
        """Forget a blob, and remove its file when the disk comes to it."""
        if (kept := self._kept.pop(digest, None)) is not None:
            self.used -= kept.size
            self._disk.submit(partial(self._removed, digest))

    def _removed(self, digest: Digest) -> None:
        with contextlib.suppress(OSError):  # what stays is found after the next start
            self._folder.remove(digest)

    # What was found is hashed.

    def _verify(self, digest: Digest, kept: Kept) -> None:
        if digest not in self._verifying:
            self._verifying.add(digest)
            self._later(self._verified(digest, kept))

    async def _verified(self, digest: Digest, kept: Kept) -> None:
        try:
            async with self._one_at_a_time:
                stamp = await self._disk.run(str(digest), partial(self._folder.verified, digest))
        except NotFound:
            self._drop(digest)
        except StorageError as error:
            self._fail("verify", error)
        else:
            kept.stamp = stamp
            if stamp is None and self._kept.get(digest) is kept:
                self._metrics.local_failures_total.labels("corrupt").inc()
                log.error("a blob in the local folder is corrupt, dropped", digest=str(digest))
                self._drop(digest)
        finally:
            self._verifying.discard(digest)

    # Its disk.

    async def _opened(self, digest: Digest) -> Opened | None:
        try:
            async with asyncio.timeout(PATIENCE):
                opening = partial(self._folder.open, digest)
                return await self._disk.run(str(digest), opening, dispose=Opened.close)
        except NotFound:
            self._drop(digest)
        except (TimeoutError, StorageError) as error:
            self._fail("open", error)
        return None

    async def _claim(self) -> bool:
        try:
            async with asyncio.timeout(CLAIMED_WITHIN):
                found = await self._disk.run("", self._folder.claim, writing=True)
        except (TimeoutError, StorageError) as error:
            self._fail("claim", error)
            return False
        self.used -= sum(kept.size for kept in self._kept.values())
        self._kept = OrderedDict((one.digest, Kept(one.size)) for one in found)
        self.used += sum(one.size for one in found)
        self._made_room(0)  # the operator may have made it smaller
        return True

    def _well(self, *, writing: bool = False) -> bool:
        """Whether the disk may be used; where it failed a while ago, it is tried again beside the pulls."""
        trouble = self._trouble
        if trouble is None or self._closed:
            return not self._closed
        if self._clock.monotonic() - trouble.since >= RECHECK and not self._rechecking:
            self._rechecking = True
            self._later(self._recheck())
        return trouble.closed and not writing

    async def _recheck(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                same = await self._disk.run("", self._folder.ours, writing=True)
            if same or await self._claim():
                self._trouble = None
                log.warning("the local folder can be used again", path=str(self._folder.path))
        except (TimeoutError, StorageError) as error:
            self._fail("recheck", error)
        finally:
            self._rechecking = False

    def _fail(self, operation: str, error: TimeoutError | StorageError) -> None:
        self._metrics.local_failures_total.labels(operation).inc()
        said = error.message if isinstance(error, StorageError) else "the disk does not answer"
        closed = isinstance(error, NoSpace | ReadOnly)
        then = "nothing new is kept there" if closed else "hits are streamed from the store"
        words = f"{self._folder.path}: {said}: {then}, tried again every {RECHECK:g} s"
        if self._trouble is None:
            log.error("the local folder cannot be used", operation=operation, reason=words)
        self._trouble = Trouble(self._clock.monotonic(), words, closed)

    async def _sweep(self) -> None:
        await asyncio.sleep(SWEPT_AFTER)
        with contextlib.suppress(StorageError):
            await self._disk.run("", self._folder.sweep, writing=True)

    def _later(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
