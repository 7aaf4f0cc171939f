"""A network of its own for a container engine: its bridges and firewall rules are in there, and end with it.

The test's side and the engine's are the ends of a pair of virtual cables: what the engine publishes is reached at
`address`, and what a test listens on at `host` is reached from containers.
"""

import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stage.nodes.network import ip
from tests.stage.tools import need, need_root


@dataclass(frozen=True, slots=True)
class EngineNetwork:
    """A network namespace by its name, and both ends of the cable into it."""

    name: str
    host: str
    address: str

    @property
    def inside(self) -> list[str | Path]:
        """What stands before a program that is to run in it; only its network is another."""
        return [need("nsenter"), f"--net=/run/netns/{self.name}", "--"]


@contextmanager
def engine_network() -> Iterator[EngineNetwork]:
    """A new one; gone on leaving, when its engine has ended."""
    need_root()
    mark, number = secrets.token_hex(3), random.randint(1, 250)
    made = EngineNetwork(f"msrcache-{mark}", f"10.98.{number}.1", f"10.98.{number}.2")
    cable = f"msrc{mark}"
    ip("netns", "add", made.name)
    try:
        ip("-n", made.name, "link", "set", "lo", "up")
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", made.name)
        ip("addr", "add", f"{made.host}/24", "dev", cable)
        ip("link", "set", cable, "up")
        ip("-n", made.name, "addr", "add", f"{made.address}/24", "dev", "eth0")
        ip("-n", made.name, "link", "set", "eth0", "up")
        ip("-n", made.name, "route", "add", "default", "via", made.host)
        yield made
    finally:
        ip("netns", "del", made.name)
