"""Writing one large object in parts, several at once, from the spool file while its bytes still come in.

For services that take an object in parts. A driver brings the calls of its service (Upload); the rest is here.

States: open -> committed | aborted. Rules:
1. What fits one part is one request, made at commit. Nothing is asked of the service before there is more.
2. A part is sent as soon as its bytes were given and more came; at most `parallel` of one writer, and `parts` of
   all writers of a driver, are on their way. write() waits for its turn: a slow service slows its writer, whose
   deadline then decides.
3. Of a part at most 64 KiB are in memory: it is read from a descriptor of our own, piece by piece (`spooled`).
4. A call that failed with Unavailable is made again, as often as `retries` says. The first error of any other kind
   stops all, and is what write() and commit() raise.
5. Whatever way the writer is left, cancelled at any await too: parts under way end first, then the upload is aborted,
   then the descriptor is closed. Who cannot wait for that leaves it to `Uploads`, which close() waits for.

Not here: what a service calls these things, and what it says when they fail.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from msrcache.oci.ranges import Span
from msrcache.storage.calls import Retries
from msrcache.storage.driver import ObjectInfo, SpoolFile
from msrcache.storage.errors import StorageError, Unavailable, from_os_error
from msrcache.storage.spooled import Part, Reading

T = TypeVar("T")
R = TypeVar("R")

PATIENCE: Final = 5.0
"""Seconds that close() waits for writers that are being left."""


class Upload(Protocol[R]):
    """The calls of a service for one object; R is what `complete` must know of a part that was sent.

    All raise StorageError; Unavailable is tried again, so a lost reply may have taken effect. The bytes of a part
    may raise OSError.
    """

    async def put(self, whole: Part) -> ObjectInfo:
        """The object in one request."""
        ...

    async def begin(self) -> None:
        """Begin an upload in parts."""
        ...

    async def send(self, number: int, part: Part) -> R:
        """Send one; numbers count from 1 and come in no order."""
        ...

    async def complete(self, sent: Sequence[R]) -> ObjectInfo:
        """Publish the object from what send() brought, in order."""
        ...

    async def abort(self) -> None:
        """Drop the upload that begin() began; idempotent, and without harm after complete."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How large parts are, and how many go at once."""

    size: int
    """Of the first parts."""
    largest: int = 5 << 30
    parallel: int = 4
    steady: int = 5000
    """After so many parts their size doubles every `doubling`, so that 10,000 suffice for any object."""
    doubling: int = 1000

    def size_of(self, number: int) -> int:
        """Bytes of part `number`, counted from 1 (pure)."""
        doublings = max(0, number - self.steady + self.doubling - 1) // self.doubling
        return int(min(self.largest, self.size << doublings))


