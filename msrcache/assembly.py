"""The composition root: the architecture on one page, and the only module that knows all the others.

    gate + PullThrough(Limited(Balanced([Upstream, …])), Store(driver), …)  served by  Service

A store, a spool or an upstream that is away makes the cache start degraded; only what can never work (a
configuration without upstream, a certificate that does not load, a port that is taken) keeps it from starting.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from msrcache import __version__
from msrcache.access.account import ByAccount
from msrcache.access.asking import AskingGate
from msrcache.access.basic import BasicGate, Checking
from msrcache.access.buckets import Buckets
from msrcache.access.caller import Fingerprints
from msrcache.access.htpasswd import AccountsError, Htpasswd
from msrcache.access.limited import Limited
from msrcache.access.open import OpenGate
from msrcache.access.passwords import Passwords
from msrcache.access.pinging import AnonymousPing
from msrcache.access.verdicts import Verdicts
from msrcache.cache.catalog import StoredCatalog
from msrcache.cache.fill import FillSettings, Kitchen
from msrcache.cache.freshness import Freshness, FreshnessSettings
from msrcache.cache.inspect import Part, inspect
from msrcache.cache.lease import SoleReplica
from msrcache.cache.links import Links
from msrcache.cache.pullthrough import PullThrough
from msrcache.cache.spool import Spool
from msrcache.config.cache import UpstreamEntry
from msrcache.config.load import Loaded
from msrcache.config.model import Config
from msrcache.oci.names import ImageReference
from msrcache.oci.registry import Registry
from msrcache.server.admin import Health
from msrcache.server.app import Service, Surroundings
from msrcache.server.binding import ListenFailed
from msrcache.server.checks import Checks
from msrcache.server.settings import ServerSettings
from msrcache.server.tls import TlsProblem
from msrcache.storage.breaker import BreakerSettings
from msrcache.storage.drivers import another, open_driver
from msrcache.storage.errors import StorageError
from msrcache.storage.parameters import ParameterError
from msrcache.storage.store import Store, StoreSettings
from msrcache.telemetry.accesslog import AccessFormat, AccessLog
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.lines import LineWriter
from msrcache.telemetry.logs import Formatter, configure, get_logger
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.balance import Balanced
from msrcache.upstream.client import Upstream
from msrcache.upstream.settings import (
    BalanceSettings,
    UpstreamSettings,
    UpstreamSettingsError,
    proxy_environment,
)

SWEPT_AFTER = 24 * 3600.0
"""Seconds after which what a dead writer left in the store is removed."""
PROBED = "msrcache/probe/health"
"""A key that is never there: NotFound is the answer of a healthy store."""

log = get_logger(__name__)


class CannotStart(Exception):
    """One sentence that says why, and what to do."""


class Application:
    """Everything that runs in one process, while its context is open."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.metrics = Metrics()
        self.clock = SystemClock()
        self.spool = Spool(config.spool_path, size=config.cache.spool.size)
        self._spool_trouble: str | None = None
        self.store: Store
        self.upstream: Balanced
        self.pulls: PullThrough
        self.service: Service

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Application"]:
        """Built, listening and ready; on leaving everything is closed, last opened first. Raises CannotStart."""
        try:
            async with AsyncExitStack() as stack:
                await self._open(stack)
                yield self
        except (ParameterError, UpstreamSettingsError, AccountsError, TlsProblem, ListenFailed) as error:
            raise CannotStart(str(error)) from error

    async def reload(self, loaded: Loaded) -> None:
        """Take over what can change in a running process: the server's settings, certificates, logging."""
        await self.service.reload(_server_settings(loaded.config))
        self.config = loaded.config
        configure_logs(loaded.config)

    def degraded(self) -> Mapping[str, str]:
        """What is not as it should be, by part."""
        parts = {
            "store": self.store.degraded(),
            "upstream": self.upstream.degraded(),
            "spool": self._spool_trouble,
        }
        return {name: reason for name, reason in parts.items() if reason is not None}

    async def _open(self, stack: AsyncExitStack) -> None:
        config = self.config
        self.upstream = self._balanced(stack)
        asked = self._limited()
        gate = await self._gate(asked, stack)
        await self._open_store(stack)
        await self._open_spool(stack)
        self.pulls = self._pull_through(self._fetching(asked))
        stack.push_async_callback(self.pulls.close)
        access_log = None
        if not config.log.accesslog.disabled:
            dropped = self.metrics.access_log_dropped_total.inc
            style = AccessFormat.COMBINED if config.log.formatter == "text" else AccessFormat.JSON
            access_log = AccessLog(LineWriter(sys.stdout.buffer, dropped=dropped), style)
            stack.callback(access_log.close)
        health = Health(degraded=self.degraded, fills=self.pulls.fills.rows, checks=Checks(config.health))
        around = Surroundings(metrics=self.metrics, health=health, access_log=access_log, clock=self.clock)
        self.service = Service(self.pulls, gate, _server_settings(config), around)
        stack.push_async_callback(self.service.close)
        await self.service.start()

    def _balanced(self, stack: AsyncExitStack) -> Balanced:
        section = self.config.cache.upstream
        if not self.config.upstreams:
            raise CannotStart(
                "no upstream is configured: name the registry to cache as proxy.remoteurl, as cache.upstreams, or as"
                " the middleware downstream's upstreams"
            )
        upstreams = [
            Upstream(_upstream_settings(entry, self.config), metrics=self.metrics, clock=self.clock)
            for entry in self.config.upstreams
        ]
        breaker = self.config.cache.freshness.breaker
        settings = BalanceSettings(
            retries=section.retries,
            retry_budget=section.retry_budget,
            failures=breaker.failures,
            open_for=breaker.open,
            # Below the budget after which a stale tag is served, else such pulls would never open the breaker.
            patience=min(2.0, self.config.cache.freshness.budget / 2),
        )
        balanced = Balanced(upstreams, settings, metrics=self.metrics, clock=self.clock)
        stack.push_async_callback(balanced.close)
        return balanced

    def _limited(self) -> Registry:
        """Where callers' own credentials reach the upstream, a flood of refused ones must not."""
        access = self.config.access
        if access.mode != "upstream" or not access.failures.per_minute:
            return self.upstream
        return Limited(self.upstream, refusals=Buckets(clock=self.clock, burst=access.failures.per_minute))

    def _fetching(self, asked: Registry) -> Registry:
        """Where a service account is to fetch what callers were admitted to by their own questions."""
        access = self.config.access
        wanted = access.mode == "upstream" and access.fetch == "account"
        return ByAccount(asked) if wanted and any(e.username for e in self.config.upstreams) else asked

    async def _gate(self, upstream: Registry, stack: AsyncExitStack) -> AskingGate | BasicGate | OpenGate:
        access = self.config.access
        secret = self.config.secret
        fingerprints = Fingerprints(secret.get_secret_value() if secret else "")
        gate: AskingGate | BasicGate | OpenGate
        if access.mode == "open":
            gate = OpenGate()
        elif access.mode == "basic":
            gate = await self._basic_gate(fingerprints)
        else:
            gate = AskingGate(
                upstream=upstream,
                verdicts=Verdicts(clock=self.clock, ttl=access.verdict, grace=access.grace),
                fingerprints=fingerprints,
                pings=AnonymousPing(upstream=upstream, clock=self.clock),
                metrics=self.metrics,
                patience=self.config.cache.freshness.budget,
            )
        stack.push_async_callback(gate.close)
        return gate

    async def _basic_gate(self, fingerprints: Fingerprints) -> BasicGate:
        access = self.config.access
        if access.htpasswd.path is None:
            raise CannotStart("access mode basic needs accounts: give cache.access.htpasswd.path")
        htpasswd = Htpasswd(Path(access.htpasswd.path), clock=self.clock)
        await htpasswd.load()
        burst = access.failures.per_minute or 1_000_000
        checking = Checking(
            passwords=Passwords(),
            addresses=Buckets(clock=self.clock, burst=burst),
            accounts=Buckets(clock=self.clock, burst=burst),
        )
        return BasicGate(
            htpasswd=htpasswd,
            realm=access.htpasswd.realm,
            fingerprints=fingerprints,
            checking=checking,
            clock=self.clock,
            metrics=self.metrics,
        )

    async def _open_store(self, stack: AsyncExitStack) -> None:
        section, breaker = self.config.storage, self.config.cache.storage.breaker
        settings = StoreSettings(
            breaker=BreakerSettings(failures=breaker.failures, open_for=breaker.open),
            writable=not section.readonly,
        )
        driver = open_driver(section)
        self.store = Store(
            driver,
            metrics=self.metrics,
            clock=self.clock,
            settings=settings,
            twin=lambda: another(driver, section),
        )
        stack.push_async_callback(self.store.close)
        await self.store.start()
        await _in_background(stack, self._look_after_store())

    async def _look_after_store(self) -> None:
        """Sweep once; then, where the operator wants it, ask the store now and then. It tells its failures itself."""
        if self.store.writable:
            with contextlib.suppress(StorageError):
                await self.store.sweep(SWEPT_AFTER)
        check = self.config.health.storagedriver
        while check.enabled:
            with contextlib.suppress(StorageError):
                await self.store.stat(PROBED)
            await asyncio.sleep(max(check.interval, 0.1))

    async def _open_spool(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self.spool.close)
        self.metrics.spool_bytes.set_function(lambda: self.spool.used)
        try:
            await self.spool.start()
        except OSError as error:
            self._spool_trouble = f"{self.spool.path}: {error.strerror}: pulls are passed through, not stored"
            log.error("the spool cannot be used", path=str(self.spool.path), error=str(error.strerror))

    def _pull_through(self, upstream: Registry) -> PullThrough:
        cache = self.config.cache
        links = Links(self.store, self.clock)
        kitchen = Kitchen(
            upstream=upstream,
            store=self.store,
            spool=self.spool,
            links=links,
            leases=SoleReplica(),
            metrics=self.metrics,
            clock=self.clock,
            settings=FillSettings(
                concurrency=cache.fill.concurrency,
                queue=cache.fill.queue,
                abandon=cache.fill.abandon,
                early=cache.range == "early",
                verify_timeout=cache.verify.timeout,
            ),
        )
        freshness = Freshness(
            upstream,
            links,
            self.clock,
            FreshnessSettings(
                ttl=cache.freshness.ttl, budget=cache.freshness.budget, immutable=cache.freshness.immutable
            ),
        )
        catalog = StoredCatalog(self.store, self.clock) if cache.catalog == "store" else None
        return PullThrough(kitchen, freshness, catalog=catalog)


async def inspected(config: Config, reference: ImageReference) -> list[Part]:
    """What the configured store holds of an image. Raises StorageError, CannotStart."""
    try:
        store = Store(
            open_driver(config.storage),
            metrics=Metrics(),
            clock=SystemClock(),
            settings=StoreSettings(writable=False),
        )
    except ParameterError as error:
        raise CannotStart(str(error)) from error
    try:
        return await inspect(store, reference.repository, reference.reference)
    finally:
        await store.close()


def _server_settings(config: Config) -> ServerSettings:
    return replace(ServerSettings.of(config), push_to=config.upstreams[0].url if config.upstreams else "")


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


def configure_logs(config: Config) -> None:
    """Log as the configuration says, on standard error; the access log has standard output."""
    configure(
        stream=sys.stderr,
        level=config.log_level,
        formatter=Formatter(config.log.formatter),
        fields=config.log.fields,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)


async def _in_background(stack: AsyncExitStack, work: Coroutine[object, object, None]) -> None:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)
