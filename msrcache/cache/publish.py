"""Publishing a spooled blob: one more reader of the tail, which brings it into the store.

Order (protocols, section 2): verify digest and size, commit, read-after-write check. The tail gives its last byte
only after verification, so a writer that has been given every byte has been given verified ones.
A failure here costs the fleet one more pull and the client nothing.

The check asks what the next replica will ask, over connections that did not write (`Store.elsewhere`: a second
instance of the driver):
1. Where the commit told a checksum, one stat: size and checksum are equal. Else, or where the other checksum is of
   another kind, the first and last END bytes are read, with the size that comes with them, and are those of the spool:
   at most two requests, one for a small blob.
2. What is not right yet is looked at again, with waits that double, until the deadline. Then the store has broken its
   promise (NotVisible), or could not be asked (its own error). Either way the blob gets no link.
3. That somebody else committed the same blob first is a success (the driver's commit says so), and is checked alike.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msrcache.cache.tail import Tail
from msrcache.oci.ranges import Span
from msrcache.storage.driver import ObjectInfo, SpoolFile
from msrcache.storage.errors import LeftAlone, NotFound, RangeNotSatisfiable, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock

FIRST_WAIT = 0.05
"""Seconds before the check is tried a second time; each wait doubles."""

END: Final = 64 << 10
"""Bytes at either end that are compared with the spool."""


class NotVisible(Exception):
    """The store did not show what it had confirmed: it broke read-after-write consistency."""


async def publish(store: Store, key: str, tail: Tail, path: Path, *, timeout: float, clock: Clock) -> None:
    """Write the growing file to ``key`` and see that it can be read back.

    Raises StorageError when the store failed, NotVisible when the check did, or what ended the tail.
    """
    whole = Span(0, tail.size)
    spooled = SpoolFile(tail.fd, path)
    async with store.writer(key) as writer:
        offset = 0
        while offset < tail.size:
            stop = await tail.available(offset, whole)
            await writer.write(spooled, Span(offset, stop))
            offset = stop
        await tail.settled()
        committed = await writer.commit()
    check = _Check(store.elsewhere(), key, tail.fd, size=tail.size, checksum=committed.checksum)
    await _seen(check, deadline=clock.monotonic() + timeout, clock=clock)


@dataclass(frozen=True, slots=True)
class _Check:
    """One blob to look at; `checksum` is what its commit told."""

    store: Store
    key: str
    fd: int
    size: int
    checksum: str | None

    async def look(self) -> str | None:
        """What another replica would find in place of the blob; None where all is right. Raises StorageError where
        the store could not be asked.
        """
        try:
            if self.checksum is not None or not self.size:
                info = await self.store.stat(self.key)
                if info.size != self.size or not self.size or _comparable(info.checksum, self.checksum):
                    return self._judged(info)
            return await self._ends()
        except NotFound:
            return "nothing"
        except RangeNotSatisfiable as error:
            return f"{error.size} bytes"

    def _judged(self, info: ObjectInfo) -> str | None:
        if info.size != self.size:
            return f"{info.size} bytes"
        if info.checksum != self.checksum and self.size:
            return f"other bytes (checksum {info.checksum}, sent {self.checksum})"
        return None

    async def _ends(self) -> str | None:
        for span in _ends_of(self.size):
            info, data = await self.store.piece(self.key, span)
            if info.size != self.size:
                return f"{info.size} bytes"
            if data != await asyncio.to_thread(os.pread, self.fd, span.size, span.start):
                return f"other bytes (at {span.start} to {span.stop})"
        return None


def _comparable(one: str | None, other: str | None) -> bool:
    """Whether two checksums, `kind:hex`, are of one kind (pure): else they say nothing about each other."""
    return one is not None and other is not None and one.partition(":")[0] == other.partition(":")[0]


def _ends_of(size: int) -> list[Span]:
    """What is compared (pure): both ends, or all of a blob that is not longer than they are."""
    if size <= 2 * END:
        return [Span(0, size)]
    return [Span(0, END), Span(size - END, size)]


async def _seen(check: _Check, *, deadline: float, clock: Clock) -> None:
    """Returns once another replica would find the blob."""
    wait = FIRST_WAIT
    while (trouble := await _trouble(check)) is not None:
        if clock.monotonic() + wait > deadline or isinstance(trouble, LeftAlone):
            raise trouble
        await asyncio.sleep(wait)
        wait *= 2


async def _trouble(check: _Check) -> NotVisible | StorageError | None:
    try:
        found = await check.look()
    except StorageError as error:
        return error
    return None if found is None else NotVisible(_broken_promise(check, found))


def _broken_promise(check: _Check, found: str) -> str:
    return (
        f"the store confirmed {check.key} ({check.size} bytes) and then showed {found} there: it is not"
        " read-after-write consistent, so other replicas will fetch this blob again. Check the mount options or the"
        " service; `msrcache check-storage` tells more."
    )
