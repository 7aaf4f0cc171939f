"""The service: listeners, aiohttp's low-level server, and the life of a process from start to drained.

Every path leads through `_route`: the registry below <prefix>v2, the administration's pages beside it.

States: starting (bound, not ready) -> ready -> draining (unready first; `drain_delay` later the listener
closes and idle connections with it; bodies end, at most `drain_timeout`) -> closed (what is left is cut).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import cast

from aiohttp import web

from msrcache.access.gate import Gate
from msrcache.oci.errors import NameUnknown, Unsupported
from msrcache.oci.pulls import parse_pull
from msrcache.oci.registry import Registry
from msrcache.server.admin import Admin, Health, State
from msrcache.server.answers import answer
from msrcache.server.connection import Connection, factory
from msrcache.server.deliver import Delivery
from msrcache.server.exchange import Exchange, open_exchange
from msrcache.server.handlers import Handlers
from msrcache.server.lag import LagMeter
from msrcache.server.limits import ConnectionLimits, connections_for, raise_descriptor_limit
from msrcache.server.listener import Door, Listener
from msrcache.server.middleware import AccessSink, Middleware
from msrcache.server.rejections import BodyRefused, HeadersTooLarge, PathTooLong
from msrcache.server.sending import Reader
from msrcache.server.settings import ServerSettings
from msrcache.server.tls import TlsContext, TlsProblem
from msrcache.telemetry.clock import Clock, SystemClock
from msrcache.telemetry.logs import REQUEST_ID, get_logger
from msrcache.telemetry.metrics import Metrics
from msrcache.telemetry.trail import TRAIL

CUT_WITHIN = 5.0
"""Seconds for handlers to end after their connections were cut."""

FIXED = ("addr", "net", "debug_addr", "metrics_addr", "trusted", "proxy_protocol", "shared")
"""Settings that a listener was opened with."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a service counts in, tells and asks, beside its registry and gate."""

    metrics: Metrics
    health: Health
    access_log: AccessSink | None = None
    clock: Clock = field(default_factory=SystemClock)
    metrics_page: Callable[[], Awaitable[bytes]] | None = None
    """What /metrics answers, where that is not this process's metrics alone."""


