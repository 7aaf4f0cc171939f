"""How many connections there may be: in all, and of one address; and how many the process could hold.

Not here: what is done with a connection that finds no place (listener).
"""

import resource
from collections import Counter
from ipaddress import IPv6Address, ip_address
from typing import Final

SPARE_DESCRIPTORS: Final = 512
"""Kept for fills, spool files, upstream connections and logs, whatever clients do."""


def raise_descriptor_limit() -> int:
    """Lift the limit of open files to what the process may have, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # a hard limit above the kernel's own
            return soft
    return hard


def connections_for(descriptors: int) -> int:
    """The connections that fit when four of five hold two descriptors: their socket and the file they are sent."""
    return max((descriptors - SPARE_DESCRIPTORS) * 5 // 9, 64)


def counted_as(address: str) -> str:
    """The address that a limit counts: IPv4 whole, IPv6 by its /64, which is what one customer is given."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return f"{parsed.packed[:8].hex()}::/64"
    return address


class Place:
    """One connection's place under the limits; given back once, however often release() is called."""

    __slots__ = ("_key", "_limits", "_taken")

    def __init__(self, limits: "ConnectionLimits") -> None:
        self._limits = limits
        self._key = ""
        self._taken = True

    def claim(self, address: str) -> bool:
        """Count this connection for its client's address; False where that has too many already."""
        return self._limits._claim(self, address)  # noqa: SLF001 - one thing in two classes

    def release(self) -> None:
        if self._taken:
            self._taken = False
            self._limits._release(self._key)  # noqa: SLF001


class ConnectionLimits:
    """Counts the open connections of all listeners that share it."""

    def __init__(self, *, total: int, per_address: int = 0) -> None:
        self._total = total
        self._per_address = per_address
        self._open = 0
        self._addresses: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<ConnectionLimits {self._open} of {self._total}, {len(self._addresses)} addresses>"

    @property
    def open(self) -> int:
        return self._open

    def change(self, *, total: int, per_address: int) -> None:
        """Other limits from now on; connections that are open stay."""
        self._total = total
        self._per_address = per_address

    def take(self) -> Place | None:
        """A place for a connection just accepted, or None where all are taken."""
        if self._open >= self._total:
            return None
        self._open += 1
        return Place(self)

    def _claim(self, place: Place, address: str) -> bool:
        key = counted_as(address)
        if self._per_address and self._addresses[key] >= self._per_address:
            return False
        self._addresses[key] += 1
        place._key = key  # noqa: SLF001
        return True

    def _release(self, key: str) -> None:
        self._open -= 1
        if not key:
            return
        self._addresses[key] -= 1
        if self._addresses[key] <= 0:
            del self._addresses[key]
