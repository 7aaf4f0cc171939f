"""Replicas of one fleet, as they see each other's fills. Values and a protocol only; see protocols, section 4."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from msrcache.oci.digest import Digest
from msrcache.oci.registry import Blob


class Sign(StrEnum):
    """What a replica that could not be followed let its follower see; only the first two say that it is gone."""

    UNREACHED = "unreached"  # its port refuses the connection: nobody listens there
    REPLACED = "replaced"  # another process listens there (410): the nonce is not its own
    NOFILL = "nofill"  # it knows of no fill of the digest (404): proves nothing, it may be about to begin
    BROKEN = "broken"  # anything else: cut, timed out, refused, unintelligible


class NotFollowed(Exception):
    """A fill of another replica can't be followed, or not any further; `sign` says what was seen."""

    def __init__(self, sign: Sign, text: str) -> None:
        super().__init__(text)
        self.sign = sign


@dataclass(frozen=True, slots=True)
class Holder:
    """Who fills a digest: the replica, the nonce of its lease, and where its peer port is (host:port)."""

    replica: str
    nonce: str
    address: str


class Followable(Protocol):
    """Fills that can be followed: another replica's over HTTP, or this process's own for its peer port."""

    def follow(self, digest: Digest, holder: Holder, start: int) -> AbstractAsyncContextManager[Blob]:
        """The holder's fill from byte ``start`` on, its last bytes held back until they are verified.

        Entering waits until the size is known. Raises NotFollowed, also out of the body.
        """


@dataclass(frozen=True, slots=True)
class Member:
    """A replica that lives, and where its peer port is (host:port)."""

    replica: str
    address: str


class Fleet(Protocol):
    """Who lives, as far as this process has seen; never more than a hint (protocols, section 1)."""

    def alive(self) -> Sequence[Member]:
        """This replica and each other that lives, is not leaving, and can be asked; in order of their names.

        What another replica holds for alive differs for a while after one came or went. Costs no request.
        """
