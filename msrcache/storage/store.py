"""The portable half of storage, over any driver: keys checked, every wait with a deadline, retries, metrics.

Rules:
1. A key is checked before a driver sees it.
2. Every call has a deadline (`calls`); bodies have none, but each pause in one has.
3. A create whose reply was lost is settled by reading back, so its data must be the creator's alone (a nonce).
4. A store that refused a write as read-only is not asked to write again for RECHECK seconds.
5. A store that failed too often in a row is left alone (`breaker`): reads are misses at once, writes are skipped. It is
   probed below PROBE until it answers.

Not here: what is stored under which key, and digests.
"""

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Final

from msrcache.oci.ranges import Span
from msrcache.storage.breaker import PROOFS, BreakerSettings, Side
from msrcache.storage.calls import Calls, Deadlines, Retries, TimedOut
from msrcache.storage.driver import Content, Driver, FileContent, ObjectInfo, StreamContent, Versioned
from msrcache.storage.errors import Denied, LeftAlone, NotFound, ReadOnly, Stale, StorageError, Unavailable
from msrcache.storage.guard import Guard
from msrcache.storage.keys import check_key, check_prefix, is_key
from msrcache.storage.storewriter import StoreWriter
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics

PROBE: Final = "msrcache/probe/"
"""Below it stands what finds out how the store is; removed at once."""

RECHECK: Final = 60.0
"""Seconds after which a store that refused to be written is tried again."""

SMALL: Final = 64 << 10
"""Bytes that are copied from the page cache on the loop; more goes to a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """How patient a store is. `writable` False: the operator allows no writes (storage.maintenance.readonly)."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    retries: Retries = field(default_factory=Retries)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    writable: bool = True


