"""Rungs in the memory of one replica, for stores whose creates are not exclusive (decisions/0008).

The home of a lease is the same for all replicas that see the same others alive: the highest of the hashes of
replica and lease (rendezvous hashing). It keeps the rungs of that lease, and is asked over the peer port; it fetches
nothing for others. An arrival stays with the home that it found. A home that goes takes its rungs along: its holders
have lost their leases, and newcomers begin anew at another home. That costs a pull, as every lost lease does.

    POST <kind>/<lease>/<n>?op=create|read|exists|put|delete   -> 200 with what was read, 404 nothing there, 409 taken
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from msrcache.cache.leaserecord import LIMIT
from msrcache.cache.rungs import Rungs
from msrcache.oci.peers import Member
from msrcache.storage.errors import LeftAlone, Unavailable

LEASES_KEPT: Final = 20_000
"""Leases whose rungs a home keeps; who was longest untouched goes."""
RUNGS_KEPT: Final = 1000
"""Rungs of one lease."""
NAME: Final = "home"

_PATH = re.compile(r"(?P<lease>[a-z0-9]+/[A-Za-z0-9._-]{1,140})/(?P<n>[0-9]{1,6})\Z")

Ask = Callable[[Member, str, str, bytes], Awaitable[tuple[int, bytes]]]
"""Puts a question to another replica: path, operation, data. Raises StorageError."""


class HomeAway(LeftAlone):
    """The home of a lease is not there: nobody is asked."""

    result = "home"


def home_of(lease: str, members: Sequence[Member]) -> Member:
    """Who keeps the rungs of the lease (pure). A replica that comes or goes moves only what it keeps."""
    return max(members, key=lambda member: (_weight(member.replica, lease), member.replica))


def _weight(replica: str, lease: str) -> bytes:
    return hashlib.sha256(f"{replica}\0{lease}".encode()).digest()


class Register:
    """Implements Rungs in memory, and answers the questions of other replicas."""

    def __init__(self) -> None:
        self._leases: OrderedDict[str, dict[int, bytes]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Register [{len(self._leases)} leases]>"

    async def create(self, lease: str, n: int, data: bytes) -> bool:
        """As Rungs. A create whose reply was lost is asked for again with the same data, and is ours."""
        rungs = self._rungs(lease)
        if n not in rungs and len(rungs) >= RUNGS_KEPT:
            raise Unavailable(NAME, lease, None, "the lease has too many rungs")
        return rungs.setdefault(n, data) == data

    async def read(self, lease: str, n: int) -> bytes | None:
        """As Rungs."""
        return self._leases.get(lease, {}).get(n)

    async def exists(self, lease: str, n: int) -> bool:
        """As Rungs."""
        return n in self._leases.get(lease, {})

    async def put(self, lease: str, n: int, data: bytes) -> None:
        """As Rungs."""
        rungs = self._rungs(lease)
        if n in rungs or len(rungs) < RUNGS_KEPT:
            rungs[n] = data

    async def delete(self, lease: str, *rungs: int) -> None:
        """As Rungs."""
        there = self._leases.get(lease, {})
        for n in rungs:
            there.pop(n, None)
        if not there:
            self._leases.pop(lease, None)

    async def answer(self, path: str, operation: str, data: bytes) -> tuple[int, bytes]:
        """What another replica is told: status and body. What it can't mean is 400."""
        match = _PATH.match(path)
        if match is None or len(data) > LIMIT:
            return 400, b""
        lease, n = match["lease"], int(match["n"])
        match operation:
            case "create":
                return (200 if await self.create(lease, n, data) else 409), b""
            case "read":
                found = await self.read(lease, n)
                return (404, b"") if found is None else (200, found)
            case "exists":
                return (200 if await self.exists(lease, n) else 404), b""
            case "put":
                await self.put(lease, n, data)
            case "delete":
                await self.delete(lease, n)
            case _:
                return 400, b""
        return 200, b""

    def _rungs(self, lease: str) -> dict[int, bytes]:
        rungs = self._leases.setdefault(lease, {})
        self._leases.move_to_end(lease)
        if len(self._leases) > LEASES_KEPT:
            self._leases.popitem(last=False)
        return rungs


class RemoteRungs:
    """Implements Rungs at the home of a lease."""

    def __init__(self, home: Member, ask: Ask) -> None:
        self._home = home
        self._ask = ask

    def __repr__(self) -> str:
        return f"<RemoteRungs at {self._home.replica}>"

    async def create(self, lease: str, n: int, data: bytes) -> bool:
        """As Rungs."""
        return await self._asked(lease, n, "create", data) is not None

    async def read(self, lease: str, n: int) -> bytes | None:
        """As Rungs."""
        return await self._asked(lease, n, "read")

    async def exists(self, lease: str, n: int) -> bool:
        """As Rungs."""
        return await self._asked(lease, n, "exists") is not None

    async def put(self, lease: str, n: int, data: bytes) -> None:
        """As Rungs."""
        await self._asked(lease, n, "put", data)

    async def delete(self, lease: str, *rungs: int) -> None:
        """As Rungs."""
        for n in rungs:
            await self._asked(lease, n, "delete")

    async def _asked(self, lease: str, n: int, operation: str, data: bytes = b"") -> bytes | None:
        status, body = await self._ask(self._home, f"{lease}/{n}", operation, data)
        if status in (404, 409):
            return None
        if status != 200:
            text = f"the replica {self._home.replica} answered {status} when it was asked for a lease"
            raise Unavailable(NAME, lease, None, text)
        return body


class Homes:
    """Finds the rungs of a lease among the replicas that live."""

    def __init__(self, replica: str, members: Callable[[], Sequence[Member]], ask: Ask) -> None:
        self.register = Register()
        self._replica = replica
        self._members = members
        self._ask = ask

    def rungs(self, lease: str) -> Rungs:
        """At its home: this replica's own memory, or another's."""
        members = [member for member in self._members() if member.address]
        home = home_of(lease, members) if members else None
        if home is None or home.replica == self._replica:
            return self.register
        return RemoteRungs(home, self._ask)
