"""A fill: bringing one blob in. It belongs to no request.

States: queued -> opening -> filling -> publishing -> ended, with one of the endings below.

Rules:
1. Headers are known to readers as soon as the upstream's are (``opened``); bytes as soon as they are in the spool.
2. The opener's credential fetches. Its refusal (refused, absent) is nobody else's answer.
3. Complete means that the digest and the size are right. Whether the store took the blob is another question:
   a failed write is counted and costs the fleet one more pull, never this one.
4. An ending other than complete leaves nothing visible in the store. What came before an outage stays in the spool
   and is continued by the next fill of the digest; what had a wrong digest does not.
5. A fill that nobody reads for ``abandon`` and whose upstream gave nothing in that time is stopped.
6. A store slower than the upstream holds up no fill: once all bytes are here and verified, storing them goes on behind
   (`backlog`), and is given up where the room is needed.
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

from msrcache.cache.backlog import Backlog
from msrcache.cache.layout import blob_key
from msrcache.cache.lease import Leases
from msrcache.cache.links import Links
from msrcache.cache.local import LocalTier
from msrcache.cache.presence import Presence
from msrcache.cache.publish import NotVisible, publish
from msrcache.cache.pump import Pump, WriteFailed, finish
from msrcache.cache.spool import Spool, SpooledFile, SpoolFull
from msrcache.cache.tail import Spilled, Tail
from msrcache.oci.descriptor import Descriptor
from msrcache.oci.digest import Hasher
from msrcache.oci.errors import (
    ContentMismatch,
    Denied,
    RegistryError,
    Unauthorized,
    UpstreamUnavailable,
    is_refusal,
)
from msrcache.oci.pulls import BlobPull
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import Blob, Elsewhere, Registry
from msrcache.storage.driver import SpoolFile
from msrcache.storage.errors import LeftAlone, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics
from msrcache.telemetry.trail import Trail

log = get_logger(__name__)


class FillLeft(Exception):
    """The fill was stopped before its headers were known: open another."""


class Ending(StrEnum):
    """How a fill ended; the metric's label."""

    COMPLETE = "complete"
    REFUSED = "refused"
    ABSENT = "absent"
    FAILED = "failed"
    CUT = "cut"
    LEFT = "left"


def ending_of(error: BaseException | None) -> Ending:
    """The ending that an error makes (pure)."""
    match error:
        case None:
            return Ending.COMPLETE
        case Unauthorized() | Denied():
            return Ending.REFUSED
        case UpstreamUnavailable():
            return Ending.FAILED
        case asyncio.CancelledError():
            return Ending.LEFT
        case RegistryError() if is_refusal(error):
            return Ending.ABSENT
        case _:
            return Ending.CUT


