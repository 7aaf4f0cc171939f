"""Publishing a spooled blob: one more reader of the tail, which brings it into the store.

Order (protocols, section 2): verify digest and size, commit, read-after-write check. The tail gives its last byte
only after verification, so a writer that has been given every byte has been given verified ones.
A failure here costs the fleet one more pull and the client nothing.
"""

import asyncio
from pathlib import Path

from msrcache.cache.tail import Tail
from msrcache.oci.ranges import Span
from msrcache.storage.driver import SpoolFile
from msrcache.storage.errors import NotFound, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock

FIRST_WAIT = 0.05
"""Seconds before the check is tried a second time; each wait doubles."""


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
        await writer.commit()
    await _check(store, key, size=tail.size, deadline=clock.monotonic() + timeout, clock=clock)


async def _check(store: Store, key: str, *, size: int, deadline: float, clock: Clock) -> None:
    """Ask what the next replica will ask; again, with growing waits, until the deadline."""
    wait = FIRST_WAIT
    while (seen := await _size(store, key)) != size:
        if clock.monotonic() + wait > deadline:
            raise NotVisible(_broken_promise(key, size=size, seen=seen))
        await asyncio.sleep(wait)
        wait *= 2


async def _size(store: Store, key: str) -> int | None:
    try:
        return (await store.stat(key)).size
    except NotFound:
        return None
    except StorageError:
        return None


def _broken_promise(key: str, *, size: int, seen: int | None) -> str:
    found = "nothing" if seen is None else f"{seen} bytes"
    return (
        f"the store confirmed {key} ({size} bytes) and then showed {found} there: it is not read-after-write"
        " consistent, so other replicas will fetch this blob again. Check the mount options or the service."
    )
