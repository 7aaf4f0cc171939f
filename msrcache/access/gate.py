"""The seam between the server and whoever decides who may read: every mode of access is a Gate.

Not here: how a right is asked for in the middle of a pull (oci.registry.Right), and the modes themselves
(asking, basic, open).
"""

from typing import Protocol

from msrcache.access.caller import Caller
from msrcache.oci.pulls import Pull
from msrcache.oci.registry import Right


class Gate(Protocol):
    """Decides who may read. All methods may be called from many requests at once."""

    async def admit(self, caller: Caller, pull: Pull) -> Right:
        """The right that `pull` is to carry.

        Raises Unauthorized, Denied or TooManyRequests at once where no upstream has to be asked; where one
        has, the right asks when the pull needs it.
        """
        ...

    async def ping(self, caller: Caller) -> None:
        """GET /v2/: returns, or raises Unauthorized with the challenge that leads the caller to a credential.

        Raises UpstreamUnavailable when only the upstream could tell, and it cannot be asked.
        """
        ...

    def identity(self, caller: Caller) -> str:
        """For logs: the account's name where it was proved, else a short keyed hash, else "-"."""
        ...
