"""Leases of a single replica: nobody else fills, so nobody waits."""

from msrcache.cache.lease import Fetch, SoleReplica
from msrcache.oci.digest import Digest

DIGEST = Digest.of(b"blob")


async def test_a_sole_replica_is_granted_every_lease_at_once() -> None:
    """Also while another is held: fills of one process are kept apart elsewhere."""
    leases = SoleReplica()
    async with leases.arrive(DIGEST, size=None) as first, leases.arrive(DIGEST, size=7) as second:
        assert await first.turn() == await second.turn() == Fetch()
    assert not leases.holds(DIGEST, "nonce")
