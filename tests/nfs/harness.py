"""Drivers on two machines over one folder of the file server, for the contract's clauses."""

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msrcache.storage.driver import Driver
from msrcache.storage.filesystem import BATCH
from msrcache.storage.staging import STAGING
from tests.stage.nodes.fleet import Fleet
from tests.stage.nodes.remote import Agent, RemoteDriver


class NodesHarness:
    """Implements Harness: every new driver is on the other machine than the one before."""

    part = 64 * 1024
    presigns = False
    page = BATCH

    def __init__(self, agents: tuple[Agent, Agent], *, mount: str, linking: bool) -> None:
        """`linking`: the spool lies on the file server too, so that a spool file is linked into place."""
        self.here, self.there = agents
        self.root = f"/mnt/{mount}/data/{secrets.token_hex(4)}"
        self.spool = f"/mnt/{mount}/data/spool-{secrets.token_hex(4)}" if linking else "/mnt/tmp/spool"
        self._turns = itertools.cycle(agents)

    def driver(self) -> Driver:
        """As Harness."""
        return self.on(next(self._turns))

    def on(self, calls: Agent, **parameters: str) -> RemoteDriver:
        """A driver on that machine."""
        return RemoteDriver(calls, {"rootdirectory": self.root, **parameters}, spool=self.spool)

    async def leave_dead_writer(self, key: str) -> None:
        """A staged file that no process has locked."""
        await self.here.python(
            "import pathlib; folder = pathlib.Path(root); folder.mkdir(parents=True, exist_ok=True)\n"
            "(folder / 'of-a-dead-writer').write_text(key)",
            root=f"{self.root}/{STAGING}",
            key=key,
        )

    async def leftovers(self) -> int:
        """As Harness."""
        return int(
            await self.there.python(
                "import os; result = len(os.listdir(root)) if os.path.isdir(root) else 0",
                root=f"{self.root}/{STAGING}",
            )
        )


@asynccontextmanager
async def on_nodes(nodes: Fleet, mount: str, *, linking: bool = False) -> AsyncIterator[NodesHarness]:
    """A store of its own on the file server."""
    async with nodes.agents() as agents:
        yield NodesHarness(agents, mount=mount, linking=linking)
