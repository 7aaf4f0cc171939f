"""Mode `open`, for closed networks: everybody reads what our service account may. Never the default."""

from msrcache.access.caller import Caller
from msrcache.oci.pulls import Pull
from msrcache.oci.registry import SERVICE, Right


class OpenGate:
    """Implements Gate by admitting everybody."""

    def __repr__(self) -> str:
        return "<OpenGate>"

    async def admit(self, caller: Caller, pull: Pull) -> Right:
        """Everybody, with the cache's own right."""
        return SERVICE

    async def ping(self, caller: Caller) -> None:
        """Everybody is welcome."""

    def identity(self, caller: Caller) -> str:
        """Nobody is known."""
        return "-"

    async def close(self) -> None:
        """Nothing is under way."""
