"""Promises of access.current: requests meet the gate of the moment, and a replaced one answers what it was asked."""

import asyncio
from dataclasses import dataclass, field

from msrcache.access.caller import Caller
from msrcache.access.current import CurrentGate
from msrcache.oci.pulls import Pull
from msrcache.oci.registry import SERVICE, Right
from tests.access.upstream import blob, caller


@dataclass(eq=False)
class Named:
    """A gate that notes who came and whether it was closed."""

    name: str
    came: list[str] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def admit(self, caller: Caller, pull: Pull) -> Right:
        """As Gate.admit."""
        self.came.append("admit")
        return SERVICE

    async def ping(self, caller: Caller) -> None:
        """As Gate.ping."""
        self.came.append("ping")

    def identity(self, caller: Caller) -> str:
        """As Gate.identity."""
        return self.name

    async def close(self) -> None:
        """As ClosableGate.close."""
        self.closed.set()


async def test_all_is_asked_of_the_gate_of_the_moment() -> None:
    """Before the change of the first, then of the second."""
    one, two = Named("one"), Named("two")
    gate = CurrentGate(one)
    for now in (one, two):
        await gate.admit(caller(), blob())
        await gate.ping(caller())
        assert gate.identity(caller()) == now.name
        assert gate.current is now
        gate.change(two)
    assert (one.came, two.came) == (["admit", "ping"],) * 2
    await gate.close()


async def test_a_replaced_gate_is_closed_a_while_later() -> None:
    """Not at once: rights that it gave may still ask it. With the current one it is closed in any case."""
    one, two, three = Named("one"), Named("two"), Named("three")
    gate = CurrentGate(one)
    gate.change(two, retired=0.0)
    assert not one.closed.is_set()
    await asyncio.wait_for(one.closed.wait(), 20)
    gate.change(three)
    await asyncio.sleep(0)
    assert not two.closed.is_set()
    await gate.close()
    assert two.closed.is_set()
    assert three.closed.is_set()
