"""Leases at a home: the same rules over the memory of one replica."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from msrcache.cache.homerungs import LEASES_KEPT, HomeAway, Homes, Register, RemoteRungs, home_of
from msrcache.cache.lease import Fetch, Found
from msrcache.cache.leasearrival import LeaseSettings
from msrcache.cache.leasing import Claimant, FleetLeases
from msrcache.oci.digest import Digest
from msrcache.oci.peers import Member
from msrcache.storage.errors import StorageError, Unavailable
from tests.cache.ladders import DIGEST, Fleet, Replica, holder_of

MEMBERS = [Member(f"replica-{number}", f"{number}:7000") for number in range(5)]
LEASES = [f"sha256/{number:064x}" for number in range(400)]


def test_a_home_moves_only_when_it_goes() -> None:
    """All who see the same find the same; leases are spread evenly, and who leaves moves only its own."""
    homes = {lease: home_of(lease, MEMBERS) for lease in LEASES}
    assert {lease: home_of(lease, MEMBERS[::-1]) for lease in LEASES} == homes
    shares = [list(homes.values()).count(member) for member in MEMBERS]
    assert min(shares) > len(LEASES) / 10
    for lease, home in homes.items():
        left = home_of(lease, MEMBERS[1:])
        assert left == home or home == MEMBERS[0]


async def test_a_register_keeps_rungs() -> None:
    """Of two creates one wins, said twice it is the same one; what is removed is gone."""
    register = Register()
    assert await register.create("named/x", 0, b"a")
    assert await register.create("named/x", 0, b"a"), "a lost reply"
    assert not await register.create("named/x", 0, b"b")
    await register.put("named/x", 1, b"c")
    assert await register.read("named/x", 1) == b"c"
    assert await register.exists("named/x", 0)
    await register.delete("named/x", 1, 0, 7)
    assert await register.read("named/x", 1) is None
    assert repr(register) == "<Register [0 leases]>"


async def test_a_register_is_bounded() -> None:
    """Whatever replicas ask for."""
    register = Register()
    for number in range(LEASES_KEPT + 1):
        await register.put(f"named/{number}", 0, b"")
    assert not await register.exists("named/0", 0)
    assert await register.exists(f"named/{LEASES_KEPT}", 0)


@pytest.mark.parametrize(
    ("path", "operation", "data"),
    [
        *(("x", "read", b""), ("named/x/-1", "read", b""), ("a/b/c/0", "read", b"")),
        *(("named/x/0", "grow", b""), ("named/x/0", "put", b"x" * 5000)),
    ],
)
async def test_what_means_nothing_is_refused(path: str, operation: str, data: bytes) -> None:
    """400, and nothing is kept."""
    register = Register()
    assert await register.answer(path, operation, data) == (400, b"")
    assert repr(register) == "<Register [0 leases]>"


class Town:
    """Two replicas on a store without exclusive creates, who reach each other by a call unless one is `away`."""

    def __init__(self) -> None:
        self.fleet = Fleet(patience=0.5)
        self.away = False
        self.asked = 0
        self._homes = {replica.address: self._homes_of(replica) for replica in self.replicas}
        for replica in self.replicas:
            replica.store.create_is_exclusive = False
            replica.leases = FleetLeases(
                replica.store,
                Claimant(_name(replica), lambda at=replica.address: at, self._homes[replica.address]),  # type: ignore[misc]
                settings=LeaseSettings(patience=0.5),
                metrics=replica.metrics,
                clock=replica.timer.clock,
                sleep=replica.timer.sleep,
            )

    @property
    def replicas(self) -> Sequence[Replica]:
        """Both of them."""
        return (self.fleet.one, self.fleet.other)

    def _homes_of(self, replica: Replica) -> Homes:
        members = [Member(_name(one), one.address) for one in self.replicas]
        return Homes(_name(replica), lambda: members, self._ask)

    async def _ask(self, home: Member, path: str, operation: str, data: bytes) -> tuple[int, bytes]:
        self.asked += 1
        if self.away:
            raise HomeAway("home", path, None, "refused")
        return await self._homes[home.address].register.answer(path, operation, data)


def _name(replica: Replica) -> str:
    return replica.address.partition(":")[0]


@pytest.mark.parametrize("data", [b"the blob", b"another", b"a third", b"a fourth"])
async def test_one_fetches_wherever_the_home_is(data: bytes) -> None:
    """The store is asked for the blob alone; nothing of ours stands in it, nor in a register in the end."""
    town, digest = Town(), Digest.of(data)
    one, other = town.fleet.one, town.fleet.other
    async with (
        one.leases.arrive(digest, size=None) as first,
        other.leases.arrive(digest, size=None) as second,
    ):
        assert await first.turn() == Fetch()
        assert holder_of(await second.turn()) == "one"
        assert town.fleet.rungs() == []
        if digest == DIGEST:
            town.fleet.publish()
            assert await other.broken(second) == Found()
        first.stored()
    await town.fleet.settled()
    assert {repr(homes.register) for homes in town._homes.values()} == {"<Register [0 leases]>"}
    assert town.asked
    assert {call.partition(" ")[0] for call in one.sickness.calls + other.sickness.calls} == {"stat"}


async def test_a_home_that_is_away_costs_the_lease() -> None:
    """Not even patience: a port that refuses says so at once."""
    town = Town()
    town.away = True
    with capture_logs():
        async with (
            town.fleet.one.leases.arrive(DIGEST, size=None) as first,
            town.fleet.other.leases.arrive(DIGEST, size=None) as second,
        ):
            assert {*await asyncio.gather(first.turn(), second.turn())} == {Fetch()}
    skipped = [replica.counted("lease_skipped_total", reason="home") for replica in town.replicas]
    assert sum(skipped) == 1, "the home itself has its own"


async def test_an_answer_that_is_none_is_an_error() -> None:
    """A replica of another version, or one that is in trouble."""

    async def ask(*_: object) -> tuple[int, bytes]:
        return 500, b""

    rungs = RemoteRungs(MEMBERS[0], ask)
    with pytest.raises(Unavailable, match="answered 500"):
        await rungs.read("named/x", 0)
    with pytest.raises(StorageError):
        await rungs.delete("named/x", 0)
