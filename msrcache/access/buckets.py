"""How much somebody may still do: leaky buckets and slots by name, in tables of bounded size.

A name is an address, an account, whatever is to be limited. Nothing is known of who was never full; when a
table is full, whoever was quiet longest is forgotten.
"""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msrcache.telemetry.clock import Clock


class Buckets:
    """One bucket for each name: holds `burst`, leaks `burst` a minute; `burst` 0 is no limit."""

    def __init__(self, *, clock: Clock, burst: float, capacity: int = 10_000) -> None:
        self._clock = clock
        self._burst = burst
        self._rate = burst / 60
        self._capacity = capacity
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Buckets [{len(self._levels)} names, {self._burst:g} a minute]>"

    def __len__(self) -> int:
        return len(self._levels)

    def wait(self, name: str) -> float:
        """Seconds until there is room for one more; 0 when there is."""
        if not self._burst:
            return 0.0
        over = self._level(name) + 1 - self._burst
        return over / self._rate if over > 1e-9 else 0.0

    def pour(self, name: str, amount: float = 1.0) -> None:
        """Count `amount` against the name; a negative one gives back what was counted in advance."""
        if not self._burst:
            return
        level = min(max(self._level(name) + amount, 0.0), self._burst)
        if level == 0.0:
            self._levels.pop(name, None)
            return
        self._levels[name] = (level, self._clock.monotonic())
        self._levels.move_to_end(name)
        if len(self._levels) > self._capacity:
            self._levels.popitem(last=False)

    def _level(self, name: str) -> float:
        level, since = self._levels.get(name, (0.0, 0.0))
        return max(0.0, level - (self._clock.monotonic() - since) * self._rate) if level else 0.0


class Slots:
    """At most `size` at once for each name; others wait for their turn."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used: dict[str, tuple[asyncio.Semaphore, int]] = {}

    def __len__(self) -> int:
        return len(self._used)

    @asynccontextmanager
    async def one(self, name: str) -> AsyncIterator[None]:
        """A slot of the name, while the context is open."""
        turn, users = self._used.get(name) or (asyncio.Semaphore(self._size), 0)
        self._used[name] = (turn, users + 1)
        try:
            async with turn:
                yield
        finally:
            _, users = self._used.pop(name)
            if users > 1:
                self._used[name] = (turn, users - 1)


def network_of(address: str) -> str:
    """What is limited as one: an IPv4 address, or the /64 of an IPv6 address, which one host is given."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
