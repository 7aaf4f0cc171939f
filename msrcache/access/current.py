"""A gate that can be replaced while requests are under way.

A right belongs to the gate that gave it. One that was replaced may still be asked by them, so it is closed a while
later: by then what was put to it has been answered, or has timed out.
"""

import asyncio
from typing import Protocol

from msrcache.access.caller import Caller
from msrcache.access.gate import Gate
from msrcache.oci.pulls import Pull
from msrcache.oci.registry import Right

RETIRED = 120.0
"""Seconds for which a replaced gate still answers."""


class ClosableGate(Gate, Protocol):
    """A gate with something under way."""

    async def close(self) -> None:
        """Stop what is under way."""


class CurrentGate:
    """Implements Gate by whichever is current."""

    def __init__(self, first: ClosableGate) -> None:
        self._gate = first
        self._retired: dict[ClosableGate, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<CurrentGate {self._gate!r}>"

    @property
    def current(self) -> ClosableGate:
        """The gate that new requests meet."""
        return self._gate

    def change(self, gate: ClosableGate, *, retired: float = RETIRED) -> None:
        """New requests meet this one from now on."""
        old, self._gate = self._gate, gate
        self._retired[old] = asyncio.create_task(self._retire(old, retired), name="retire a gate")

    async def admit(self, caller: Caller, pull: Pull) -> Right:
        """As Gate.admit."""
        return await self._gate.admit(caller, pull)

    async def ping(self, caller: Caller) -> None:
        """As Gate.ping."""
        await self._gate.ping(caller)

    def identity(self, caller: Caller) -> str:
        """As Gate.identity."""
        return self._gate.identity(caller)

    async def close(self) -> None:
        """Close it, and those that were replaced."""
        retired, self._retired = self._retired, {}
        for waiting in retired.values():
            waiting.cancel()
        await asyncio.gather(*retired.values(), return_exceptions=True)
        for gate in retired:
            await gate.close()
        await self._gate.close()

    async def _retire(self, gate: ClosableGate, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await gate.close()
        self._retired.pop(gate, None)
