"""Proving a store's promises, one after the other, and reporting on them in words.

Rules:
1. Each promise ends as kept, broken, not promised, not allowed (a permission is missing) or not checked.
2. A store that cannot be asked twice in a row is not asked further: the rest is not checked.
3. Everything that was written is removed, also when the probe is interrupted; what could not be is told.
Not here: what is proved (`promises`), and what is done about it at the start (`selfcheck`).
"""

import asyncio
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from msrcache.storage.driver import Driver
from msrcache.storage.errors import Denied, NotFound, RangeNotSatisfiable, StorageError, Unavailable, Unusable
from msrcache.storage.promises import Promise
from msrcache.storage.stage import Broken, NotPromised, Stage
from msrcache.storage.watched import Call, Ledger, Watched

OPERATIONS: Final = (
    "stat",
    "open",
    "put",
    "create",
    "writer",
    "write",
    "commit",
    "delete",
    "list",
    "presign",
    "sweep",
)
"""What needs a permission, in the order in which it is told."""


class Verdict(StrEnum):
    """How the proof of a promise ended."""

    KEPT = "kept"
    BROKEN = "broken"
    UNCLAIMED = "not promised"
    DENIED = "not allowed"
    UNKNOWN = "not checked"


@dataclass(frozen=True, slots=True)
class Row:
    """One promise as it was found; `seconds` is the median round trip of its calls."""

    promise: Promise
    verdict: Verdict
    said: str = ""
    seconds: float | None = None

    @property
    def troubles(self) -> bool:
        """Whether something has to be done, or to be known."""
        return self.verdict not in (Verdict.KEPT, Verdict.UNCLAIMED)


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether this account may do an operation; None where it was not tried or failed otherwise."""

    operation: str
    allowed: bool | None
    said: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found; `left` are keys that could not be removed."""

    rows: Sequence[Row]
    permissions: Sequence[Permission]
    left: Sequence[str]

    @property
    def status(self) -> int:
        """0: nothing to do; 1: it can be used, with what the rows say; 2: replicas cannot share it."""
        if any(row.promise.vital and row.verdict is not Verdict.KEPT for row in self.rows):
            return 2
        return int(bool(self.left) or any(row.troubles for row in self.rows))


async def probe(
    here: Driver,
    there: Driver,
    promises: Iterable[Promise],
    *,
    prefix: str,
    ledger: Ledger,
    near: Driver | None = None,
) -> Report:
    """Prove the promises. Raises nothing but CancelledError; what is written is gone then too.

    `near` is another connection of this machine, where `there` is on another machine.
    """
    watched = [Watched(driver, ledger) for driver in (here, there, near or there)]
    stage = Stage(watched[0], watched[1], prefix=prefix, ledger=ledger, near=watched[2])
    rows: list[Row] = []
    left: Sequence[str] = ()
    try:
        for promise in promises:
            rows.append(await _proved(promise, stage, rows))
    finally:
        calls = tuple(ledger.calls)
        left = await _to_its_end(asyncio.create_task(stage.clean()))
    return Report(rows=rows, permissions=permissions_of(calls), left=left)


async def _to_its_end(cleaning: "asyncio.Task[Sequence[str]]") -> Sequence[str]:
    """Its result; who is cancelled meanwhile is cancelled after it. It ends by itself: it makes few calls, each with a
    deadline.
    """
    cancelled: asyncio.CancelledError | None = None
    while not cleaning.done():
        try:
            await asyncio.wait({cleaning})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return cleaning.result()


def permissions_of(calls: Sequence[Call]) -> list[Permission]:
    """What the calls tell about what may be done (pure)."""
    found = []
    for operation in OPERATIONS:
        ended = [call for call in calls if call.operation == operation]
        denied = next((call.error for call in ended if isinstance(call.error, Denied)), None)
        answered = [call for call in ended if call.error is None or _answers(call.error)]
        allowed = False if denied is not None else True if answered else None
        said = str(denied) if denied is not None else ""
        found.append(Permission(operation, allowed, said, _median(answered)))
    return found


async def _proved(promise: Promise, stage: Stage, before: Sequence[Row]) -> Row:
    first = len(stage.ledger.calls)
    if _hopeless(before):
        return Row(promise, Verdict.UNKNOWN, "not tried: the store cannot be asked")
    verdict, said = await _ending(promise, stage)
    return Row(promise, verdict, said, _median(stage.ledger.calls[first:]))


async def _ending(promise: Promise, stage: Stage) -> tuple[Verdict, str]:
    try:
        await promise.prove(stage)
    except Broken as error:
        return Verdict.BROKEN, str(error)
    except NotPromised as error:
        return Verdict.UNCLAIMED, str(error)
    except Denied as error:
        return Verdict.DENIED, str(error)
    except (Unavailable, Unusable) as error:
        return Verdict.UNKNOWN, str(error)
    except StorageError as error:
        return Verdict.BROKEN, f"it failed: {error}"
    except TimeoutError:
        return Verdict.UNKNOWN, f"a body stood still for {stage.ledger.deadline:g} s"
    return Verdict.KEPT, ""


def _hopeless(before: Sequence[Row]) -> bool:
    return len(before) >= 2 and all(row.verdict is Verdict.UNKNOWN for row in before[-2:])


def _answers(error: StorageError) -> bool:
    return isinstance(error, NotFound | RangeNotSatisfiable)


def _median(calls: Sequence[Call]) -> float | None:
    seconds = [call.seconds for call in calls if call.error is None or _answers(call.error)]
    return statistics.median(seconds) if seconds else None
