"""The leases of this replica, wired: over the store that the fleet shares, or over the homes of leases."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from msrcache.cache.homerungs import NAME, HomeAway, Homes
from msrcache.cache.lease import SoleReplica
from msrcache.cache.leasearrival import LeaseSettings
from msrcache.cache.leasing import Claimant, FleetLeases
from msrcache.config.model import Config
from msrcache.fleet import Own
from msrcache.oci.peers import Member
from msrcache.peering import Peering
from msrcache.server.peer import PeerAnswer, PeerRequest
from msrcache.storage.errors import Unavailable
from msrcache.storage.store import Store
from msrcache.upstream.peers import PeerQuestion, PeerUnreached

KIND: Final = "leases"
ANSWERED_WITHIN: Final = 2.0
"""Seconds that the home of a lease may take for one answer."""


def fleet_leases(
    config: Config, store: Store, own: Own, members: Callable[[], Sequence[Member]]
) -> FleetLeases | SoleReplica:
    """A sole replica's where it shares the store with nobody. To be made when the peer port is open."""
    if config.storage.driver == "inmemory" or not config.cache.heartbeat:
        return SoleReplica()
    peering = own.peering
    return FleetLeases(
        store,
        Claimant(own.replica, lambda: peering.address, homes_of(peering, own.replica, members)),
        settings=LeaseSettings.of(config.cache.lease),
        metrics=own.metrics,
        clock=own.clock,
    )


def homes_of(peering: Peering, replica: str, members: Callable[[], Sequence[Member]]) -> Homes | None:
    """Where leases stand if the store's creates are not exclusive; None without a peer port."""
    port, peers = peering.port, peering.peers
    if port is None or peers is None:
        return None

    async def ask(home: Member, path: str, operation: str, data: bytes) -> tuple[int, bytes]:
        question = PeerQuestion(kind=KIND, name=path, query={"op": operation}, body=data)
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                reply = await peers.ask(home.replica, home.address, question)
        except PeerUnreached as error:
            kind = HomeAway if error.refused else Unavailable
            raise kind(NAME, path, None, str(error)) from None
        except TimeoutError:
            text = f"the replica {home.replica} did not answer within {ANSWERED_WITHIN:g} s"
            raise Unavailable(NAME, path, None, text) from None
        return reply.status, reply.body

    homes = Homes(replica, members, ask)

    async def answer(request: PeerRequest) -> PeerAnswer:
        status, body = await homes.register.answer(request.name, request.query.get("op", ""), request.body)
        return PeerAnswer(status, body)

    port.add("POST", KIND, answer)
    return homes
