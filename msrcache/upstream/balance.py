"""Balanced: several upstreams, or one, as one registry: in turn, failing over, leaving alone what is away.

Which one is asked is decided by `breaker`, shared by all pulls. One pull asks each upstream once without a
wait, then in further rounds with growing waits, within a budget of seconds; a Retry-After is waited for if it
fits into the budget. Where all are away it fails at once. Every request is a GET or HEAD, so each may be
repeated.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from msrcache.oci.errors import (
    RETRY_AFTER,
    RegistryError,
    TooManyRequests,
    Unavailable,
    UpstreamBroken,
    UpstreamUnavailable,
)
from msrcache.oci.pulls import BlobPull, ManifestPull, Relayed
from msrcache.oci.registry import Answer, Blob, Elsewhere, Manifest, Registry, Resolution
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics
from msrcache.telemetry.trail import TRAIL
from msrcache.upstream.breaker import Ask, Away, Breaker, NextRound, Verdict, choose, ended, started
from msrcache.upstream.failover import FailoverBody, Opened, open_blob
from msrcache.upstream.retry import Random, jittered
from msrcache.upstream.settings import BalanceSettings

T = TypeVar("T")

TOLD_EVERY = 30.0
"""Seconds between two lines about one upstream that fails."""

log = get_logger(__name__)

_WORTH_ANOTHER = (UpstreamUnavailable, TooManyRequests, UpstreamBroken)


class NamedRegistry(Registry, Protocol):
    """An upstream with the name that messages and metrics use."""

    @property
    def name(self) -> str:
        """Host, and port where one is written."""

    async def close(self) -> None:
        """Ends every connection."""


@dataclass(slots=True)
class _Campaign:
    """One pull's attempts."""

    deadline: float
    tried: frozenset[int] = frozenset()
    rounds: int = 0
    errors: list[RegistryError] = field(default_factory=list)

    @property
    def worst(self) -> RegistryError | None:
        """What to say if it ends here: an outage before nonsense, the latest before older ones."""
        outages = [error for error in self.errors if not isinstance(error, UpstreamBroken)]
        found = outages or self.errors
        return found[-1] if found else None


