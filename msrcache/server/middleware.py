"""Around every request: its id, its errors, its metrics and its line in the access log. The only place that
catches.

An error before the first byte becomes the specification's JSON; after it, the connection is cut. What
nobody expected is logged here with its traceback, once, and answered as 500 with the request's id.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from aiohttp import web

from msrcache.access.gate import Gate
from msrcache.oci.errors import RegistryError
from msrcache.server.answers import refuse
from msrcache.server.deliver import UNBLAMED, Cut
from msrcache.server.exchange import Exchange, record
from msrcache.server.rejections import Failed
from msrcache.telemetry.accesslog import AccessRecord
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

GONE: Final = 499
"""The status that is logged where the client left before there was one."""

Route = Callable[[Exchange], Awaitable[web.StreamResponse]]
log = get_logger(__name__)


class AccessSink(Protocol):
    """Where access records go."""

    def write(self, record: AccessRecord) -> None:
        """Take a record; never waits, never raises."""


class Middleware:
    """Runs a route for an exchange, answers its errors, and counts how it ended."""

    def __init__(self, gate: Gate, metrics: Metrics, access_log: AccessSink | None) -> None:
        self._gate = gate
        self._metrics = metrics
        self._access_log = access_log

    async def run(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """The answer, sent. Raises ConnectionError where the connection is gone or was cut."""
        try:
            return await self._caught(exchange, route)
        except (ConnectionError, asyncio.CancelledError):
            if not exchange.begun:
                exchange.status = GONE
            raise
        finally:
            self._account(exchange)

    async def _caught(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        try:
            return await route(exchange)
        except RegistryError as error:
            return await self._refused(exchange, error)
        except Cut as cut:
            self._cut(exchange, cut)
            raise ConnectionResetError(str(cut)) from cut
        except asyncio.CancelledError:
            if exchange.begun:
                # The connection may still stand: only what was sent whole may look whole.
                self._cut(exchange, Cut(exchange.connection.ending))
            raise
        except ConnectionError:
            raise
        except Exception:
            log.exception("a request failed", path=exchange.request.path)
            return await self._refused(exchange, Failed())

    async def _refused(self, exchange: Exchange, error: RegistryError) -> web.StreamResponse:
        if exchange.begun:
            self._cut(exchange, Cut("source", error))
            raise ConnectionResetError("the answer had begun")
        return await refuse(exchange, error)

    def _cut(self, exchange: Exchange, cut: Cut) -> None:
        exchange.connection.cut()
        self._metrics.delivery_cut_total.labels(cut.reason).inc()
        tell = log.info if cut.reason in UNBLAMED else log.warning
        cause = f"{type(cut.cause).__name__}: {cut.cause}" if cut.cause else ""
        tell("answer cut", reason=cut.reason, sent=exchange.sent, error=cause, client=exchange.caller.address)

    def _account(self, exchange: Exchange) -> None:
        duration = exchange.clock.monotonic() - exchange.began
        if exchange.quiet and exchange.status < 400:
            return
        pull = exchange.pull
        self._metrics.observe_pull(
            "other" if pull is None else pull.kind,
            "none" if exchange.outcome is None else exchange.outcome.value,
            exchange.status,
            sent=exchange.sent,
            seconds=duration,
            first_byte=exchange.first_byte,
        )
        if self._access_log is not None:
            self._access_log.write(record(exchange, self._gate.identity(exchange.caller), duration))