class Uploads:
    """What all writers of one driver share: threads that read, turns to send, and what is still to be tidied up."""

    def __init__(
        self, name: str, *, threads: int = 4, parts: int = 32, retries: Retries | None = None
    ) -> None:
        self.name = name
        self.turns = asyncio.Semaphore(parts)
        self.retries = retries or Retries(attempts=4)
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix=f"{name}-parts")
        self._tidying: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Uploads {self.name} [{len(self._tidying)} being left]>"

    def writer(self, key: str, upload: Upload[R], plan: Plan) -> "PartsWriter[R]":
        """A writer of one object."""
        return PartsWriter(self, key, upload, plan)

    def tidy(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that goes on when nobody waits for it."""
        task = asyncio.create_task(work)
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)
        return task

    async def repeatedly(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until it succeeds or fails with what trying again does not change."""
        attempt = 1
        while True:
            try:
                return await call()
            except Unavailable as error:
                if attempt >= self.retries.attempts:
                    raise
                await asyncio.sleep(self.retries.wait(attempt, error))
                attempt += 1

    async def close(self) -> None:
        """End. Waits some seconds for writers that are being left; idempotent."""
        if self._tidying:
            _, hung = await asyncio.wait(set(self._tidying), timeout=PATIENCE)
            for task in hung:
                task.cancel()
            await asyncio.gather(*hung, return_exceptions=True)
        self.pool.shutdown(wait=False)


class PartsWriter(Generic[R]):
    """Implements Writer."""

    def __init__(self, uploads: Uploads, key: str, upload: Upload[R], plan: Plan) -> None:
        self._uploads = uploads
        self._key = key
        self._upload = upload
        self._plan = plan
        self._reading = Reading(uploads.pool)
        self._source: SpoolFile | None = None
        self._fd = -1
        self._stop = 0
        self._cut = 0
        """Where the next part starts."""
        self._beginning: asyncio.Task[None] | None = None
        self._begun = False
        self._started = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._sent: dict[int, R] = {}
        self._error: Exception | None = None
        self._committed = False
        self._ending: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<PartsWriter {self._stop} bytes [{len(self._under_way)} parts under way] to {self._key}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(StorageError):  # what could not be aborted is the sweep's
            await self.abort()

    async def write(self, source: SpoolFile, span: Span) -> None:
        """As Writer."""
        self._still_open()
        if span.start != self._stop or (self._source or source) != source:
            raise self._failure("spans must follow each other in one file")
        if self._source is None:
            self._fd = self._own(source)
            self._source = source
        self._stop = span.stop
        # More than a part: what is exactly one part may turn out to be the whole object.
        while self._stop - self._cut > (size := self._plan.size_of(self._started + 1)):
            await self._turn()
            self._start(Span(self._cut, self._cut + size))
        self._raise()

    async def commit(self) -> ObjectInfo:
        """As Writer."""
        self._still_open()
        self._raise()
        if self._started:
            info = await self._complete()
        else:
            whole = Part(Span(0, self._stop), self._fd, self._reading)
            info = await self._translated(lambda: self._upload.put(whole))
        self._committed = True
        await self.abort()  # lets go of what is held; what stands stands
        return info

    async def abort(self) -> None:
        """As Writer. Raises StorageError where the upload could not be aborted."""
        if self._ending is None:
            self._ending = self._uploads.tidy(self._let_go())
            self._ending.add_done_callback(_told)
        await asyncio.shield(self._ending)

    async def _complete(self) -> ObjectInfo:
        if self._cut < self._stop:
            await self._turn()
            self._start(Span(self._cut, self._stop))
        while self._under_way and self._error is None:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        self._raise()
        sent = [self._sent[number] for number in range(1, self._started + 1)]
        return await self._translated(lambda: self._upload.complete(sent))

    async def _turn(self) -> None:
        """Returns when another part may be started."""
        while len(self._under_way) >= self._plan.parallel and self._error is None:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        self._raise()

    def _start(self, span: Span) -> None:
        if self._beginning is None:
            self._beginning = asyncio.create_task(self._begin())
        self._started += 1
        self._cut = span.stop
        part = Part(span, self._fd, self._reading)
        task = asyncio.create_task(self._send(self._started, part, self._beginning))
        self._under_way.add(task)

    async def _begin(self) -> None:
        try:
            await self._translated(self._upload.begin)
        except Exception as error:  # noqa: BLE001  told by write() and commit()
            self._fail(error)
        else:
            self._begun = True

    async def _send(self, number: int, part: Part, beginning: "asyncio.Task[None]") -> None:
        try:
            await asyncio.shield(beginning)
            if self._error is None:
                async with self._uploads.turns:
                    self._sent[number] = await self._translated(lambda: self._upload.send(number, part))
        except Exception as error:  # noqa: BLE001  told by write() and commit()
            self._fail(error)
        finally:
            self._under_way.discard(asyncio.current_task())

    def _fail(self, error: Exception) -> None:
        """The first error stops all."""
        self._error = self._error or error
        self._stop_parts()

    def _stop_parts(self) -> None:
        for part in self._under_way:
            if part is not asyncio.current_task():
                part.cancel()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    async def _translated(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._uploads.repeatedly(call)
        except OSError as error:
            raise from_os_error(self._uploads.name, self._key, error, writing=True) from error

    def _still_open(self) -> None:
        if self._ending is not None:
            raise self._failure("the writer has ended")

    def _own(self, source: SpoolFile) -> int:
        """A descriptor of our own, for parts that outlive the caller's. dup waits for no disk."""
        try:
            return os.dup(source.fd)
        except OSError as error:
            raise from_os_error(self._uploads.name, self._key, error, writing=True) from error

    def _failure(self, text: str) -> StorageError:
        return StorageError(self._uploads.name, self._key, None, text)

    async def _let_go(self) -> None:
        try:
            self._stop_parts()
            # An upload that is being begun must be known before it can be aborted.
            if waiting := {*self._under_way, *([self._beginning] if self._beginning else ())}:
                await asyncio.wait(waiting)
            if self._begun and not self._committed:
                await self._translated(self._upload.abort)
        finally:
            if self._beginning is not None:
                self._beginning.cancel()  # close() has no more patience
            await self._reading.ended()
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def _told(task: "asyncio.Future[Any]") -> None:
    """Its error was told to whoever waited, or nobody wants to know."""
    if not task.cancelled():
        task.exception()