class Balanced:
    """Upstreams that hold the same content."""

    def __init__(
        self,
        upstreams: Sequence[NamedRegistry],
        settings: BalanceSettings | None = None,
        *,
        metrics: Metrics,
        clock: Clock,
        chance: Random = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not upstreams:
            raise ValueError("there must be an upstream")
        self._upstreams = tuple(upstreams)
        self._settings = settings or BalanceSettings()
        self._gauge = metrics.upstream_breaker_open
        self._clock = clock
        self._chance = chance
        self._sleep = sleep
        self._breakers = [Breaker() for _ in self._upstreams]
        self._turn = -1
        self._told: dict[int, float] = {}
        for upstream in self._upstreams:
            self._gauge.labels(upstream.name).set(0)

    def __repr__(self) -> str:
        states = (
            f"{upstream.name} {'away' if breaker.is_open else 'ok'}"
            for upstream, breaker in zip(self._upstreams, self._breakers, strict=True)
        )
        return f"<Balanced [{', '.join(states)}]>"

    @property
    def name(self) -> str:
        """All their names."""
        return ", ".join(upstream.name for upstream in self._upstreams)

    def degraded(self) -> str | None:
        """Which upstreams are left alone because they failed, in a sentence; None if none is."""
        away = [u.name for u, b in zip(self._upstreams, self._breakers, strict=True) if b.is_open]
        if not away:
            return None
        return f"{len(away)} of {len(self._upstreams)} upstreams cannot be asked: {', '.join(away)}"

    async def close(self) -> None:
        """Closes them all."""
        for upstream in self._upstreams:
            await upstream.close()

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        """As Registry.resolve."""
        return await self._ask(lambda upstream: upstream.resolve(pull))

    async def manifest(self, pull: ManifestPull) -> Manifest:
        """As Registry.manifest."""
        return await self._ask(lambda upstream: upstream.manifest(pull))

    async def relay(self, pull: Relayed) -> Answer:
        """As Registry.relay."""
        return await self._ask(lambda upstream: upstream.relay(pull))

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        """As Registry.blob: a body that breaks for good on one upstream goes on from another."""
        opened = await self._open(pull, None)
        blob = opened.blob
        if isinstance(blob.body, Elsewhere):
            async with opened.stack:
                yield blob
            return
        body = FailoverBody(pull, opened, reopen=self._reopen, retries=self._settings.retries)
        try:
            yield Blob(blob.descriptor, blob.span, blob.outcome, body, blob.resume)
        finally:
            await body.close()

    async def _open(self, pull: BlobPull, avoid: int | None) -> Opened:
        return await self._ask(lambda upstream: open_blob(upstream, pull, self._index(upstream)), avoid=avoid)

    async def _reopen(self, pull: BlobPull, left: Opened, error: RegistryError) -> Opened:
        if isinstance(error, UpstreamUnavailable):
            self._end(left.index, Verdict.OUTAGE, probe=False)
        return await self._open(pull, left.index)

    def _index(self, upstream: NamedRegistry) -> int:
        return self._upstreams.index(upstream)

    async def _ask(self, call: Callable[[NamedRegistry], Awaitable[T]], *, avoid: int | None = None) -> T:
        """The first answer; a refusal is one. Raises what the last attempt raised."""
        self._turn = (self._turn + 1) % len(self._upstreams)
        turn = self._turn
        campaign = _Campaign(self._clock.monotonic() + self._settings.retry_budget)
        if avoid is not None and len(self._upstreams) > 1:
            campaign.tried = frozenset({avoid})
        while True:
            choice = choose(self._breakers, turn=turn, tried=campaign.tried, now=self._clock.monotonic())
            match choice:
                case Ask():
                    try:
                        return await self._attempt(choice, call)
                    except _WORTH_ANOTHER as error:
                        campaign.errors.append(error)
                        campaign.tried |= {choice.index}
                case NextRound():
                    await self._pause(campaign)
                case Away(retry_after):
                    raise self._away(campaign, retry_after)

    async def _attempt(self, choice: Ask, call: Callable[[NamedRegistry], Awaitable[T]]) -> T:
        began = self._clock.monotonic()
        if (trail := TRAIL.get()) is not None:
            trail.asked(self._upstreams[choice.index].name)
        verdict = Verdict.NOTHING
        self._breakers[choice.index] = started(self._breakers[choice.index], probe=choice.probe)
        try:
            result = await call(self._upstreams[choice.index])
            verdict = Verdict.ANSWERED
            return result
        except UpstreamUnavailable as error:
            verdict = Verdict.OUTAGE
            self._tell(choice.index, error)
            raise
        except Unavailable:
            raise  # we never got to ask: all our own connections were busy
        except RegistryError:
            verdict = Verdict.ANSWERED
            raise
        except asyncio.CancelledError:
            # Who has a budget of seconds leaves before our time-outs end: without this a silent upstream
            # would never open the breaker, and every pull would wait its budget out.
            if self._clock.monotonic() - began >= self._settings.patience:
                verdict = Verdict.OUTAGE
            raise
        finally:
            self._end(choice.index, verdict, probe=choice.probe)

    def _tell(self, index: int, error: UpstreamUnavailable) -> None:
        """One line when an upstream begins to fail, and now and then while it does: not one for each pull."""
        now = self._clock.monotonic()
        if now - self._told.get(index, -TOLD_EVERY) >= TOLD_EVERY:
            self._told[index] = now
            log.error("upstream cannot be asked", upstream=self._upstreams[index].name, error=error.message)

    def _end(self, index: int, verdict: Verdict, *, probe: bool) -> None:
        now = self._clock.monotonic()
        breaker = ended(self._breakers[index], verdict, probe=probe, now=now, settings=self._settings)
        self._breakers[index] = breaker
        self._gauge.labels(self._upstreams[index].name).set(float(breaker.is_open))

    async def _pause(self, campaign: _Campaign) -> None:
        """Waits for the next round, or raises: what was asked is nonsense everywhere, or the budget is spent."""
        worst = campaign.worst
        if isinstance(worst, UpstreamBroken):
            raise worst
        campaign.rounds += 1
        wait = jittered(self._settings.retry_wait, campaign.rounds, self._chance)
        asked = [error.retry_after for error in campaign.errors if error.retry_after is not None]
        wait += min(asked, default=0.0)
        spent = self._clock.monotonic() + wait > campaign.deadline
        if worst is not None and (campaign.rounds > self._settings.retries or spent):
            raise self._final(worst)
        campaign.tried = frozenset()
        campaign.errors.clear()
        await self._sleep(wait)

    def _final(self, error: RegistryError) -> RegistryError:
        if isinstance(error, UpstreamUnavailable) and error.retry_after is not None:
            return error
        return UpstreamUnavailable(error.message, retry_after=error.retry_after or RETRY_AFTER)

    def _away(self, campaign: _Campaign, retry_after: float) -> RegistryError:
        worst = campaign.worst
        why = f"; the last error: {worst.message}" if worst else ""
        return UpstreamUnavailable(
            f"every upstream is left alone for a moment because it failed ({self.name}){why}",
            retry_after=retry_after,
        )
