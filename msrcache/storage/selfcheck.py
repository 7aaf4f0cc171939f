"""The proof at the start: a second or two in which the store shows whether replicas can share it.

States: waiting -> proved, once every promise was found kept, broken or not promised.

Rules:
1. What is broken is one warning and a metric. Without `create` or `exclusive-create` the store's create is not relied
   on any more. Nothing of it stops the cache, unless the operator requires the promise.
2. A store that cannot be asked has broken nothing: the cache starts degraded, and the proof is tried again until
   there is an answer. What is required and then found broken is told as loudly as what cannot be undone.
3. Two drivers prove it (`Store.elsewhere`), beside the store's own deadlines, retries and breaker.
"""

import asyncio
import secrets
from collections.abc import Collection, Sequence
from typing import Final

from msrcache.storage.probe import Row, Verdict, probe
from msrcache.storage.promises import SMALL
from msrcache.storage.store import PROBE, Store
from msrcache.storage.watched import Ledger
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

AGAIN: Final = 60.0
"""Seconds until a store that could not be asked is asked again; twice as long each time, at most RARELY."""

RARELY: Final = 3600.0

DEADLINE: Final = 5.0
"""Seconds for one call."""

AT_START: Final = tuple(promise for promise in SMALL if promise.at_start)

CREATES: Final = ("create", "exclusive-create")
"""Promises without which a create is not relied on."""

log = get_logger(__name__)


async def prove_create(store: Store, *, clock: Clock) -> None:
    """Find out whether the store's creates can be relied on, for a command, which proves nothing else.

    A store that cannot be asked has broken nothing.
    """
    if not store.create_is_exclusive:
        return
    here, there = store.driver, store.elsewhere().driver
    promises = [promise for promise in AT_START if promise.name in CREATES]
    prefix = PROBE + secrets.token_hex(8)
    report = await probe(here, there, promises, prefix=prefix, ledger=Ledger(clock, DEADLINE))
    if any(row.verdict in (Verdict.BROKEN, Verdict.DENIED) for row in report.rows):
        store.create_is_exclusive = False


class SelfCheck:
    """What a store was found to promise."""

    def __init__(
        self, store: Store, *, required: Collection[str], metrics: Metrics, clock: Clock, again: float = AGAIN
    ) -> None:
        """`required` are names of promises."""
        self._store = store
        self._required = frozenset(required)
        self._metrics = metrics
        self._clock = clock
        self._again = again
        self._broken: Sequence[Row] = ()
        self._asked = False

    def __repr__(self) -> str:
        return f"<SelfCheck {', '.join(row.promise.name for row in self._broken) or 'nothing'} broken>"

    async def run(self) -> None:
        """Find out whether it can be written, then prove; again until it could be asked. Where the operator allows no
        writes there is nothing to prove.
        """
        await self._store.start()
        self._asked = True  # how it answered is told by the store
        if not self._store.allowed:
            return
        wait = self._again
        while not await self._proved():
            await asyncio.sleep(wait)
            wait = min(RARELY, wait * 2)

    def trouble(self) -> str | None:
        """What is broken and what follows, in words; None where nothing is known to be."""
        if not self._asked:
            return "the store has not answered since the start"
        return "; ".join(_sentence(row) for row in self._broken) or None

    def refusal(self) -> str | None:
        """Why the cache must not start; None where it may."""
        missing = [row for row in self._broken if row.promise.name in self._required]
        if not missing:
            return None
        return (
            f"cache.storage.require asks for {' and '.join(row.promise.name for row in missing)}, and the store does"
            f" not keep it: {'; '.join(row.said for row in missing)}"
        )

    async def _proved(self) -> bool:
        """Whether every promise has its verdict. A store that refuses to be written tells that itself."""
        if not self._store.writable:
            return False
        here, there = self._store.driver, self._store.elsewhere().driver
        prefix = PROBE + secrets.token_hex(8)
        report = await probe(here, there, AT_START, prefix=prefix, ledger=Ledger(self._clock, DEADLINE))
        told = {row.promise.name for row in self._broken}
        for row in report.rows:
            self._tell(row, again=row.promise.name in told)
        self._broken = [row for row in report.rows if self._counts(row)]
        if any(row.promise.name in CREATES for row in self._broken):
            self._store.create_is_exclusive = False
        return all(row.verdict is not Verdict.UNKNOWN for row in report.rows)

    def _counts(self, row: Row) -> bool:
        """Whether it is broken; what nobody promised is, where the operator requires it."""
        if row.verdict is Verdict.UNCLAIMED:
            return row.promise.name in self._required
        return row.verdict in (Verdict.BROKEN, Verdict.DENIED)

    def _tell(self, row: Row, *, again: bool) -> None:
        if row.verdict is not Verdict.UNKNOWN:
            broken = self._counts(row)
            self._metrics.storage_promise_broken.labels(row.promise.name).set(int(broken))
            if broken and not again:
                log.warning("store does not keep a promise", promise=row.promise.name, error=_sentence(row))


def _sentence(row: Row) -> str:
    return f"not kept: {row.promise.words} ({row.said}); {row.promise.follows}"
