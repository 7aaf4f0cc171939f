"""The janitor: one replica at a time, for all, marks what is due and deletes what has stayed marked and unused.

A look, in this order (protocols, section 5); it may end anywhere, and the next one goes on:
1. merge: journals into what is known, and the plan from that.
2. condemn: what is due and has no mark gets one. Replicas that serve such a blob remove it (`condemned`).
3. ripe: a mark older than `wait` by the store's clock, so that no belief, no URL and no use that is not written down
   can be older than it. Not due any more, or used since: the mark is removed, and the blob stays.
4. journals once more, last of all; then each mark is looked at once more and its blob deleted: what names nothing
   first, a manifest only when all that it names has gone.
5. links of what has gone, so that no repository names it.

What is lost at worst, where it is raced, is one pull's worth of work. Without terms nothing is due; then this is only
litter of our own (`litter`).
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from msrcache.cache.expiry import Due, Terms
from msrcache.cache.layout import blob_key, condemned_key
from msrcache.cache.ledger import Ledger, Progress, marks, silent
from msrcache.cache.plan import Plan, height, planned
from msrcache.cache.unlink import unlink
from msrcache.oci.digest import Digest
from msrcache.storage.errors import NotFound
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics

T = TypeVar("T")

AT_ONCE: Final = 8
"""Blobs that are marked or deleted at once."""
MARK: Final = 4096
"""Bytes of a mark that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What expires, and how long it is condemned before it is deleted (seconds)."""

    terms: Terms
    pins: Sequence[re.Pattern[str]] = ()
    wait: float


def wait_of(*, belief: float, lifetime: float, journal: float) -> float:
    """How long a blob is condemned (pure). Two intervals for a use to be written down and listed; and a replica knows a
    mark after two at most, from when on it sends nobody there, so a URL that it gave before has ended too.
    """
    return max(belief + lifetime, 2 * journal) + 2 * journal


@dataclass(slots=True)
class Done:
    """What a look did."""

    moment: float = 0.0
    plan: Plan = field(default_factory=Plan)
    blobs: int = 0
    held: int = 0
    condemned: int = 0
    kept: int = 0
    deleted: int = 0
    bytes: int = 0


class Janitor:
    """Looks and deletes; whether it may is the caller's to know: `lost` tells when no more."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        policy: Policy,
        *,
        metrics: Metrics,
        lost: Callable[[], bool],
        progress: Progress = silent,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._policy = policy
        self._metrics = metrics
        self._lost = lost
        self._progress = progress

    def __repr__(self) -> str:
        return f"<Janitor {self._policy}>"

    async def look(self) -> Done:
        """All of it, once. Raises StorageError, Blocked."""
        done = Done(moment=await self._ledger.moment())
        await self._merge(done)
        marked = await marks(self._store)
        done.condemned = await self._condemn(one for one in done.plan.due if one.digest not in marked)
        ripe = [one for one, since in marked.items() if done.moment - since >= self._policy.wait]
        if ripe:
            await self._carry_out(ripe, marked, done)
        return done

    async def _merge(self, done: Done) -> None:
        used = await self._ledger.used()
        holdings = await self._ledger.holdings(used, now=done.moment, write=True)
        self._metrics.journals_total.labels("merged").inc(len(used.journals))
        done.blobs, done.held = len(holdings), holdings.bytes
        self._metrics.held_blobs.set(done.blobs)
        self._metrics.held_bytes.set(done.held)
        done.plan = await planned(
            self._store,
            holdings,
            self._policy.terms,
            pins=self._policy.pins,
            now=done.moment,
            progress=self._progress,
        )

    async def _condemn(self, due: Iterable[Due]) -> int:
        async def mark(one: Due) -> bool:
            text = json.dumps({"v": 1, "why": one.why.value, "size": one.record.size})
            await self._store.put(condemned_key(one.digest), text.encode())
            self._metrics.condemned_total.labels(one.why.value).inc()
            return True

        return len(await self._each("condemned", list(due), mark))

    async def _carry_out(self, ripe: Sequence[Digest], marked: dict[Digest, float], done: Done) -> None:
        due = {one.digest: one for one in done.plan.due}
        wanted = [one for one in ripe if one in due and due[one].record.used <= marked[one]]
        again = (await self._ledger.used()).last
        going = {one for one in wanted if again.get(one, 0.0) <= marked[one]}
        done.kept = len(ripe) - len(going)
        used = [one for one in ripe if one in due and one not in going]
        self._metrics.rescued_total.labels("janitor").inc(len(used))
        await self._each("kept", [one for one in ripe if one not in going], self._unmark)
        names = done.plan.names
        standing = set(due)
        # As the plan has them: what names nothing first, then manifests, then their indexes.
        for level in _levels([one for one in done.plan.due if one.digest in going], names):
            free = [one for one in level if not standing.intersection(names.get(one.digest, ()))]
            gone = await self._each("deleted", free, lambda one: self._delete(one, marked[one.digest]))
            standing.difference_update(one.digest for one in gone)
            done.deleted += len(gone)
            done.bytes += sum(one.record.size for one in gone)
        await unlink(self._store, set(due) - standing, progress=self._progress)

    async def _unmark(self, digest: Digest) -> bool:
        await self._store.delete(condemned_key(digest))
        return True

    async def _delete(self, one: Due, since: float) -> bool:
        """Whether it has gone: not where the mark has, for then somebody serves it."""
        try:
            data = await self._store.get(condemned_key(one.digest), MARK)
        except NotFound:
            return False
        if not _known(data):
            return False
        key = blob_key(one.digest)
        with suppress(NotFound):
            info = await self._store.stat(key)
            if info.modified > since:
                return not await self._unmark(one.digest)  # it was brought in anew since it was condemned
            await self._store.delete_version(key, info)
        await self._unmark(one.digest)
        self._metrics.expired_total.labels(one.why.value).inc()
        self._metrics.expired_bytes_total.inc(one.record.size)
        return True

    async def _each(self, what: str, items: Sequence[T], work: Callable[[T], Awaitable[bool]]) -> list[T]:
        """Do it for each, some at once, as long as it is ours to do; those for which it was done."""
        done: list[T] = []
        for start in range(0, len(items), AT_ONCE):
            if self._lost():
                break
            self._progress(what, start, len(items))
            some = items[start : start + AT_ONCE]
            results = await asyncio.gather(*(work(one) for one in some), return_exceptions=True)
            for one, result in zip(some, results, strict=True):
                if isinstance(result, BaseException):
                    raise result
                if result:
                    done.append(one)
        return done


def _known(data: bytes) -> bool:
    """Whether a mark is of a version that is known (pure); else it stays, and the blob with it."""
    try:
        version = json.loads(data)["v"]
    except (ValueError, TypeError, LookupError):
        return False
    return type(version) is int and version <= 1


def _levels(due: Sequence[Due], names: dict[Digest, tuple[Digest, ...]]) -> list[list[Due]]:
    """What names nothing; manifests; indexes of those (pure)."""
    levels: list[list[Due]] = [[], [], []]
    for one in due:
        levels[height(one.digest, names)].append(one)
    return levels
