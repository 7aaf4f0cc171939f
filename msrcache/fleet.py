"""This replica among the others, wired: what it shows of itself, whom it sees, and what they tell each other."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from typing import Final

from msrcache.cache.fleetview import view
from msrcache.cache.heartbeat import Heartbeat
from msrcache.cache.myself import Myself
from msrcache.cache.news import News
from msrcache.cache.watching import Watching
from msrcache.oci.digest import Digest
from msrcache.oci.peers import Member
from msrcache.peering import Peering
from msrcache.server.admin import Health
from msrcache.server.peer import PeerAnswer, PeerRequest
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.peers import PeerQuestion, PeerUnreached

BEATS: Final = "beats"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Own:
    """What a replica knows of itself."""

    health: Health
    peering: Peering
    _: KW_ONLY
    replica: str
    metrics: Metrics
    clock: Clock


class Membership:
    """Implements Fleet. Made when the peer port is open; /debug/fleet then shows what it sees."""

    def __init__(self, own: Own, store: Store, *, interval: float, belief: float) -> None:
        self._own = own
        self.news = News(self._violated, own.clock, belief=belief)
        metrics, clock = own.metrics, own.clock
        self.heartbeat = Heartbeat(
            store, self._myself().record, replica=own.replica, interval=interval, metrics=metrics, clock=clock
        )
        self._watching = Watching(self.heartbeat, self.news, self._tell, metrics=metrics, clock=clock)
        self.heartbeat.put_returned = self._watching.beat
        own.health.fleet = self._view
        if own.peering.port is not None:
            own.peering.port.add("POST", BEATS, self._hear)

    def __repr__(self) -> str:
        return f"<Membership {self.heartbeat!r}>"

    def alive(self) -> Sequence[Member]:
        """As Fleet."""
        return self.heartbeat.alive()

    def start(self) -> None:
        """Be seen, and look at the others."""
        self.heartbeat.start()
        self._watching.start()

    async def close(self) -> None:
        """Leave. Never raises."""
        await self._watching.close()
        await self.heartbeat.close()

    def _myself(self) -> Myself:
        own, health = self._own, self._own.health
        return Myself(
            replica=own.replica,
            metrics=own.metrics,
            clock=own.clock,
            state=lambda: health.state.value,
            fills=lambda: health.fills(),  # noqa: PLW0108 - it is given its parts later
            degraded=lambda: health.degraded(),  # noqa: PLW0108 - as above
            address=lambda: own.peering.address,
            unreached=own.peering.unreached,
            lag=lambda: self.heartbeat.lag,
        )

    def _view(self) -> Mapping[str, object]:
        return view(self.heartbeat, now=self._own.clock.monotonic())

    async def _tell(self, member: Member, body: bytes) -> None:
        peers = self._own.peering.peers
        if peers is None:
            return
        question = PeerQuestion(kind=BEATS, name=self._own.replica, body=body)
        with suppress(PeerUnreached):  # peers.reach remembers it, for people
            await peers.ask(member.replica, member.address, question)

    async def _hear(self, request: PeerRequest) -> PeerAnswer:
        return PeerAnswer(200 if self._watching.hear(request.name, request.body) else 400)

    def _violated(self, digest: Digest) -> None:
        self._own.metrics.readafterwrite_violations_total.labels("blob").inc()
        text = "a blob that another replica has just stored is not there: the store is not read-after-write consistent"
        log.warning(text, digest=str(digest))
