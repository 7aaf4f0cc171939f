"""What a replica says of itself to the others: composed anew for each beat from what its parts know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msrcache import __version__
from msrcache.cache.record import ReplicaRecord
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.figures import figures
from msrcache.telemetry.metrics import Metrics


@dataclass(slots=True, kw_only=True)
class Myself:
    """The parts, as callables; `address` is empty where no other replica can ask this one."""

    replica: str
    metrics: Metrics
    clock: Clock
    state: Callable[[], str]
    fills: Callable[[], Sequence[Mapping[str, object]]]
    degraded: Callable[[], Mapping[str, str]]
    address: Callable[[], str] = str
    unreached: Callable[[], Mapping[str, str]] = dict
    lag: Callable[[], float | None] = lambda: None
    began: float = field(init=False)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.began, self.started = self.clock.monotonic(), self.clock.time()

    def record(self, beat: int) -> ReplicaRecord:
        """This replica's record of that beat."""
        lag = self.lag()
        return ReplicaRecord(
            replica=self.replica,
            beat=beat,
            version=__version__,
            address=self.address(),
            state=self.state(),
            started=self.started,
            uptime=self.clock.monotonic() - self.began,
            fills=self.fills(),
            figures={**figures(self.metrics), **({} if lag is None else {"lag": round(lag, 4)})},
            degraded=self.degraded(),
            unreached=self.unreached(),
        )
