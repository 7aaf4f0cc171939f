"""`msrcache gc [--dry-run] [CONFIG]`: what has expired, why, since when, how many bytes; as a table or as JSON.

Without --dry-run it is one look of the janitor (cache/janitor): what is due is condemned, and what has been condemned
for long enough, and was not used since, is deleted. The dry run reads the store and writes one object of ours, by
which it asks the store what time it is.

Exit status: 0 done; 1 another replica is at it; 2 nothing could be said.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TextIO, TypeVar

from msrcache.cache.expiry import Due
from msrcache.cache.janitor import Done, Janitor
from msrcache.cache.ledger import Blocked, Ledger, Progress, marks
from msrcache.cache.plan import planned
from msrcache.cache.replica import new_replica_id
from msrcache.command import opened, told_on, write
from msrcache.config.model import Config
from msrcache.expiring import JANITOR, policy_of
from msrcache.inquiry import CannotStart
from msrcache.leases import Visitor
from msrcache.oci.digest import Digest
from msrcache.storage.errors import StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a look found. `moment`: by the store's clock."""

    moment: float
    blobs: int
    held: int
    due: Sequence[Due]
    condemned: frozenset[Digest]


def gc(config: Config, *, dry_run: bool, as_json: bool, out: TextIO) -> int:
    """Write what is due, or what was done, and return the exit status. Raises CannotStart."""
    if dry_run:
        findings = asyncio.run(_with_store(config, look))
        lines, answer = table(findings), _as_json(findings)
    else:
        if config.storage.readonly:
            raise CannotStart("nothing may be deleted: storage.maintenance.readonly is set")
        done = asyncio.run(_with_store(config, _deleted))
        lines, answer = told(done, policy_of(config).wait), _done_as_json(done)
        if done is None:
            write(out, lines, answer, as_json=as_json)
            return 1
    write(out, lines, answer, as_json=as_json)
    return 0


async def _with_store(config: Config, work: Callable[[Store, Config, Progress], Awaitable[T]]) -> T:
    if not config.expires:
        raise CannotStart(
            "nothing expires: it needs storage.delete.enabled: true, and blobttl or cache.expiry.budget"
        )
    async with opened(config) as store:
        try:
            return await work(store, config, told_on(sys.stderr))
        except (StorageError, Blocked) as error:
            raise CannotStart(str(error)) from error


async def _deleted(store: Store, config: Config, progress: Progress) -> Done | None:
    """One look; None where another replica has its turn."""
    replica = new_replica_id()
    clock, metrics = SystemClock(), Metrics()
    visitor = Visitor(store, config, replica=replica, metrics=metrics, clock=clock)
    async with visitor.named(JANITOR) as held:
        if held is None:
            return None
        janitor = Janitor(
            store,
            Ledger(store, replica=replica, progress=progress),
            policy_of(config),
            metrics=metrics,
            lost=lambda: held.lost,
            progress=progress,
        )
        return await janitor.look()


async def look(store: Store, config: Config, progress: Progress) -> Findings:
    """What is due now. Raises StorageError, Blocked."""
    ledger = Ledger(store, replica=new_replica_id(), progress=progress)
    now = await ledger.moment()
    holdings = await ledger.holdings(await ledger.used(), now=now, write=False)
    policy = policy_of(config)
    plan = await planned(store, holdings, policy.terms, pins=policy.pins, now=now, progress=progress)
    return Findings(
        moment=now,
        blobs=len(holdings),
        held=holdings.bytes,
        due=plan.due,
        condemned=frozenset(await marks(store)),
    )


def table(findings: Findings) -> list[str]:
    """What is due, as lines (pure)."""
    lines = [f"{'why':<8} {'last used':<20} {'bytes':>15}  {'state':<9} digest"] if findings.due else []
    for one in findings.due:
        state = "condemned" if one.digest in findings.condemned else ""
        lines.append(
            f"{one.why:<8} {when(one.record.used):<20} {one.record.size:>15,}  {state:<9} {one.digest}"
        )
    size = sum(one.record.size for one in findings.due)
    lines.append(
        f"{len(findings.due):,} of {findings.blobs:,} blobs and manifests are due,"
        f" {size:,} of {findings.held:,} bytes; {len(findings.condemned):,} are condemned"
    )
    return lines


def told(done: Done | None, wait: float) -> list[str]:
    """What was done, as lines (pure)."""
    if done is None:
        return ["another replica is looking for what has expired: nothing was done here"]
    lines = [
        f"{len(done.plan.due):,} of {done.blobs:,} blobs and manifests are due, of {done.held:,} bytes in all",
        f"deleted: {done.deleted:,}, {done.bytes:,} bytes; not due any more, or used since: {done.kept:,}",
    ]
    if done.condemned:
        lines.append(
            f"condemned now: {done.condemned:,}; deleted by a look after {when(done.moment + wait)}, unless used"
        )
    return lines


def _done_as_json(done: Done | None) -> object:
    if done is None:
        return {"done": False}
    return {
        "done": True,
        "blobs": done.blobs,
        "bytes": done.held,
        "due": len(done.plan.due),
        "condemned": done.condemned,
        "kept": done.kept,
        "deleted": done.deleted,
        "deletedBytes": done.bytes,
    }


def when(stamp: float) -> str:
    """A moment for people."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stamp))


def _as_json(findings: Findings) -> object:
    return {
        "moment": when(findings.moment),
        "blobs": findings.blobs,
        "bytes": findings.held,
        "due": [
            {
                "digest": str(one.digest),
                "why": one.why.value,
                "lastUsed": when(one.record.used),
                "size": one.record.size,
                "condemned": one.digest in findings.condemned,
            }
            for one in findings.due
        ],
        "condemned": len(findings.condemned),
    }
