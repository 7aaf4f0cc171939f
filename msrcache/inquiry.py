"""The upstreams and the gate, built from the configuration: the part of the composition that a reload replaces.

    CurrentGate(AskingGate | BasicGate | OpenGate)   asks   Limited(Switch(Balanced([Upstream, …])))
    PullThrough fetches from ByAccount(Limited(Switch(…)))

A change is prepared first, which may fail and changes nothing, and then taken at once. What was remembered of
callers (verdicts, the upstream's challenge) stays where the same upstreams are asked by the same mode.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from msrcache import __version__
from msrcache.access.account import ByAccount
from msrcache.access.asking import AskingGate
from msrcache.access.basic import BasicGate, Checking
from msrcache.access.buckets import Buckets
from msrcache.access.caller import Fingerprints
from msrcache.access.current import ClosableGate, CurrentGate
from msrcache.access.htpasswd import Htpasswd
from msrcache.access.limited import Limited
from msrcache.access.open import OpenGate
from msrcache.access.passwords import Passwords
from msrcache.access.pinging import AnonymousPing
from msrcache.access.verdicts import Verdicts
from msrcache.config.cache import UpstreamEntry
from msrcache.config.model import Config
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.balance import Balanced
from msrcache.upstream.client import Upstream
from msrcache.upstream.settings import BalanceSettings, UpstreamSettings, proxy_environment
from msrcache.upstream.switch import Switch

NOBODY_ASKED = (
    "no upstream is configured: name the registry to cache as proxy.remoteurl, as cache.upstreams, or as the"
    " middleware downstream's upstreams"
)


class CannotStart(Exception):
    """One sentence that says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """Built and ready to be taken; `gate` is None where the present one stays."""

    config: Config
    balanced: Balanced
    gate: ClosableGate | None

    async def dropped(self) -> None:
        """It is not taken: something else of the new configuration does not hold."""
        await self.balanced.close()
        if self.gate is not None:
            await self.gate.close()


class Inquiry:
    """Who is asked, and who decides."""

    def __init__(self, config: Config, balanced: Balanced, *, metrics: Metrics, clock: Clock) -> None:
        self._config = config
        self._metrics = metrics
        self._clock = clock
        secret = config.secret
        self._fingerprints = Fingerprints(secret.get_secret_value() if secret else "")
        self._verdicts = Verdicts(clock=clock, ttl=config.access.verdict, grace=config.access.grace)
        self.upstream = Switch(balanced)
        self.asked = Limited(self.upstream, refusals=_refusals(config, clock))
        self.fetching = ByAccount(self.asked, active=_by_account(config))
        self.gate: CurrentGate

    @classmethod
    async def opened(cls, config: Config, *, metrics: Metrics, clock: Clock) -> "Inquiry":
        """All of it, for the start. Raises CannotStart, UpstreamSettingsError, AccountsError."""
        inquiry = cls(config, balanced(config, metrics, clock), metrics=metrics, clock=clock)
        try:
            inquiry.gate = CurrentGate(await inquiry._built(config))
        except BaseException:
            await inquiry.upstream.close()
            raise
        return inquiry

    async def prepared(self, config: Config) -> Change:
        """What this configuration asks for; nothing is changed yet. Raises as `opened`."""
        # Reads authorities and certificates while pulls are being served.
        upstreams = await asyncio.to_thread(balanced, config, self._metrics, self._clock)
        try:
            return Change(config, upstreams, None if self._same_gate(config) else await self._built(config))
        except BaseException:
            await upstreams.close()
            raise

    def take(self, change: Change) -> bool:
        """Ask and decide by the new configuration from now on. Whether other upstreams are asked than before."""
        old, config = self._config, change.config
        self._config = config
        self.upstream.change(change.balanced)
        self.asked.refusals = _refusals(config, self._clock)
        self.fetching.active = _by_account(config)
        self._verdicts.change(ttl=config.access.verdict, grace=config.access.grace)
        if change.gate is not None:
            self.gate.change(change.gate)
        elif isinstance(gate := self.gate.current, AskingGate):
            gate.patience = config.cache.freshness.budget
        others = _urls(old) != _urls(config)
        if others:
            self._verdicts.clear()
            self._forget_gauges(old, config)
        return others

    async def close(self) -> None:
        """Stop asking, end every connection."""
        await self.gate.close()
        await self.upstream.close()

    def _same_gate(self, config: Config) -> bool:
        old, new = self._config.access, config.access
        if old.mode != new.mode:
            return False
        if new.mode == "upstream":
            return _urls(self._config) == _urls(config)  # the challenge that it remembers is the upstream's
        return old.htpasswd == new.htpasswd and old.failures == new.failures

    async def _built(self, config: Config) -> ClosableGate:
        access = config.access
        if access.mode == "open":
            return OpenGate()
        if access.mode == "basic":
            return await self._basic(config)
        return AskingGate(
            upstream=self.asked,
            verdicts=self._verdicts,
            fingerprints=self._fingerprints,
            pings=AnonymousPing(upstream=self.asked, clock=self._clock),
            metrics=self._metrics,
            patience=config.cache.freshness.budget,
        )

    async def _basic(self, config: Config) -> BasicGate:
        access = config.access
        if access.htpasswd.path is None:
            raise CannotStart("access mode basic needs accounts: give cache.access.htpasswd.path")
        htpasswd = Htpasswd(Path(access.htpasswd.path), clock=self._clock)
        await htpasswd.load()
        burst = access.failures.per_minute or 1_000_000
        checking = Checking(
            passwords=Passwords(),
            addresses=Buckets(clock=self._clock, burst=burst),
            accounts=Buckets(clock=self._clock, burst=burst),
        )
        return BasicGate(
            htpasswd=htpasswd,
            realm=access.htpasswd.realm,
            fingerprints=self._fingerprints,
            checking=checking,
            clock=self._clock,
            metrics=self._metrics,
        )

    def _forget_gauges(self, old: Config, new: Config) -> None:
        """An upstream that is asked no more must not be told as away for ever."""
        for name in _names(old) - _names(new):
            with contextlib.suppress(KeyError):
                self._metrics.upstream_breaker_open.remove(name)