class Service:
    """Serves a registry. `start` raises ListenFailed or TlsProblem, each one sentence for the operator."""

    def __init__(
        self, registry: Registry, gate: Gate, settings: ServerSettings, around: Surroundings
    ) -> None:
        self._settings = settings
        self._around = around
        self._reader = Reader()
        self._handlers = Handlers(registry, gate, Delivery(self._reader))
        self._middleware = Middleware(gate, around.metrics, around.access_log)
        self._admin = Admin(around.health, around.metrics_page or around.metrics, vitals=self._vitals)
        self._tls = TlsContext(settings.tls, warn=log.warning) if settings.tls.enabled else None
        self._limits = ConnectionLimits(total=0)
        self._lag = LagMeter(around.metrics)
        self._servers: list[web.Server] = []
        self._main: Listener | None = None
        self._aside: list[Listener] = []
        self._active = 0
        self._quiet = asyncio.Event()
        self._began = time.monotonic()

    def __repr__(self) -> str:
        counts = f"{self._active} requests, {self._limits.open} connections"
        return f"<Service {self._around.health.state} [{counts}]>"

    @property
    def addresses(self) -> list[str]:
        """Where the main listener listens: host:port, or the path of its unix socket."""
        return self._main.addresses if self._main else []

    @property
    def aside_addresses(self) -> list[str]:
        """Where debug and metrics listeners listen."""
        return [address for listener in self._aside for address in listener.addresses]

    async def start(self) -> None:
        """Load certificates, listen, and be ready."""
        self._count_connections()
        try:
            if self._tls is not None:
                await self._tls.load()
            self._main = self._listener(self._door(), self._handle)
            await self._main.open()
            for addr in dict.fromkeys((self._settings.debug_addr, self._settings.metrics_addr)):
                if addr:
                    door = Door(addr=addr, shared=self._settings.shared)
                    self._aside.append(self._listener(door, self._handle_aside))
                    await self._aside[-1].open()
        except BaseException:
            await self.close()
            raise
        self._around.health.checks.start()
        self._lag.start()
        self._around.health.state = State.READY

    def _door(self) -> Door:
        settings = self._settings
        return Door(
            addr=settings.addr,
            net=settings.net,
            shared=settings.shared,
            trusted=settings.trusted,
            proxy_protocol=settings.proxy_protocol,
            tls=self._tls,
            handshake_timeout=settings.limits.header_timeout,
        )

    def _listener(
        self, door: Door, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    ) -> Listener:
        # A handler whose client has left is cancelled: a reader of a fill must not seem to be there still.
        server = web.Server(handle, handler_cancellation=True)
        self._servers.append(server)
        metrics = self._around.metrics
        make = factory(server, lambda: self._settings.limits, metrics)
        return Listener(door, make=make, limits=self._limits, metrics=metrics)

    def _count_connections(self) -> None:
        limits = self._settings.limits
        fitting = connections_for(raise_descriptor_limit())
        self._limits.change(total=min(limits.connections or fitting, fitting), per_address=limits.per_address)

    async def reload(self, settings: ServerSettings) -> None:
        """Take other settings for what comes next, and the certificates anew. Addresses stay until a restart.

        Raises TlsProblem and changes nothing where the certificates do not load.
        """
        if self._tls is not None and settings.tls.enabled:
            try:
                await self._tls.load(settings.tls)
            except TlsProblem as problem:
                self._around.metrics.tls_reloads_total.labels("failed").inc()
                log.warning("certificates not reloaded: the old ones stay", reason=str(problem))
                raise
            self._around.metrics.tls_reloads_total.labels("loaded").inc()
        self._warn_of_fixed(self._settings, settings)
        # Whose word is taken is one question, and the listener has asked it already; nor does any address change.
        self._settings = replace(settings, **{name: getattr(self._settings, name) for name in FIXED})
        self._count_connections()

    @staticmethod
    def _warn_of_fixed(was: ServerSettings, settings: ServerSettings) -> None:
        changed = [name for name in FIXED if getattr(was, name) != getattr(settings, name)]
        if was.tls.enabled != settings.tls.enabled:
            changed.append("tls")
        if changed:
            log.warning("these settings take effect at the next start", settings=", ".join(changed))

    async def drain(self) -> None:
        """Leave politely: unready, then no new connections, then wait for bodies; see the states above."""
        self._around.health.state = State.DRAINING
        log.info("draining", delay=self._settings.drain_delay, timeout=self._settings.drain_timeout)
        await asyncio.sleep(self._settings.drain_delay)
        if self._main is not None:
            self._main.close()
            await self._main.wait_closed()
        self._retire()
        try:
            async with asyncio.timeout(self._settings.drain_timeout):
                await self._silence()
        except TimeoutError:
            log.warning("drain time is up: answers under way are cut", requests=self._active)
        self._retire()

    async def _silence(self) -> None:
        while self._active:
            self._quiet.clear()
            await self._quiet.wait()

    def _retire(self) -> None:
        for connection in self._connections():
            connection.retire()

    def _connections(self) -> list[Connection]:
        return [cast("Connection", one) for server in self._servers for one in server.connections]

    async def close(self) -> None:
        """Stop at once: whatever is still being sent is cut."""
        self._around.health.state = State.DRAINING
        self._lag.stop()
        await self._around.health.checks.close()
        for listener in (self._main, *self._aside):
            if listener is not None:
                listener.close()
                await listener.wait_closed()
        for connection in self._connections():
            connection.cut("drain")
        try:
            async with asyncio.timeout(CUT_WITHIN):
                await self._silence()
        except TimeoutError:
            log.warning("requests did not end when their connections were cut", requests=self._active)
        for server in self._servers:
            await server.shutdown(1.0)
        self._reader.close()

    def _vitals(self) -> dict[str, object]:
        return {
            "uptime_seconds": round(time.monotonic() - self._began, 1),
            "connections": self._limits.open,
            "requests_active": self._active,
            "state": self._around.health.state,
        }

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._exchanged(request, self._route)

    async def _handle_aside(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._exchanged(request, self._route_aside)

    async def _exchanged(
        self, request: web.BaseRequest, route: Callable[[Exchange], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        exchange = open_exchange(request, self._settings, self._around.clock)
        # Each request runs in a task of its own, so these are set for it alone.
        REQUEST_ID.set(exchange.request_id)
        TRAIL.set(exchange.trail)
        exchange.closing = self._around.health.state is State.DRAINING
        self._active += 1
        try:
            return await self._middleware.run(exchange, route)
        finally:
            self._active -= 1
            if not self._active:
                self._quiet.set()

    async def _route(self, exchange: Exchange) -> web.StreamResponse:
        _check(exchange)
        request, settings = exchange.request, exchange.settings
        path = request.path
        if path.startswith(settings.prefix):
            inner = path[len(settings.prefix) - 1 :]
            if inner == "/v2" or inner.startswith("/v2/"):
                return await self._pull(exchange, inner)
        metrics_path = "/metrics" if settings.metrics_on_main else None
        page = await self._admin.page(request.method, path, public=True, metrics_path=metrics_path)
        exchange.quiet = True
        return await answer(exchange, page.status, page.headers, page.body)

    async def _route_aside(self, exchange: Exchange) -> web.StreamResponse:
        _check(exchange)
        request = exchange.request
        page = await self._admin.page(
            request.method, request.path, public=False, metrics_path=exchange.settings.metrics_path
        )
        exchange.quiet = True
        return await answer(exchange, page.status, page.headers, page.body)

    async def _pull(self, exchange: Exchange, path: str) -> web.StreamResponse:
        request = exchange.request
        query = request.rel_url.query
        fields = {name: query.getall(name) for name in query} if query else {}
        try:
            exchange.pull = pull = parse_pull(request.method, path, fields, request.headers)
        except Unsupported as error:
            if not exchange.settings.push_to:
                raise
            raise Unsupported(f"{error.message}: {exchange.settings.push_to}") from None
        return await self._handlers.serve(exchange, pull)


def _check(exchange: Exchange) -> None:
    """Refuse what no reader sends, before a word of it is understood."""
    request = exchange.request
    if request.body_exists:
        # Unread bytes of a body would be taken for the next request.
        exchange.closing = True
        if request.method in ("GET", "HEAD"):
            raise BodyRefused
    limits = exchange.settings.limits
    if len(request.raw_path) > limits.path:
        raise PathTooLong(f"path and query are longer than {limits.path} bytes")
    if not request.path.startswith("/"):
        raise NameUnknown("nothing is served at this path")
    if exchange.overloaded:
        exchange.closing = True
        raise HeadersTooLarge
