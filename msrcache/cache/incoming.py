"""A blob on its way into the hot tier while a client reads it from the store.

States: writing -> kept | left (the client went), slow (the disk did), corrupt, failed.

Rules:
1. The client waits for nothing here: chunks are queued and written in threads. A disk that falls behind by more than
   the tier's whole queue loses the blob, not the client its pace.
2. Only what was read to its end and has the right digest and size is kept.
3. A file is closed only when no thread uses it any more.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from msrcache.cache.localfolder import Growing, LocalFolder, Stamp
from msrcache.oci.digest import Digest
from msrcache.oci.errors import ContentMismatch
from msrcache.storage.disk import Disk
from msrcache.storage.errors import StorageError, Unavailable

WRITTEN_WITHIN = 30.0
"""Seconds that the disk may take for one batch."""


@dataclass(slots=True)
class Queue:
    """How much all blobs on their way in have queued, and may: bytes."""

    limit: int
    held: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """How it ended: the metric's label, the file where it is kept, the failure of the disk."""

    digest: Digest
    size: int
    result: str
    stamp: Stamp | None = None
    failure: StorageError | None = None


@dataclass(slots=True, eq=False)
class Incoming:
    """One blob; `ended` is told once, whatever happens."""

    digest: Digest
    size: int
    disk: Disk
    folder: LocalFolder
    queue: Queue
    ended: Callable[[Arrival], None]
    _chunks: list[bytes] = field(default_factory=list)
    _complete: bool = False
    _cut: str = ""
    _change: asyncio.Event = field(default_factory=asyncio.Event)
    _job: Future[Any] | None = None

    def __repr__(self) -> str:
        return f"<Incoming {self.digest} {self._cut or 'writing'}>"

    def offer(self, chunk: bytes) -> None:
        """The next bytes; never waits."""
        if self._cut:
            return
        if self.queue.held + len(chunk) > self.queue.limit:
            self._cut = "slow"
        else:
            self._chunks.append(chunk)
            self.queue.held += len(chunk)
        self._change.set()

    def complete(self) -> None:
        """All bytes have come."""
        self._complete = True
        self._change.set()

    def leave(self) -> None:
        """The reader has gone; where not all bytes have come, none are kept."""
        if not self._complete:
            self._cut = self._cut or "left"
            self._change.set()

    async def run(self) -> None:
        """Write until the end, whichever it is."""
        growing: Growing | None = None
        arrival = self._arrival("left")
        try:
            growing = await self._done(
                partial(self.folder.begin, self.digest.algorithm), late=Growing.discard
            )
            arrival = await self._written(growing)
        except StorageError as failure:
            arrival = self._arrival("failed", failure=failure)
        finally:
            self._cut = self._cut or arrival.result  # whoever still reads offers in vain
            self._release(self._chunks)
            if growing is not None:
                self.disk.tidy(growing.discard, after=self._job)
            self.ended(arrival)

    async def _written(self, growing: Growing) -> Arrival:
        while not self._cut:
            await self._change.wait()
            self._change.clear()
            ending = self._complete
            chunks, self._chunks = self._chunks, []
            try:
                if chunks:
                    await self._done(partial(growing.append, chunks))
            finally:
                self._release(chunks)
            if ending and not self._cut:
                return await self._published(growing)
        return self._arrival(self._cut)

    async def _published(self, growing: Growing) -> Arrival:
        try:
            growing.hasher.verify(self.digest, self.size)
        except ContentMismatch:
            return self._arrival("corrupt")
        stamp = await self._done(partial(self.folder.publish, growing, self.digest))
        return self._arrival("kept", stamp)

    def _arrival(
        self, result: str, stamp: Stamp | None = None, *, failure: StorageError | None = None
    ) -> Arrival:
        return Arrival(self.digest, self.size, result, stamp, failure)

    def _release(self, chunks: list[bytes]) -> None:
        self.queue.held -= sum(map(len, chunks))

    async def _done(self, work: Callable[[], Any], *, late: Callable[[Any], None] | None = None) -> Any:
        self._job = self.disk.submit(work)
        try:
            async with asyncio.timeout(WRITTEN_WITHIN):
                return await self.disk.wait(self._job, str(self.digest), writing=True, dispose=late)
        except TimeoutError as error:
            text = f"the disk took more than {WRITTEN_WITHIN:g} s for one batch"
            raise Unavailable(self.disk.name, str(self.digest), None, text) from error
