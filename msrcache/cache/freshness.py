"""Which digest a tag names now, and for how long an answer may be used.

Rules:
1. By default every pull of a tag asks the upstream with HEAD; the answer is the caller's verdict too. Equal
   questions of one caller asked at once are asked once.
2. Within ``ttl``, or for a tag that matches an ``immutable`` pattern, the last answer is used; the caller's right is
   still asked for.
3. The upstream is away, or has not answered within ``budget`` and there is something to serve: the last known digest
   is served to callers who may read it while the upstream cannot be asked, and is marked stale.
4. A refusal (401, 403, 404) is an answer, never a reason for staleness.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from msrcache.cache.flight import Flights
from msrcache.cache.links import Links
from msrcache.oci.digest import Digest
from msrcache.oci.errors import UpstreamUnavailable
from msrcache.oci.names import Repository, Tag
from msrcache.oci.pulls import ManifestPull
from msrcache.oci.registry import Credential, Registry, Resolution
from msrcache.telemetry.clock import Clock

REMEMBERED = 50_000
"""Tags whose last answer is kept in memory."""

Subject = tuple[Repository, Tag, tuple[str, ...]]
"""What a tag names may depend on the media types asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessSettings:
    """Seconds; ``immutable`` holds patterns of whole ``repository:tag`` texts."""

    ttl: float = 0.0
    budget: float = 3.0
    immutable: Sequence[re.Pattern[str]] = ()


@dataclass(frozen=True, slots=True)
class Named:
    """What the tag names; ``stale`` when the upstream could not be asked."""

    digest: Digest
    resolution: Resolution | None
    stale: bool = False


class Freshness:
    """Resolves tags."""

    def __init__(self, upstream: Registry, links: Links, clock: Clock, settings: FreshnessSettings) -> None:
        self._upstream = upstream
        self._links = links
        self._clock = clock
        self._settings = settings
        self._asking: Flights[tuple[Subject, Credential | None], Resolution] = Flights()
        self._answers: OrderedDict[Subject, tuple[Resolution, float]] = OrderedDict()

    async def resolve(self, pull: ManifestPull) -> Named:
        """The digest that the pull's tag names, for a caller who may know it. Raises as the upstream refuses."""
        tag = _tag_of(pull)
        fixed = self._immutable(pull.repository, tag)
        kept = self._kept(_subject(pull), fixed=fixed)
        if kept is not None:
            await pull.right.ask(pull)
            return Named(kept.descriptor.digest, kept)
        if fixed and (digest := await self._links.tagged(pull.repository, tag)) is not None:
            await pull.right.ask(pull)
            return Named(digest, None)
        return await self._asked(pull, tag)

    def change(self, settings: FreshnessSettings) -> None:
        """Other settings, from the next pull on."""
        self._settings = settings

    def forget(self) -> None:
        """Another upstream is asked from now on: no answer so far may be used without asking."""
        self._answers.clear()

    async def close(self) -> None:
        """Stop the questions that are under way."""
        await self._asking.close()

    async def _asked(self, pull: ManifestPull, tag: Tag) -> Named:
        flight = asyncio.ensure_future(self._question(pull))
        try:
            done, _ = await asyncio.wait({flight}, timeout=self._settings.budget)
            if done:
                return _fresh(flight.result())
            try:
                stale = await self._stale(pull, tag)
            except UpstreamUnavailable:
                stale = None  # no grace for this caller: slow is not away, so the answer is waited for
            return stale if stale is not None else _fresh(await flight)
        except UpstreamUnavailable:
            stale = await self._stale(pull, tag)
            if stale is None:
                raise
            return stale
        finally:
            flight.cancel()

    async def _question(self, pull: ManifestPull) -> Resolution:
        question = replace(pull, head=True)
        key = (_subject(pull), pull.right.credential)
        landed = await self._asking.fly(key, lambda: self._upstream.resolve(question))
        pull.right.granted(pull.repository)
        self._answers[_subject(pull)] = (landed.result, self._clock.monotonic())
        self._answers.move_to_end(_subject(pull))
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return landed.result

    async def _stale(self, pull: ManifestPull, tag: Tag) -> Named | None:
        """The last known digest, for a caller who may have it while the upstream is away; None if unknown.

        Another replica may have resolved the tag since this one did, so the store is asked first.
        """
        digest = await self._links.tagged(pull.repository, tag)
        if digest is None:
            answer = self._answers.get(_subject(pull))
            if answer is None:
                return None
            digest = answer[0].descriptor.digest
        await pull.right.ask(pull, unreachable=True)
        return Named(digest, None, stale=True)

    def _kept(self, subject: Subject, *, fixed: bool) -> Resolution | None:
        resolution, since = self._answers.get(subject, (None, 0.0))
        young = self._clock.monotonic() - since < self._settings.ttl
        return resolution if fixed or young else None

    def _immutable(self, repository: Repository, tag: Tag) -> bool:
        name = f"{repository}:{tag}"
        return any(pattern.fullmatch(name) for pattern in self._settings.immutable)


def _fresh(resolution: Resolution) -> Named:
    return Named(resolution.descriptor.digest, resolution)


def _subject(pull: ManifestPull) -> Subject:
    return pull.repository, _tag_of(pull), pull.accept


def _tag_of(pull: ManifestPull) -> Tag:
    assert isinstance(pull.reference, Tag)
    return pull.reference