def balanced(config: Config, metrics: Metrics, clock: Clock) -> Balanced:
    """All upstreams as one. Raises CannotStart, UpstreamSettingsError."""
    section, freshness = config.cache.upstream, config.cache.freshness
    if not config.upstreams:
        raise CannotStart(NOBODY_ASKED)
    upstreams = [
        Upstream(_upstream_settings(entry, config), metrics=metrics, clock=clock)
        for entry in config.upstreams
    ]
    settings = BalanceSettings(
        retries=section.retries,
        retry_budget=section.retry_budget,
        failures=freshness.breaker.failures,
        open_for=freshness.breaker.open,
        # Below the budget after which a stale tag is served, else such pulls would never open the breaker.
        patience=min(2.0, freshness.budget / 2),
    )
    return Balanced(upstreams, settings, metrics=metrics, clock=clock)


def _refusals(config: Config, clock: Clock) -> Buckets:
    """Where callers' own credentials reach the upstream, a flood of refused ones must not."""
    return Buckets(clock=clock, burst=config.access.failures.per_minute)


def _by_account(config: Config) -> bool:
    """Whether a service account fetches what callers were admitted to by their own questions."""
    wanted = config.access.mode == "upstream" and config.access.fetch == "account"
    return wanted and any(entry.username for entry in config.upstreams)


def _urls(config: Config) -> set[str]:
    return {entry.url for entry in config.upstreams}


def _names(config: Config) -> set[str]:
    """As UpstreamSettings.name."""
    return {urlsplit(entry.url).netloc for entry in config.upstreams}


def _upstream_settings(entry: UpstreamEntry, config: Config) -> UpstreamSettings:
    section = config.cache.upstream
    return UpstreamSettings(
        url=entry.url,
        username=entry.username,
        password=_password(entry),
        offline_token=entry.offline_token,
        namespace=entry.namespace,
        ca=tuple(Path(path) for path in entry.ca),
        certificate=Path(entry.certificate) if entry.certificate else None,
        key=Path(entry.key) if entry.key else None,
        skipverify=entry.skip_verify,
        connect_timeout=section.connect_timeout,
        header_timeout=section.header_timeout,
        stall_timeout=section.stall_timeout,
        retries=section.retries,
        connections=section.connections,
        resolver=tuple(str(server) for server in section.resolver),
        user_agent=f"msrcache/{__version__}",
        environ=proxy_environment(),
    )


def _password(entry: UpstreamEntry) -> str:
    if entry.password_file:
        try:
            return Path(entry.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise CannotStart(
                f"the password file {entry.password_file} cannot be read: {error.strerror}"
            ) from error
    return entry.password.get_secret_value() if entry.password else ""
