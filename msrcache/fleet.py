"""This replica among the others, wired: what it shows of itself, and where people see what it knows of them."""

from collections.abc import Callable, Mapping

from msrcache.cache.fleetview import view
from msrcache.cache.heartbeat import Heartbeat
from msrcache.cache.myself import Myself
from msrcache.server.admin import Health
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics


def heartbeat(
    replica: str, store: Store, health: Health, *, interval: float, metrics: Metrics, clock: Clock
) -> Heartbeat:
    """The heartbeat of this replica; it does not beat yet. /debug/fleet shows what it sees."""
    myself = Myself(
        replica=replica,
        metrics=metrics,
        clock=clock,
        state=lambda: health.state.value,
        fills=health.fills,
        degraded=health.degraded,
    )
    fleet = Heartbeat(store, myself.record, interval=interval, metrics=metrics, clock=clock)
    health.fleet = _view(fleet, clock)
    return fleet


def _view(fleet: Heartbeat, clock: Clock) -> Callable[[], Mapping[str, object]]:
    return lambda: view(fleet, now=clock.monotonic())