class Store:
    """Implements Driver's ten methods over a driver, and get()."""

    def __init__(
        self,
        driver: Driver,
        *,
        metrics: Metrics,
        clock: Clock,
        settings: StoreSettings | None = None,
        twin: Callable[[], Driver] | None = None,
    ) -> None:
        """`twin` makes a second driver on the same store, for elsewhere()."""
        settings = settings or StoreSettings()
        self.driver = driver
        self.name = driver.name
        self._clock = clock
        self._metrics = metrics
        self.deadlines = settings.deadlines
        self._guard = Guard(driver.name, settings.breaker, metrics=metrics)
        self._guard.probe_with({Side.READING: self._probe_reading, Side.WRITING: self._probe_writing})
        self.calls = Calls(
            driver.name, metrics=metrics, clock=clock, retries=settings.retries, guard=self._guard
        )
        self._probe_key = PROBE + secrets.token_hex(8)
        self._twin = twin
        self._elsewhere: Store | None = None
        self.allowed = settings.writable
        """Whether the operator allows writes."""
        self._refusal: tuple[float, StorageError] | None = None
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="store-get")

    def __repr__(self) -> str:
        return f"<Store {self.driver!r} {self.degraded() or 'well'}>"

    @property
    def create_is_exclusive(self) -> bool:
        """The driver's; the probe may clear it."""
        return self.driver.create_is_exclusive

    @create_is_exclusive.setter
    def create_is_exclusive(self, value: bool) -> None:
        self.driver.create_is_exclusive = value

    @property
    def writable(self) -> bool:
        """Whether writing is worth trying: allowed, and not refused in the last RECHECK seconds."""
        return self.allowed and self._refused() is None

    @property
    def readable(self) -> bool:
        """Whether the store is being asked, and no reading of it failed lately without a success since."""
        return not self._guard.leaves_alone(Side.READING) and not self.calls.reading_failed()

    def degraded(self) -> str | None:
        """What is wrong with the store, in words; None when all is well."""
        if self._refusal is not None:
            return str(self._refusal[1])
        return self._guard.trouble() or self.calls.trouble()

    async def start(self) -> None:
        """Find out whether the store can be written, so that `writable` is right from the start.

        Never raises StorageError: a store that is away makes a slow cache. degraded() then says why.
        """
        if not self.allowed:
            return
        try:
            with self.writing("put"):
                await self._probe_writing()
        except Denied as error:
            self._refuse(error)
        except StorageError:
            return  # told by degraded()

    def elsewhere(self) -> "Store":
        """This store as the next replica sees it: over connections that write nothing. To be read only."""
        if self._twin is None:
            return self
        if self._elsewhere is None:
            self._elsewhere = copy(self)
            self._elsewhere.driver = self._twin()
        return self._elsewhere

    def insistent(self) -> "Store":
        """This store for what a sick one must be asked too: no breaker, and each call once."""
        same = copy(self)
        same.calls = Calls(
            self.name, metrics=self._metrics, clock=self._clock, retries=Retries(attempts=1), guard=None
        )
        return same

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        check_key(self.name, key)
        ask = self.deadlines.ask
        return await self.calls.repeatedly("stat", key, lambda: self.driver.stat(key), deadline=ask)

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[Content]:
        """As Driver. A stream that stalls raises Unavailable."""
        check_key(self.name, key)
        async with AsyncExitStack() as stack:
            content = await self.calls.repeatedly(
                "open",
                key,
                lambda: stack.enter_async_context(self.driver.open(key, span)),
                deadline=self.deadlines.ask,
            )
            if isinstance(content, StreamContent):
                stall = self.deadlines.stall
                chunks = self.calls.each("read", key, content.chunks, deadline=stall)
                yield replace(
                    content, chunks=self._counted(await stack.enter_async_context(aclosing(chunks)))
                )
            else:
                self.calls.moved("read", content.span.size)
                yield content

    async def get(self, key: str, limit: int) -> bytes:
        """A small object whole. One of more than `limit` bytes raises StorageError before it is read."""
        async with self.open(key) as content:
            if content.info.size > limit:
                text = f"the object has {content.info.size} bytes, at most {limit} were expected"
                raise StorageError(self.name, key, None, text)
            return await self._bytes(content, key)

    async def piece(self, key: str, span: Span) -> tuple[ObjectInfo, bytes]:
        """A small span of an object, and what the store says of the object; one request."""
        async with self.open(key, span) as content:
            return content.info, await self._bytes(content, key)

    async def put(self, key: str, data: bytes) -> None:
        """As Driver."""
        self._check_writable(key)
        with self.writing("put"):
            await self.calls.repeatedly(
                "put", key, lambda: self.driver.put(key, data), deadline=self.deadlines.change
            )
        self.calls.moved("written", len(data))

    async def create(self, key: str, data: bytes) -> bool:
        """As Driver. `data` must be the caller's alone, else a lost reply may let two believe that they made it."""
        self._check_writable(key)
        attempt = 1
        with self.writing("create"):
            while True:
                try:
                    made = await self.calls.once(
                        "create", key, lambda: self.driver.create(key, data), deadline=self.deadlines.change
                    )
                except LeftAlone:
                    raise
                except (Unavailable, Stale) as error:
                    if await self._stands(key, data):
                        return True
                    if isinstance(error, TimedOut) or not await self.calls.another(attempt, error):
                        raise
                    attempt += 1
                else:
                    # The attempt whose reply was lost may have made it, and this one found it.
                    return made or (attempt > 1 and await self._stands(key, data))

    def writer(self, key: str) -> StoreWriter:
        """As Driver."""
        self._check_writable(key)
        writer = self.driver.writer(key)
        return StoreWriter(writer, key, calls=self.calls, deadlines=self.deadlines, writing=self.writing)

    async def delete(self, *keys: str) -> None:
        """As Driver."""
        for key in keys:
            self._check_writable(key)
        if keys:
            with self.writing("delete"):
                await self.calls.repeatedly(
                    "delete", keys[0], lambda: self.driver.delete(*keys), deadline=self.deadlines.change
                )

    async def delete_version(self, key: str, info: ObjectInfo) -> None:
        """Remove what was seen there, and nothing that came after it where the service can tell them apart."""
        self._check_writable(key)
        driver = self.driver
        with self.writing("delete"):
            await self.calls.repeatedly(
                "delete",
                key,
                lambda: (
                    driver.delete_version(key, info) if isinstance(driver, Versioned) else driver.delete(key)
                ),
                deadline=self.deadlines.change,
            )

    async def list(self, prefix: str) -> AsyncGenerator[tuple[str, ObjectInfo], None]:
        """As Driver; the prefix may end in a slash, and what is no key is left out."""
        below = check_prefix(self.name, prefix)
        items = self.calls.each("list", below, self.driver.list(below), deadline=self.deadlines.ask)
        async with aclosing(items):
            async for key, info in items:
                if is_key(key):
                    yield key, info

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """As Driver. No call to the store, so it is not counted as one, and proves nothing of it."""
        check_key(self.name, key)
        try:
            async with asyncio.timeout(self.deadlines.ask):  # credentials may have to be renewed first
                return await self.driver.presign(key, ttl, endpoint=endpoint)
        except TimeoutError as error:
            text = f"signing a URL was not done within {self.deadlines.ask:g} s"
            raise TimedOut(self.name, key, None, text) from error

    async def sweep(self, older_than: float) -> int:
        """As Driver."""
        self._check_allowed("")
        with self.writing("sweep"):
            return await self.calls.once(
                "sweep", "", lambda: self.driver.sweep(older_than), deadline=self.deadlines.sweep
            )

    async def close(self) -> None:
        """As Driver."""
        self._readers.shutdown(wait=False)
        await self._guard.close()
        if self._elsewhere is not None:
            await self._elsewhere.driver.close()
        await self.driver.close()

    @contextmanager
    def writing(self, operation: str) -> Iterator[None]:
        """Remember a refusal, and forget it with the first success that proves it wrong."""
        try:
            yield
        except ReadOnly as error:
            self._refuse(error)
            raise
        except Denied as error:
            if self._refusal is not None:
                self._refuse(error)
            raise
        if operation in PROOFS:
            self._refusal = None

    def _refuse(self, error: StorageError) -> None:
        text = f"nothing can be stored, what is there is served; tried again every {RECHECK:g} s: {error.message}"
        self._refusal = (self._clock.monotonic(), ReadOnly(self.name, error.key, error.cause, text))

    def _refused(self) -> StorageError | None:
        if self._refusal is None or self._clock.monotonic() - self._refusal[0] >= RECHECK:
            return None
        return self._refusal[1]

    def _check_writable(self, key: str) -> None:
        check_key(self.name, key)
        self._check_allowed(key)

    def _check_allowed(self, key: str) -> None:
        if not self.allowed:
            raise ReadOnly(self.name, key, None, "storage.maintenance.readonly is on: nothing is stored")
        refused = self._refused()
        if refused is not None:
            raise ReadOnly(self.name, key, refused.cause, refused.message)

    async def _probe_reading(self) -> None:
        """Ask for what is never there: that it is missing is the answer of a store that is well."""
        key, ask = self._probe_key, self.deadlines.ask
        with suppress(NotFound):
            await self.calls.attempt("stat", key, lambda: self.driver.stat(key), deadline=ask)

    async def _probe_writing(self) -> None:
        key, ask = self._probe_key, self.deadlines.ask
        await self.calls.attempt("put", key, lambda: self.driver.put(key, b""), deadline=ask)
        await self.calls.attempt("delete", key, lambda: self.driver.delete(key), deadline=ask)

    async def _stands(self, key: str, data: bytes) -> bool:
        """Whether what stands there is what we were to create; a store that cannot tell has not confirmed it."""
        try:
            return await self.get(key, len(data)) == data
        except StorageError:
            return False

    async def _counted(self, chunks: AsyncIterator[bytes | memoryview]) -> AsyncIterator[bytes | memoryview]:
        async for chunk in chunks:
            self.calls.moved("read", len(chunk))
            yield chunk

    async def _bytes(self, content: Content, key: str) -> bytes:
        if isinstance(content, FileContent):
            return await self._read(content, key)
        return b"".join([chunk async for chunk in content.chunks])

    async def _read(self, content: FileContent, key: str) -> bytes:
        """From the page cache at once; where it is not there, or the file system cannot tell, in a thread."""
        start, size = content.span.start, content.span.size
        if size <= SMALL:
            data = bytearray(size)
            # EAGAIN, EOPNOTSUPP: the thread finds out whether it is more than that.
            with suppress(OSError):
                if os.preadv(content.fd, [data], start, os.RWF_NOWAIT) == size:
                    return bytes(data)
        loop = asyncio.get_running_loop()
        return await self.calls.once(
            "read",
            key,
            lambda: loop.run_in_executor(self._readers, _read_all, content.fd, content.span),
            deadline=self.deadlines.stall,
        )


def _read_all(fd: int, span: Span) -> bytes:
    data = b""
    while len(data) < span.size:
        more = os.pread(fd, span.size - len(data), span.start + len(data))
        if not more:
            raise OSError(errno.EIO, "the file became shorter while it was read")
        data += more
    return data
