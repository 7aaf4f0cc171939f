"""This replica among the others, wired: what it shows of itself, and where people see what it knows of them."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass

from msrcache.cache.fleetview import view
from msrcache.cache.heartbeat import Heartbeat
from msrcache.cache.myself import Myself
from msrcache.peering import Peering
from msrcache.server.admin import Health
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Own:
    """What a replica knows of itself."""

    health: Health
    peering: Peering
    _: KW_ONLY
    replica: str
    metrics: Metrics
    clock: Clock


def heartbeat(own: Own, store: Store, *, interval: float) -> Heartbeat:
    """The heartbeat of this replica; it does not beat yet. /debug/fleet shows what it sees."""
    health, metrics, clock = own.health, own.metrics, own.clock
    myself = Myself(
        replica=own.replica,
        metrics=metrics,
        clock=clock,
        state=lambda: health.state.value,
        fills=lambda: health.fills(),  # noqa: PLW0108 - it is given its parts later
        degraded=lambda: health.degraded(),  # noqa: PLW0108 - as above
        address=lambda: own.peering.address,
        unreached=own.peering.unreached,
    )
    fleet = Heartbeat(
        store, myself.record, replica=own.replica, interval=interval, metrics=metrics, clock=clock
    )
    health.fleet = _view(fleet, clock)
    return fleet


def _view(fleet: Heartbeat, clock: Clock) -> Callable[[], Mapping[str, object]]:
    return lambda: view(fleet, now=clock.monotonic())
