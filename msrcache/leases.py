"""Leases, wired: over the store that the fleet shares, or over the homes of leases; for a replica and for a command.

Where creates are not exclusive (decisions/0008) a lease stands at its home, and a command, which is no replica, asks
that home too. Without a replica that has a peer port there is no home: then named leases stand in the store as it is.
Of two who begin at the same moment both may have one, until the first beat of one of them.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from msrcache.cache.heartbeat import PATIENCE
from msrcache.cache.homerungs import NAME, HomeAway, Homes
from msrcache.cache.leasearrival import LeaseSettings
from msrcache.cache.leasing import Claimant, FleetLeases
from msrcache.cache.ledger import Ledger
from msrcache.cache.onlooker import members_of
from msrcache.config.model import Config
from msrcache.fleet import Own
from msrcache.inquiry import CannotStart
from msrcache.oci.peers import Member
from msrcache.peering import Peering
from msrcache.server.peer import PeerAnswer, PeerRequest
from msrcache.storage.errors import Unavailable
from msrcache.storage.selfcheck import prove_create
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.peers import PeerQuestion, Peers, PeerUnreached

KIND: Final = "leases"
ASSUMED: Final = 5.0
"""Seconds between the beats of other replicas, where the configuration has none of its own."""


class Held(Protocol):
    """A named lease that is held."""

    @property
    def lost(self) -> bool:
        """Whether somebody else holds it by now."""


Turns = Callable[[str], AbstractAsyncContextManager[Held | None]]
"""Takes a named lease; None where another replica has it."""


def is_sole(config: Config) -> bool:
    """Whether the replica shares its store with nobody who fills: then a fill needs no lease."""
    return config.storage.driver == "inmemory" or not config.cache.heartbeat


def fleet_leases(
    config: Config, store: Store, own: Own, members: Callable[[], Sequence[Member]]
) -> FleetLeases:
    """A replica's. To be made when the peer port is open."""
    peering = own.peering
    # Who shows no heartbeat is found by no command: what they both take stands in the store.
    homes = None if is_sole(config) else homes_of(peering, own.replica, members)
    return FleetLeases(
        store,
        Claimant(own.replica, lambda: peering.address, homes),
        settings=LeaseSettings.of(config.cache.lease),
        metrics=own.metrics,
        clock=own.clock,
    )


def homes_of(peering: Peering, replica: str, members: Callable[[], Sequence[Member]]) -> Homes | None:
    """Where leases stand if the store's creates are not exclusive; None without a peer port."""
    port, peers = peering.port, peering.peers
    if port is None or peers is None:
        return None
    homes = Homes(replica, members, Asking(peers))

    async def answer(request: PeerRequest) -> PeerAnswer:
        status, body = await homes.register.answer(request.name, request.query.get("op", ""), request.body)
        return PeerAnswer(status, body)

    port.add("POST", KIND, answer)
    return homes


class Asking:
    """Asks the home of a lease over its peer port. `trouble` is why that failed last, empty where it never did."""

    def __init__(self, peers: Peers) -> None:
        self.trouble = ""
        self._peers = peers

    async def __call__(self, home: Member, path: str, operation: str, data: bytes) -> tuple[int, bytes]:
        """As homerungs.Ask."""
        question = PeerQuestion(kind=KIND, name=path, query={"op": operation}, body=data)
        try:
            reply = await self._peers.ask(home.replica, home.address, question)
        except PeerUnreached as error:
            self.trouble = str(error)
            kind = HomeAway if error.refused else Unavailable
            raise kind(NAME, path, None, self.trouble) from None
        if reply.status == 403:  # it has done nothing, and would say so again
            self.trouble = f"the replica {home.replica} does not take our signature: is http.secret the same?"
            raise HomeAway(NAME, path, None, self.trouble)
        return reply.status, reply.body


class Visitor:
    """Named leases of a command, which is no replica: taken where the replicas take theirs."""

    def __init__(self, store: Store, config: Config, *, replica: str, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._replica = replica
        self._metrics = metrics
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Visitor {self._replica}>"

    @asynccontextmanager
    async def named(self, name: str) -> AsyncIterator[Held | None]:
        """As FleetLeases. Raises CannotStart where who keeps the lease cannot be asked, and StorageError."""
        peering = Peering(self._config, metrics=self._metrics, clock=self._clock)
        try:
            await prove_create(self._store, clock=self._clock)
            asking = None if self._store.create_is_exclusive else await self._asking(peering)
            async with self._taken(name, asking) as held:
                if held is None and asking is not None and (trouble := asking[1].trouble):
                    raise CannotStart(
                        f"the lease '{name}' stands in the memory of a replica, because this store's creates are not"
                        f" exclusive, and it could not be asked: {trouble}; run this where the replicas'"
                        " peer ports are reached, or leave it to them"
                    )
                yield held
        finally:
            await peering.close()

    @asynccontextmanager
    async def _taken(self, name: str, asking: tuple[Homes, Asking] | None) -> AsyncIterator[Held | None]:
        claimant = Claimant(self._replica, homes=asking[0] if asking else None)
        settings = LeaseSettings.of(self._config.cache.lease)
        leases = FleetLeases(
            self._store, claimant, settings=settings, metrics=self._metrics, clock=self._clock
        )
        try:
            async with leases.named(name) as held:
                yield held
        finally:
            await leases.close()

    async def _asking(self, peering: Peering) -> tuple[Homes, Asking] | None:
        """Where leases stand; None where no replica keeps any."""
        now = await Ledger(self._store, replica=self._replica).moment()
        patience = PATIENCE * (self._config.cache.heartbeat or ASSUMED)
        members = await members_of(self._store, now=now, patience=patience)
        if not members:
            return None
        await peering.reach()
        if peering.peers is None:
            raise CannotStart(
                "this store's creates are not exclusive, so its replicas keep their leases among themselves, and who"
                " asks them needs their http.secret: run this with the configuration of a replica"
            )
        asking = Asking(peering.peers)
        return Homes(self._replica, lambda: members, asking), asking
