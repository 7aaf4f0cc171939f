"""`msrcache verify [--repair] [CONFIG]`: everything stored hashed once more, at a rate that leaves room for pulls.

It tells where to go on (`--after DIGEST`) when it is interrupted. Without --repair nothing is written.

Exit status: 0 all is right; 1 something was wrong or could not be read, and is told; 2 nothing could be said;
130 interrupted.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TextIO

from msrcache.cache.ledger import Progress
from msrcache.cache.rehash import Looked, Pace, held, rehashed
from msrcache.command import opened, told_on, write
from msrcache.config.model import Config
from msrcache.inquiry import CannotStart
from msrcache.oci.digest import Digest
from msrcache.storage.errors import StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import SystemClock

RATE: Final = 100_000_000
"""Bytes a second."""


@dataclass(slots=True)
class Verified:
    """How far it came, and what was found."""

    count: int = 0
    bytes: int = 0
    last: Digest | None = None
    wrong: list[Looked] = field(default_factory=list)
    interrupted: bool = False

    @property
    def status(self) -> int:
        """The exit status."""
        if self.interrupted:
            return 130
        return 1 if self.wrong else 0


def verify(
    config: Config, *, repair: bool, rate: int, after: Digest | None, as_json: bool, out: TextIO
) -> int:
    """Hash everything, write what was found, and return the exit status. Raises CannotStart."""
    if repair and (not config.storage.delete_enabled or config.storage.readonly):
        raise CannotStart(
            "--repair removes what is wrong: it needs storage.delete.enabled: true, and no"
            " storage.maintenance.readonly"
        )
    found = Verified(last=after)
    try:
        asyncio.run(_verified(config, found, repair=repair, rate=rate, after=after))
    except KeyboardInterrupt:
        found.interrupted = True
    write(out, table(found), _as_json(found), as_json=as_json)
    return found.status


async def _verified(
    config: Config, found: Verified, *, repair: bool, rate: int, after: Digest | None
) -> None:
    async with opened(config) as store:
        try:
            await _all(store, found, repair=repair, rate=rate, after=after, progress=told_on(sys.stderr))
        except StorageError as error:
            behind = f"; go on with --after {found.last}" if found.last is not None else ""
            raise CannotStart(f"{error}{behind}") from error


async def _all(
    store: Store, found: Verified, *, repair: bool, rate: int, after: Digest | None, progress: Progress
) -> None:
    _, total = await held(store)
    async for one in rehashed(store, pace=Pace(rate, SystemClock()), after=after, repair=repair):
        found.count += 1
        found.bytes += one.size
        found.last = one.digest
        if one.wrong:
            found.wrong.append(one)
        progress("bytes hashed", found.bytes, total)


def table(found: Verified) -> list[str]:
    """What was found, as lines (pure)."""
    lines = [f"{one.digest} {one.wrong}{'; removed' if one.removed else ''}" for one in found.wrong]
    lines.append(
        f"{found.count:,} hashed, {found.bytes:,} bytes; {len(found.wrong):,} are not as they should be"
    )
    if found.interrupted and found.last is not None:
        lines.append(f"interrupted: go on with --after {found.last}")
    return lines


def _as_json(found: Verified) -> object:
    wrong: Sequence[object] = [
        {"digest": str(one.digest), "size": one.size, "found": one.wrong, "removed": one.removed}
        for one in found.wrong
    ]
    return {
        "hashed": found.count,
        "bytes": found.bytes,
        "wrong": wrong,
        "interrupted": found.interrupted,
        "after": str(found.last) if found.last is not None else None,
    }
