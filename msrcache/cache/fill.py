"""A fill: bringing one blob in. It belongs to no request.

States: queued -> opening -> filling -> publishing -> ended, with one of the `endings`.
Its bytes come from where the lease's turn points (`lease`): from the upstream, when it is this replica's to fetch; from
the replica that fills; from the store. A source that breaks is followed by the next at the byte where it broke.

Rules:
1. Headers are known to readers as soon as the upstream's are (``opened``); bytes as soon as they are in the spool.
2. The opener's credential fetches. Its refusal (refused, absent) is nobody else's answer.
3. Complete means that the digest and the size are right. Whether the store took the blob is another question:
   a failed write is counted and costs the fleet one more pull, never this one.
4. An ending other than complete leaves nothing visible in the store. What came before an outage stays in the spool
   and is continued by the next fill of the digest; what had a wrong digest does not.
5. A fill that nobody reads for ``abandon`` and whose upstream gave nothing in that time is stopped.
6. What was followed is not stored here, its holder does that; but a fill that has all of it watches until it is
   stored, and stores it when the holder died over it.
7. A store slower than the upstream holds up no fill: once all bytes are here and verified, storing them goes on behind
   (`backlog`), and is given up where the room is needed.
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from msrcache.cache.endings import Ending, FillLeft, FoundMeanwhile, ending_of, tail_end
from msrcache.cache.following import followed, stored
from msrcache.cache.kitchen import Kitchen
from msrcache.cache.lease import Arrival, Fetch, Follow, Found, Leases, SoleReplica, Turn
from msrcache.cache.pump import Pump, WriteFailed, finish
from msrcache.cache.spool import SpooledFile, SpoolFull
from msrcache.cache.storing import given_up, store
from msrcache.cache.tail import Tail
from msrcache.oci.descriptor import OCTETS, Descriptor
from msrcache.oci.digest import Hasher
from msrcache.oci.errors import ContentMismatch, RegistryError, Unavailable, UpstreamBroken
from msrcache.oci.peers import Holder, NotFollowed, Sign
from msrcache.oci.pulls import BlobPull
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import Blob, Elsewhere
from msrcache.storage.driver import SpoolFile
from msrcache.storage.errors import StorageError
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.trail import Trail

ANNOUNCED: Final = 5.0
"""Seconds of waiting after which clients are told the size: containerd gives up on an answer without headers in 30."""
TOLD = (RegistryError, OSError, WriteFailed, SpoolFull, FoundMeanwhile, asyncio.CancelledError)
"""What a fill may end by without being wrong."""

log = get_logger(__name__)


class Fill:
    """One blob on its way in."""

    def __init__(self, pull: BlobPull, kitchen: Kitchen, *, alone: bool = False) -> None:
        """``alone``: the fleet is not asked, since what it would point to could not be read."""
        self.pull = pull
        self.digest = pull.digest
        self.state = "queued"
        self.ending: Ending | None = None
        self.tail: Tail | None = None
        self.file: SpooledFile | None = None
        self.started = kitchen.clock.monotonic()
        self.holders = 0
        self.closed = False
        self.vouched = False
        """Whether the upstream has answered the opener's own request for it."""
        self.source = ""
        """Where its bytes come from: upstream, store, or the replica that is followed."""
        self.storing = False
        """Whether it is on its way into the store from here."""
        self.trail = Trail()
        self._kitchen = kitchen
        self._leases: Leases = SoleReplica() if alone else kitchen.leases
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
        return Descriptor(OCTETS, self.digest, self.tail.size)

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
            size = self._kitchen.sizes.get(self.digest)
            async with self._leases.arrive(self.digest, size=size) as arrival:
                await self._brought_in(arrival, file, poured)
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

    async def _brought_in(self, arrival: Arrival, file: SpooledFile, poured: Callable[[], None]) -> None:
        """Source by source until all of it is here, then until it is in the store or is known not to come there."""
        self.state = "opening"
        try:
            while self._publishing is None:
                await self._from_source(await self._turn(arrival, file), arrival, file)
            self.state = "publishing"
            poured()
            await self._publishing
        except BaseException as error:
            self._break(error)  # before the wait: the publisher is a reader of the tail
            if self._publishing is not None:
                await self._withdraw(self._publishing, error)
            raise

    async def _turn(self, arrival: Arrival, file: SpooledFile) -> Turn:
        """The next turn; a long wait for it is no reason to leave the clients without headers."""
        turning = asyncio.create_task(arrival.turn(), name=f"turn {self.digest}")
        try:
            if self.tail is None:
                waited = self._kitchen.clock.monotonic() - self.started
                await asyncio.wait({turning}, timeout=max(0.0, ANNOUNCED - waited))
                if not turning.done():
                    await self._announce(file)
            return await turning
        finally:
            turning.cancel()
            await finish(turning)  # no step of it may be under way when the lease is ended

    async def _from_source(self, turn: Turn, arrival: Arrival, file: SpooledFile) -> None:
        match turn:
            case Follow(holder):
                await self._follow(holder, arrival, file)
            case Found() if await self._found(file):
                self._publish_by(self._seen(file))
            case Found() | Fetch():
                await self._fetch(arrival, file)

    async def _follow(self, holder: Holder, arrival: Arrival, file: SpooledFile) -> None:
        """The holder's bytes, as far as they come."""
        self.source = holder.replica
        peers, start = self._kitchen.peers, self._reached(file)
        written = partial(self._reached, file)
        following = followed(peers, self.digest, holder, start, arrival=arrival, written=written)
        try:
            async with following as source:
                await self._take(source, file)
        except NotFollowed as error:
            arrival.failed(error)
        else:
            self._publish_by(self._stored_by_others(arrival, file))

    async def _announce(self, file: SpooledFile) -> None:
        """Tell the clients the size, as the upstream says it. Raises its refusal, which is the opener's."""
        try:
            told = await self._kitchen.upstream.resolve(replace(self.pull, head=True, range=None))
        except Unavailable:
            return  # the holder may have had its answer before
        self.vouched = True
        tail = await self._sized(told.descriptor.size, file)
        await Pump(self._kitchen.spool, tail, self._hasher).rehash(min(file.length, tail.size))

    async def _found(self, file: SpooledFile) -> bool:
        """Whether the store had the rest. A fill that nobody reads yet is over: its clients read the store."""
        if self.tail is None:
            raise FoundMeanwhile(f"{self.digest} was stored by another replica")
        self.source = "store"
        rest = stored(self._kitchen.store, self._kitchen.spool, self.digest, self._reached(file))
        try:
            async with rest as source:
                await self._take(source, file)
        except (NotFollowed, StorageError) as error:
            log.warning(
                "blob not read from the store, fetching it", digest=str(self.digest), error=str(error)
            )
            return False
        return True

    async def _fetch(self, arrival: Arrival, file: SpooledFile) -> None:
        self.source = "upstream"
        async with self._kitchen.upstream.blob(self._from(self._reached(file))) as source:
            self.vouched = True
            try:
                tail, rehash = await self._joined(source, file)
            except NotFollowed as error:
                raise UpstreamBroken(f"the upstream sent another blob than before: {error}") from error
            self._publish_by(self._stored(arrival, tail, file))
            await self._pour(source, tail, rehash)

    def _publish_by(self, work: Coroutine[object, object, None]) -> None:
        self._publishing = asyncio.create_task(work, name=f"publish {self.digest}")

    def _reached(self, file: SpooledFile) -> int:
        return file.length if self.tail is None else self.tail.written

    async def _take(self, source: Blob, file: SpooledFile) -> None:
        """The rest of it from another replica or the store. Raises NotFollowed where it is not, or not all of it."""
        tail, rehash = await self._joined(source, file)
        await self._pour(source, tail, rehash)

    async def _joined(self, source: Blob, file: SpooledFile) -> tuple[Tail, int]:
        """The tail that the source begins or goes on, and how much of a leftover is to be hashed before it.

        Raises NotFollowed where it is not the rest of what came before.
        """
        tail = self.tail
        if tail is None:
            return await self._open(source, file), file.length
        if (source.descriptor.size, source.span.start) != (tail.size, tail.written):
            text = f"{source.span} of {source.descriptor.size} came to go on {tail!r}"
            raise NotFollowed(Sign.BROKEN, text)
        return tail, 0

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
        return await self._sized(source.descriptor.size, file)

    async def _sized(self, size: int, file: SpooledFile) -> Tail:
        await self._kitchen.backlog.reserve(file, size)
        self.tail = Tail(file.fd, size, early=self._kitchen.settings.early)
        self.state = "filling"
        self._opened.set()
        return self.tail

    async def _pour(self, source: Blob, tail: Tail, rehash: int) -> None:
        pump = Pump(self._kitchen.spool, tail, self._hasher)
        await pump.rehash(rehash)
        assert not isinstance(source.body, Elsewhere), "an upstream client follows redirects itself"
        try:
            await pump.run(source.body)
        except (NotFollowed, StorageError):
            if tail.written != tail.size:  # else it broke behind its last byte: the digest will tell
                raise
        self._hasher.verify(self.digest, tail.size)
        tail.verify()

    async def _stored(self, arrival: Arrival, tail: Tail, file: SpooledFile) -> None:
        """Bring it into the store, or be given up: that ends no fill."""
        published, self.storing = False, True
        try:
            published = await store(self._kitchen, self.pull, tail, file.path)
            if published:
                arrival.stored()
                await self._seen(file)
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            if not published:
                given_up(self._kitchen, self.digest)

    async def _stored_by_others(self, arrival: Arrival, file: SpooledFile) -> None:
        """Watch until it is in the store; store it where its holder died over it. Being given up ends the watch."""
        assert self.tail is not None
        waiting = NotFollowed(Sign.NOFILL, "all of it is here, and not in the store yet")
        try:
            arrival.failed(waiting)
            while isinstance(turn := await arrival.turn(), Follow):
                arrival.failed(waiting)
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            return
        if isinstance(turn, Found):
            await self._seen(file)
        else:
            await self._stored(arrival, self.tail, file)

    async def _seen(self, file: SpooledFile) -> None:
        """It is in the store: so it is believed there, and kept near."""
        assert self.tail is not None
        self._kitchen.presence.saw(self.digest, self.tail.size)
        self._kitchen.uses.note(self.digest)
        if (local := self._kitchen.local) is not None:
            await local.take(self.digest, SpoolFile(self.tail.fd, file.path), self.tail.size)

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
        told = isinstance(error, TOLD)
        written = self.tail.written if self.tail else 0
        fields = {"digest": str(self.digest), "repository": str(self.pull.repository), "bytes": written}
        if not told:
            log.error("fill ended by an internal error", ending=str(self.ending), exc_info=error, **fields)
        elif isinstance(error, ContentMismatch) or self.ending is Ending.FAILED:
            log.error("fill failed", ending=str(self.ending), error=str(error), **fields)
        else:
            log.info("fill ended", ending=str(self.ending), error=str(error), **fields)
