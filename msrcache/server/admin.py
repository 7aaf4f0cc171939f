"""What load balancers, orchestrators and operators ask: health, metrics, the fills under way.

Not ready (503) only while starting, while draining, or when a check that the operator configured fails. A
sick store or upstream is 200 with `degraded` and the reason: such a replica still serves, and to take all
replicas out at once would be the outage.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from multidict import CIMultiDict

from msrcache import __version__
from msrcache.oci.errors import CONTENT_TYPE, NameUnknown, Unsupported
from msrcache.server.checks import Checks
from msrcache.telemetry.metrics import CONTENT_TYPE as METRICS_TYPE
from msrcache.telemetry.metrics import Metrics


class State(StrEnum):
    """Where the process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(slots=True)
class Health:
    """What is known of this replica, and by it of the others. `degraded`: part -> reason; `fills`: a mapping for each
    under way; `fleet`: what /debug/fleet shows.
    """

    degraded: Callable[[], Mapping[str, str]] = dict
    fills: Callable[[], Sequence[Mapping[str, object]]] = tuple
    fleet: Callable[[], Mapping[str, object]] = dict
    checks: Checks = field(default_factory=Checks)
    state: State = State.STARTING

    def verdict(self) -> tuple[int, dict[str, object]]:
        """The status and the body of readiness."""
        failing = self.checks.failing()
        degraded = dict(self.degraded())
        ready = self.state is State.READY and not failing
        told: dict[str, object] = {"status": "ready" if ready else "unready"}
        if self.state is not State.READY:
            told["reason"] = self.state.value
        if failing:
            told["failing"] = failing
        if degraded:
            told["degraded"] = degraded
        return 200 if ready else 503, told


@dataclass(frozen=True, slots=True)
class Page:
    """A small answer of the administration."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


def _json(status: int, told: object) -> Page:
    headers = CIMultiDict({"Content-Type": CONTENT_TYPE, "Cache-Control": "no-cache"})
    return Page(status, headers, json.dumps(told, default=str, indent=1).encode() + b"\n")


class Admin:
    """The pages; `public` are those of the main listener."""

    def __init__(
        self,
        health: Health,
        metrics: Metrics | Callable[[], Awaitable[bytes]],
        *,
        vitals: Callable[[], Mapping[str, object]],
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._vitals = vitals

    async def page(self, method: str, path: str, *, public: bool, metrics_path: str | None) -> Page:
        """The page at the path. Raises NameUnknown where none is, Unsupported for all but reading."""
        page = await self._page(path, public=public, metrics_path=metrics_path)
        if page is None:
            raise NameUnknown("nothing is served at this path: the registry is below /v2/")
        if method not in ("GET", "HEAD"):
            raise Unsupported("this page can only be read")
        return page

    async def _page(self, path: str, *, public: bool, metrics_path: str | None) -> Page | None:
        if path == metrics_path:
            return Page(200, CIMultiDict({"Content-Type": METRICS_TYPE}), await self._rendered())
        match path:
            case "/" | "/readyz":
                return _json(*self._health.verdict())
            case "/healthz":
                return _json(200, {"status": "alive"})
        return None if public else self._debug(path)

    async def _rendered(self) -> bytes:
        if not isinstance(self._metrics, Metrics):
            return await self._metrics()
        # Rendering takes milliseconds: too long for the loop.
        return await asyncio.to_thread(self._metrics.render)

    def _debug(self, path: str) -> Page | None:
        match path:
            case "/debug/health":
                failing = self._health.checks.failing()
                return _json(503 if failing else 200, failing)
            case "/debug/fills":
                return _json(200, list(self._health.fills()))
            case "/debug/fleet":
                return _json(200, self._health.fleet())
            case "/debug/vars":
                return _json(200, {"version": __version__, "pid": os.getpid(), **self._vitals()})
        return None