def tail_end(error: BaseException, *, written: int, hasher: Hasher) -> BaseException:
    """What the readers of a fill that ended so are told (pure): go on by yourself, or be cut.

    A wrong digest or an upstream that is away would meet a reader of its own again; a full spool, the opener's
    ended credential or a fill that was stopped would not.
    """
    match error:
        case WriteFailed() | SpoolFull() | OSError() | Unauthorized() | Denied() | asyncio.CancelledError():
            return Spilled(written, hasher, error)
        case RegistryError():
            return error
        case _:
            return UpstreamUnavailable(f"the fill ended by an internal error: {type(error).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FillSettings:
    """Seconds, but for the counts."""

    concurrency: int = 64
    queue: float = 10.0
    abandon: float = 300.0
    early: bool = False
    verify_timeout: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kitchen:
    """What every fill needs."""

    upstream: Registry
    store: Store
    spool: Spool
    backlog: Backlog
    links: Links
    presence: Presence
    leases: Leases
    metrics: Metrics
    clock: Clock
    settings: FillSettings
    local: LocalTier | None = None


class Fill:
    """One blob on its way in."""

    def __init__(self, pull: BlobPull, kitchen: Kitchen) -> None:
        self.pull = pull
        self.digest = pull.digest
        self.state = "queued"
        self.ending: Ending | None = None
        self.tail: Tail | None = None
        self.file: SpooledFile | None = None
        self.started = kitchen.clock.monotonic()
        self.holders = 0
        self.closed = False
        self.trail = Trail()
        self._kitchen = kitchen
        self._hasher = Hasher(pull.digest.algorithm)
        self._error: BaseException | None = None
        self._begun = asyncio.Event()
        self._opened = asyncio.Event()
        self._publishing: asyncio.Task[None] | None = None
        self._given_up = False

    def __repr__(self) -> str:
        return f"<Fill {self.digest} {self.state} {self.tail!r} [{self.holders} holders]>"

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """As long as somebody holds it, a fill is not abandoned and its file stays open."""
        self.holders += 1
        try:
            yield
        finally:
            self.holders -= 1
            await self._let_go()

    async def begun(self) -> None:
        """Returns when it has left the queue: its turn has come, or it was dropped."""
        await self._begun.wait()

    async def opened(self) -> Tail:
        """The tail, once the upstream's headers are known. Raises what ended the fill before that."""
        await self._opened.wait()
        if self.tail is not None:
            return self.tail
        assert self._error is not None
        if isinstance(self._error, asyncio.CancelledError):
            raise FillLeft(f"the fill of {self.digest} was stopped")  # the waiter itself is not cancelled
        raise self._error.with_traceback(None)

    @property
    def descriptor(self) -> Descriptor:
        """What is being filled; only once opened."""
        assert self.tail is not None
        return Descriptor("application/octet-stream", self.digest, self.tail.size)

    @property
    def reserved(self) -> int:
        """As Lagging."""
        return self.file.reserved if self.file is not None else 0

    def give_up(self) -> None:
        """As Lagging."""
        if self._publishing is not None:
            self._given_up = True
            self._publishing.cancel()

    async def run(self, *, poured: Callable[[], None]) -> None:
        """Do it all. Raises only CancelledError; every other ending is told to the readers and counted.

        `poured` is called when all bytes are here and verified, and only the store is still at work.
        """
        error: BaseException | None = None
        self._begun.set()
        try:
            await self._spooled(poured)
        except asyncio.CancelledError as cancelled:
            error = cancelled
            raise
        except Exception as caught:  # noqa: BLE001  whatever it is, the readers must be told
            error = caught
        finally:
            self._finish(error)

    async def _spooled(self, poured: Callable[[], None]) -> None:
        self.file = file = await self._kitchen.spool.open(self.digest)
        try:
            async with self._kitchen.leases.arrive(self.digest, size=None) as arrival:
                await arrival.turn()
                await self._brought_in(file, poured)
        except BaseException as error:
            self._break(error)
            raise
        finally:
            file.written = self.tail.written if self.tail else 0
            file.keep = ending_of(self._error) in (Ending.FAILED, Ending.LEFT)
            self.closed = True  # from here on nobody may join: the file may be gone at the next await
            await self._let_go()

    async def _let_go(self) -> None:
        """The file goes with the last of the fill and its readers."""
        if self.closed and not self.holders and (file := self.file) is not None:
            self.file = None
            await self._kitchen.spool.release(file)

    async def _brought_in(self, file: SpooledFile, poured: Callable[[], None]) -> None:
        self.state = "opening"
        publishing: asyncio.Task[None] | None = None
        try:
            async with self._kitchen.upstream.blob(self._from(file.length)) as source:
                tail = await self._open(source, file)
                publishing = asyncio.create_task(self._stored(tail, file), name=f"publish {self.digest}")
                self._publishing = publishing
                await self._pour(source, tail, file)
            self.state = "publishing"
            poured()
            await publishing
        except BaseException as error:
            self._break(error)  # before the wait: the publisher is a reader of the tail
            if publishing is not None:
                await self._withdraw(publishing, error)
            raise

    async def _withdraw(self, publishing: "asyncio.Task[None]", error: BaseException) -> None:
        """Wait for the publisher whatever happens: it reads a descriptor that is about to be closed, and would
        store whatever file has that number next.
        """
        if isinstance(error, asyncio.CancelledError):
            publishing.cancel()
        await finish(publishing)
        if not publishing.cancelled():
            publishing.exception()

    def _from(self, length: int) -> BlobPull:
        return replace(self.pull, head=False, range=RangeRequest(length, None) if length else None)

    async def _open(self, source: Blob, file: SpooledFile) -> Tail:
        if source.span.start != file.length:
            raise OSError(errno.EIO, f"{source.span} came, what a dead process left ends at {file.length}")
        await self._kitchen.backlog.reserve(file, source.descriptor.size)
        self.tail = Tail(file.fd, source.descriptor.size, early=self._kitchen.settings.early)
        self.state = "filling"
        self._opened.set()
        return self.tail

    async def _pour(self, source: Blob, tail: Tail, file: SpooledFile) -> None:
        pump = Pump(self._kitchen.spool, tail, self._hasher)
        await pump.rehash(file.length)
        assert not isinstance(source.body, Elsewhere), "an upstream client follows redirects itself"
        await pump.run(source.body)
        self._hasher.verify(self.digest, tail.size)
        tail.verify()

    async def _stored(self, tail: Tail, file: SpooledFile) -> None:
        """Bring it into the store, or be given up: that ends no fill."""
        published = False
        try:
            published = await self._publish(tail, file)
            if published and (local := self._kitchen.local) is not None:
                await local.take(self.digest, SpoolFile(tail.fd, file.path), tail.size)
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            if not published:
                self._unstored("slow")
                log.warning("blob not stored: the store is slower than the upstream", digest=str(self.digest))

    async def _publish(self, tail: Tail, file: SpooledFile) -> bool:
        """Whether it is in the store, as every replica will find it."""
        kitchen = self._kitchen
        try:
            await publish(
                kitchen.store,
                blob_key(self.digest),
                tail,
                file.path,
                timeout=kitchen.settings.verify_timeout,
                clock=kitchen.clock,
            )
        except NotVisible as error:
            self._unstored("invisible")
            kitchen.metrics.readafterwrite_failures_total.inc()
            log.error("blob not visible after it was stored", digest=str(self.digest), error=str(error))
        except StorageError as error:
            self._unstored("skipped" if isinstance(error, LeftAlone) else "failed")
            tell = log.debug if isinstance(error, LeftAlone) else log.error
            tell("blob not stored: the next pull fetches it again", digest=str(self.digest), error=str(error))
        except (Spilled, RegistryError):
            pass  # the fill failed, and says so itself
        else:
            kitchen.presence.saw(self.digest, tail.size)
            await kitchen.links.put_layer(self.pull.repository, self.digest)
            return True
        return False

    def _unstored(self, reason: str) -> None:
        self._kitchen.metrics.unstored_total.labels(reason).inc()

    def withdrawn(self, error: BaseException) -> None:
        """It never had its turn: whoever still waits is told."""
        self.closed = True
        self._finish(error)

    def _break(self, error: BaseException) -> None:
        self._error = self._error or error
        if self.tail is not None:
            written = self.tail.written
            self.tail.end(tail_end(error, written=written, hasher=self._hasher))

    def _finish(self, error: BaseException | None) -> None:
        self.state = "ended"
        self.closed = True  # whoever looks for a fill now must not find this one, and ask it for ever
        self._error = self._error or error
        self.ending = ending_of(error)
        self._begun.set()
        self._opened.set()
        metrics = self._kitchen.metrics
        metrics.fills_total.labels(self.ending.value).inc()
        metrics.fill_seconds.observe(self._kitchen.clock.monotonic() - self.started)
        if isinstance(error, WriteFailed | SpoolFull):
            metrics.spool_full_total.inc()
        if error is not None:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        told = isinstance(error, RegistryError | WriteFailed | SpoolFull | OSError | asyncio.CancelledError)
        written = self.tail.written if self.tail else 0
        fields = {"digest": str(self.digest), "repository": str(self.pull.repository), "bytes": written}
        if not told:
            log.error("fill ended by an internal error", ending=str(self.ending), exc_info=error, **fields)
        elif isinstance(error, ContentMismatch) or self.ending is Ending.FAILED:
            log.error("fill failed", ending=str(self.ending), error=str(error), **fields)
        else:
            log.info("fill ended", ending=str(self.ending), error=str(error), **fields)
