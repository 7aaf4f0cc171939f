"""The leases of this replica, wired: over the store that the fleet shares."""

from msrcache.cache.lease import SoleReplica
from msrcache.cache.leasearrival import LeaseSettings
from msrcache.cache.leasing import Claimant, FleetLeases
from msrcache.config.model import Config
from msrcache.fleet import Own
from msrcache.storage.store import Store


def fleet_leases(config: Config, store: Store, own: Own) -> FleetLeases | SoleReplica:
    """A sole replica's where it shares the store with nobody."""
    if config.storage.driver == "inmemory" or not config.cache.heartbeat:
        return SoleReplica()
    section, peering = config.cache.lease, own.peering
    return FleetLeases(
        store,
        Claimant(own.replica, lambda: peering.address),
        settings=LeaseSettings(ttl=section.ttl, patience=section.patience, threshold=section.threshold),
        metrics=own.metrics,
        clock=own.clock,
    )
