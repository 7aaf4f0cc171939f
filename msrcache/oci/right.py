"""Who asks, as far as registries have to know: an opaque credential, and the right to read made from it.

How a right is judged stands in `access`; through this seam `cache` and `upstream` meet it without knowing it.
`registry` gives these names out again: import them from there.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from msrcache.oci.names import Repository
    from msrcache.oci.pulls import Pull


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """An Authorization header's value as the caller sent it; empty: anonymous. repr and str hide it."""

    header: str = ""

    def __repr__(self) -> str:
        return "Credential(…)" if self.header else "Credential(anonymous)"


class Right(Protocol):
    """What one caller may read; made by a gate for one request, carried in `pull.right`."""

    @property
    def credential(self) -> Credential | None:
        """What the upstream is asked with: the caller's own; None is the upstream's service account."""

    @property
    def graced(self) -> bool:
        """Whether the last `ask` was answered by grace, the upstream being away: then nothing may be given away that
        outlives this request, as a signed URL would.
        """

    async def ask(self, pull: "Pull", *, unreachable: bool = False) -> bool:
        """Returns when the caller may read from the pull's repository.

        True where the upstream confirmed THIS content just now; a remembered yes answers at once with False.
        `unreachable`: the upstream was just found away; decide by memory and grace alone. Raises what the
        upstream gave, Unauthorized, Denied or an Unknown, and UpstreamUnavailable when it cannot be asked and
        no grace holds.
        """

    def granted(self, repository: "Repository") -> None:
        """The upstream just answered this caller's own request with content of the repository: remember."""


@dataclass(frozen=True, slots=True)
class _Service:
    """The cache itself: may read all that the upstream's service account may."""

    credential: None = None
    graced: bool = False

    async def ask(self, pull: "Pull", *, unreachable: bool = False) -> bool:
        return False

    def granted(self, repository: "Repository") -> None:
        pass


SERVICE: Final[Right] = _Service()
"""The right of the cache's own pulls: no question is put, nothing is remembered."""
