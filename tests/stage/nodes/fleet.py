"""A file server and two client nodes with an agent each: what the tests of NFS stand on.

Each client has the export mounted three times: as mount(8) does by default, with lookupcache=positive, and soft.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.stage.nodes.machine import Node, Server, boot
from tests.stage.nodes.network import Network, network
from tests.stage.nodes.remote import Agent, agent
from tests.stage.process import until
from tests.stage.tools import PROJECT

PORT: Final = 7000
MOUNTS: Final = {
    "default": "vers=4.2",
    "positive": "vers=4.2,lookupcache=positive",
    # The shortest patience that the client has: what the test of it has to wait.
    "soft": "vers=4.2,soft,timeo=10,retrans=1",
}


@dataclass(slots=True)
class Fleet:
    """Running nodes. Connections to the agents belong to one loop, so each test makes its own."""

    network: Network
    server: Server
    clients: list[Node]

    @asynccontextmanager
    async def agents(self) -> AsyncIterator[tuple[Agent, Agent]]:
        """Connections to the agents of both clients."""
        first, second = (client.address for client in self.clients)
        async with agent(self.network, first, PORT) as here, agent(self.network, second, PORT) as there:
            yield here, there


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """Booted and mounted; ended and unmade on leaving."""
    with network() as made:
        server = Server(made, folder)
        words = {"PYTHON": sys.executable, "PROJECT": str(PROJECT), "PORT": str(PORT)}
        clients: list[Node] = []
        try:
            clients += [boot(made, folder, name, role="client", **words) for name in ("here", "there")]
            await server.start()
            running = Fleet(made, server, clients)
            for client in clients:
                await _ready(running, client)
            async with running.agents() as agents:
                await asyncio.gather(*(_mount(each, server.address) for each in agents))
            yield running
        finally:
            for node in clients:
                node.kill()
            server.kill()


async def _ready(running: Fleet, client: Node) -> None:
    async def listens() -> bool:
        assert not client.process.ended, client.process.said()
        return await running.network.accepts(client.address, PORT)

    await until(listens, what=f"the agent of {client.name}", seconds=60)


async def _mount(client: Agent, address: str) -> None:
    for name, options in MOUNTS.items():
        await client.shell(f"mkdir -p /mnt/{name} && mount -t nfs4 -o {options} {address}:/ /mnt/{name}")
