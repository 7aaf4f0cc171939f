"""The composition root: the architecture on one page, and the only module that knows all the others.

    Inquiry(gate + upstreams) + PullThrough(the upstreams, Store(driver), …)  served by  Service

A store, a spool or an upstream that is away makes the cache start degraded; only what can never work (a
configuration without upstream, a certificate that does not load, a port that is taken) keeps it from starting.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from msrcache.access.htpasswd import AccountsError
from msrcache.background import in_background
from msrcache.cache.backlog import Backlog
from msrcache.cache.catalog import StoredCatalog
from msrcache.cache.freshness import Freshness, FreshnessSettings
from msrcache.cache.inspect import Part, inspect
from msrcache.cache.kitchen import FillSettings, Kitchen
from msrcache.cache.lease import Leases, SoleReplica
from msrcache.cache.links import Links
from msrcache.cache.local import LocalTier
from msrcache.cache.presence import Presence
from msrcache.cache.pullthrough import PullThrough
from msrcache.cache.redirects import Clients, Redirects, RedirectSettings
from msrcache.cache.replica import new_replica_id
from msrcache.cache.spool import Spool
from msrcache.command import opened
from msrcache.config.changes import changed
from msrcache.config.load import Loaded
from msrcache.config.model import Config
from msrcache.expiring import Expiring
from msrcache.fleet import Membership, Own
from msrcache.inquiry import CannotStart, Inquiry
from msrcache.leases import fleet_leases, is_sole
from msrcache.oci.names import ImageReference
from msrcache.oci.registry import Registry
from msrcache.peering import Peering
from msrcache.server.admin import Health
from msrcache.server.app import Service, Surroundings
from msrcache.server.binding import ListenFailed
from msrcache.server.checks import Checks
from msrcache.server.seat import Seat
from msrcache.server.settings import ServerSettings
from msrcache.server.tls import TlsProblem
from msrcache.sockets.mutual import MutualTlsProblem
from msrcache.storage.breaker import BreakerSettings
from msrcache.storage.drivers import another, open_driver
from msrcache.storage.errors import StorageError
from msrcache.storage.mounts import mount_named
from msrcache.storage.parameters import ParameterError
from msrcache.storage.selfcheck import SelfCheck
from msrcache.storage.store import Store, StoreSettings
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics
from msrcache.telling import configure_logs, opened_access_log
from msrcache.upstream.settings import UpstreamSettingsError

PROVED_WITHIN = 5.0
"""Seconds that the start waits for the store to be proved; a sick one is proved behind it."""
SWEPT_AFTER = 24 * 3600.0
"""Seconds after which what a dead writer left in the store is removed."""
PROBED = "msrcache/probe/health"
"""A key that is never there: NotFound is the answer of a healthy store."""

UNUSABLE = (ParameterError, UpstreamSettingsError, AccountsError, TlsProblem, MutualTlsProblem, ListenFailed)
"""What a configuration can turn out to be wrong about when it is used; each says in one sentence what to do."""

TAKEN_AT_ONCE = (
    *("log.level", "log.formatter", "log.fields", "loglevel"),
    *("http.host", "http.prefix", "http.relativeurls", "http.draintimeout", "http.headers", "http.tls"),
    *("cache.upstream", "cache.access", "cache.freshness", "cache.limits", "cache.drain"),
    *("cache.redirect", "storage.redirect", "auth", "proxy", "middleware"),
)
"""Beginnings of the keys that a reload takes over; all others take effect at the next start."""

log = get_logger(__name__)


class Application:
    """Everything that runs in one process, while its context is open.

    `seat`: its place among several workers; `after`: what they have re-read since, taken over before it serves.
    """

    def __init__(self, config: Config, *, seat: Seat | None = None, after: Loaded | None = None) -> None:
        self.config = config
        self.replica = new_replica_id()
        self._seat = seat
        self._after = after
        self.metrics = Metrics()
        self.clock = SystemClock()
        self.spool = Spool(config.spool_path, size=config.cache.spool.size, sharers=config.cache.workers)
        self._spool_trouble: str | None = None
        self.peering = Peering(config, metrics=self.metrics, clock=self.clock)
        self.store: Store
        self.selfcheck: SelfCheck
        self.inquiry: Inquiry
        self.freshness: Freshness
        self.redirects: Redirects
        self.local: LocalTier | None = None
        self.leases: Leases
        self.presence = Presence(self.clock, belief=config.cache.belief)
        self.expiring = Expiring(
            config, self.presence, replica=self.replica, metrics=self.metrics, clock=self.clock
        )
        self.pulls: PullThrough
        self.fleet: Membership
        self.service: Service

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Application"]:
        """Built, listening and ready; on leaving everything is closed, last opened first. Raises CannotStart."""
        try:
            async with AsyncExitStack() as stack:
                await self._open(stack)
                yield self
        except UNUSABLE as error:
            raise CannotStart(str(error)) from error

    async def reload(self, loaded: Loaded) -> None:
        """Take over what can change in a running process, all of it or, raising CannotStart, nothing."""
        config = loaded.config
        try:
            change = await self.inquiry.prepared(config)
            try:
                await self.peering.reload()
                await self.service.reload(_server_settings(config))
            except BaseException:
                await change.dropped()
                raise
        except UNUSABLE as error:
            raise CannotStart(str(error)) from error
        if self.inquiry.take(change):
            self.freshness.forget()
        self.freshness.change(_freshness_settings(config))
        self.redirects.change(_redirect_settings(config))
        configure_logs(config)
        if later := _at_next_start(self.config, config):
            log.warning("these settings take effect at the next start", settings=", ".join(later))
        self.config = config

    async def drain(self) -> None:
        """Leave: what was used is written down first, while answers under way, and what replicas follow, go on."""
        writing = asyncio.create_task(self.expiring.flush())
        allowed = self.config.cache.drain.delay + self.config.http.drain_timeout
        until = asyncio.get_running_loop().time() + allowed
        try:
            await self.service.drain()
            await self.peering.silence(until)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def degraded(self) -> Mapping[str, str]:
        """What is not as it should be, by part."""
        parts = {
            "store": self._store_trouble(),
            "upstream": self.inquiry.upstream.current.degraded(),
            "spool": self._spool_trouble,
            "local": self.local.degraded() if self.local is not None else None,
            "workers": self._seat.trouble() if self._seat is not None else None,
        }
        return {name: reason for name, reason in parts.items() if reason is not None}

    def _store_trouble(self) -> str | None:
        """As Store.degraded, with the folder where it is one: errors name keys, and a person looks for paths."""
        reason = self.store.degraded() or self.selfcheck.trouble()
        root = self.config.storage.parameters.get("rootdirectory")
        return (
            f"{root}: {reason}"
            if reason is not None and self.config.storage.driver == "filesystem"
            else reason
        )

    async def _open(self, stack: AsyncExitStack) -> None:
        config = self.config
        self.inquiry = await Inquiry.opened(config, metrics=self.metrics, clock=self.clock)
        stack.push_async_callback(self.inquiry.close)
        await self._open_store(stack)
        health = Health(degraded=self.degraded, checks=Checks(config.health))
        own = Own(health, self.peering, replica=self.replica, metrics=self.metrics, clock=self.clock)
        await stack.enter_async_context(self.expiring.running(self.store))
        await self._open_spool(stack)
        self.local = await self._open_local(stack)
        stack.push_async_callback(self.peering.close)
        await self.peering.open()  # before the first lease, and until after the last
        self.fleet = Membership(own, self.store, interval=config.cache.heartbeat, belief=config.cache.belief)
        stack.push_async_callback(self.fleet.close)
        leases = fleet_leases(config, self.store, own, self.fleet.alive)
        self.leases = SoleReplica() if is_sole(config) else leases
        stack.push_async_callback(leases.close)
        in_background(stack, self.expiring.keep_house(self.store, leases.named))
        self.pulls = self._pull_through(self.inquiry.fetching)
        stack.push_async_callback(self.pulls.close)
        self.peering.serve(self.pulls.own_fills)
        health.fills = self.pulls.fills.rows
        access_log = opened_access_log(config, self.metrics, shared=self._seat is not None)
        if access_log is not None:
            stack.callback(access_log.close)
        around = Surroundings(
            metrics=self.metrics,
            health=health,
            access_log=access_log,
            clock=self.clock,
            metrics_page=self._seat.metrics if self._seat is not None else None,
        )
        self.service = Service(self.pulls, self.inquiry.gate, _server_settings(config), around)
        stack.push_async_callback(self.service.close)
        if self._after is not None:
            await self.reload(self._after)
        await self.service.start()
        self.fleet.start()
        self.metrics.workers.set(1)

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
        await self._prove(stack)
        if (reason := self._store_trouble()) is not None:
            log.error("the store is not as it should be", reason=reason)
        in_background(stack, self._look_after_store())

    async def _prove(self, stack: AsyncExitStack) -> None:
        """Write to the store and prove its promises; whatever is not known in time is found out in the background."""
        required = self.config.cache.storage.require
        self.selfcheck = SelfCheck(self.store, required=required, metrics=self.metrics, clock=self.clock)
        proving = in_background(stack, self.selfcheck.run())
        await asyncio.wait({proving}, timeout=PROVED_WITHIN)
        if (refusal := self.selfcheck.refusal()) is not None:
            raise CannotStart(refusal)

    async def _look_after_store(self) -> None:
        """Sweep once; then, where the operator wants it, ask the store now and then. It tells its failures itself."""
        if self.store.writable:
            with contextlib.suppress(StorageError):
                await self.store.sweep(SWEPT_AFTER)
        check = self.config.health.storagedriver
        while check.enabled or await self._redirecting():
            with contextlib.suppress(StorageError):
                await self.store.stat(PROBED)
            await asyncio.sleep(max(check.interval, 0.1))

    async def _redirecting(self) -> bool:
        """Whether clients are sent to the store: then no pull of theirs shows when it is away, so it is looked at."""
        if self.config.storage.redirect_disable:
            return False
        with contextlib.suppress(StorageError):
            based = bool(self.config.middleware.redirect_base)
            return based or await self.store.presign(PROBED, 60.0) is not None
        return True  # it has URLs, and cannot sign them just now

    async def _open_spool(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self.spool.close)
        self.metrics.spool_bytes.set_function(lambda: self.spool.used)
        try:
            await self.spool.start()
        except OSError as error:
            self._spool_trouble = f"{self.spool.path}: {error.strerror}: pulls are passed through, not stored"
            log.error("the spool cannot be used", path=str(self.spool.path), error=str(error.strerror))
        mount = mount_named(self.spool.path)
        if mount is not None and mount.nfs:
            text = "the spool is on a file server, and while that hangs every cold pull does: set cache.spool.path"
            log.warning(text, path=str(self.spool.path), server=mount.source)

    async def _open_local(self, stack: AsyncExitStack) -> LocalTier | None:
        """The hot tier, where the store is remote and the operator wants one."""
        section = self.config.cache.local
        if not section.path or self.config.storage.driver == "filesystem":
            return None
        tier = LocalTier(
            Path(section.path),
            size=section.size,
            eager=section.admit == "first",
            metrics=self.metrics,
            clock=self.clock,
        )
        stack.push_async_callback(tier.close)
        await tier.start()
        return tier

    def _pull_through(self, upstream: Registry) -> PullThrough:
        cache = self.config.cache
        links = Links(self.store, self.clock, belief=cache.belief)
        self.redirects = Redirects(
            self.store,
            self.presence,
            settings=_redirect_settings(self.config),
            may_go=self.expiring.may_go,
            metrics=self.metrics,
            clock=self.clock,
        )
        kitchen = Kitchen(
            upstream=upstream,
            store=self.store,
            spool=self.spool,
            backlog=Backlog(self.spool, limit=cache.fill.concurrency, metrics=self.metrics),
            links=links,
            presence=self.presence,
            local=self.local,
            leases=self.leases,
            uses=self.expiring.uses,
            news=self.fleet.news,
            peers=self.peering.peers,
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
        self.freshness = Freshness(upstream, links, self.clock, _freshness_settings(self.config))
        catalog = StoredCatalog(self.store, self.clock) if cache.catalog == "store" else None
        return PullThrough(kitchen, self.freshness, self.redirects, catalog=catalog)


async def inspected(config: Config, reference: ImageReference) -> list[Part]:
    """What the configured store holds of an image. Raises StorageError, CannotStart."""
    async with opened(config, writable=False) as store:
        return await inspect(store, reference.repository, reference.reference)


def _at_next_start(old: Config, new: Config) -> list[str]:
    """The changed keys that a reload does not take over; TLS cannot be switched on or off under a listener."""
    switched = old.http.tls.enabled != new.http.tls.enabled
    return [
        key
        for key in changed(old, new)
        if not key.startswith(TAKEN_AT_ONCE) or (switched and key.startswith("http.tls"))
    ]


def _freshness_settings(config: Config) -> FreshnessSettings:
    section = config.cache.freshness
    return FreshnessSettings(ttl=section.ttl, budget=section.budget, immutable=section.immutable)


def _server_settings(config: Config) -> ServerSettings:
    return replace(ServerSettings.of(config), push_to=config.upstreams[0].url if config.upstreams else "")


def _redirect_settings(config: Config) -> RedirectSettings:
    section = config.cache.redirect
    return RedirectSettings(
        enabled=not config.storage.redirect_disable,
        threshold=section.threshold,
        lifetime=section.lifetime,
        base=config.middleware.redirect_base,
        clients=tuple(
            Clients(entry.networks, entry.mode == "redirect", entry.endpoint) for entry in section.clients
        ),
    )
