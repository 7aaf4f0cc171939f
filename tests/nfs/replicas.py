"""Whole caches, each on a machine of its own, over one folder of the file server; their upstream is in the test.

The spool is on each machine's own disk, as docs/storage.md has it.
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tests.nfs.harness import NodesHarness, on_nodes
from tests.scenarios.plays import Got, Pull, opened
from tests.stage.nodes.fleet import Fleet
from tests.stage.nodes.machine import Node
from tests.stage.nodes.network import Network
from tests.stage.nodes.remote import Agent
from tests.stage.process import until
from tests.stage.scripted import Scripted
from tests.stage.tools import PROJECT

PORT = 5000
PROGRAM = (
    f"cd {PROJECT} && HOME=/run TMPDIR=/mnt/tmp PYTHONDONTWRITEBYTECODE=1 exec {sys.executable} -m msrcache"
)
"""For a shell in a node, without a command."""


@dataclass(slots=True)
class Replica:
    """A cache that starts, then serves, on a node."""

    network: Network
    address: str
    calls: Agent
    log: str

    @asynccontextmanager
    async def pulling(self, path: str, *, method: str = "GET") -> AsyncIterator[Pull]:
        """An open pull."""
        reader, writer = await self.network.connect(self.address, PORT)
        async with opened(reader, writer, path, method=method) as answer:
            yield answer

    async def pull(self, path: str, *, method: str = "GET") -> Got:
        """One pull to its end."""
        async with self.pulling(path, method=method) as answer:
            body = await answer.rest()
        promised = 0 if method == "HEAD" else int(answer.headers.get("content-length", "-1"))
        return Got(answer.status, answer.headers, body, len(body) == promised)

    async def has(self, path: str) -> None:
        """Returns when a blob is a hit."""

        async def hit() -> bool:
            return (await self.pull(path, method="HEAD")).headers.get("x-cache") == "hit"

        await until(hit, what=f"{path} to be a hit", seconds=60)

    async def listens(self) -> bool:
        """Whether it is there."""
        return await self.network.accepts(self.address, PORT)

    async def said(self) -> str:
        """Its log."""
        return await self.calls.shell(f"cat {self.log}")


@dataclass(slots=True)
class Pair:
    """Two replicas and what they pull from."""

    upstream: Scripted
    here: Replica
    there: Replica


@asynccontextmanager
async def pair(nodes: Fleet, mount: str) -> AsyncIterator[Pair]:
    """Two replicas over one new folder."""
    upstream = Scripted()
    async with on_nodes(nodes, mount) as stores, AsyncExitStack() as stack:
        await upstream.start_on(nodes.network.listener())
        stack.push_async_callback(upstream.stop)
        made = [
            await stack.enter_async_context(_replica(nodes, node, calls, stores, upstream))
            for node, calls in zip(nodes.clients, (stores.here, stores.there), strict=True)
        ]
        for replica in made:
            await until(replica.listens, what="a replica to listen", seconds=60)
        yield Pair(upstream, *made)


@asynccontextmanager
async def _replica(
    nodes: Fleet, node: Node, calls: Agent, stores: NodesHarness, upstream: Scripted
) -> AsyncIterator[Replica]:
    folder = f"/mnt/tmp/replica-{stores.root.rpartition('/')[2]}"
    config = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": stores.root}},
        "http": {"addr": f"{node.address}:{PORT}", "draintimeout": "1s"},
        "cache": {
            "upstreams": [{"url": upstream.url}],
            "access": {"mode": "open"},
            "spool": {"path": f"{folder}/spool"},
            "drain": {"delay": "0s"},
            "storage": {"breaker": {"failures": 1, "open": "1s"}},
        },
    }
    write = "import pathlib; p = pathlib.Path(path); p.parent.mkdir(parents=True, exist_ok=True); p.write_text(text)"
    await calls.python(write, path=f"{folder}/config.yml", text=json.dumps(config))
    pid = int(
        await calls.shell(f"{PROGRAM} serve {folder}/config.yml > {folder}/log 2>&1 < /dev/null & echo $!")
    )
    running = Replica(nodes.network, node.address, calls, f"{folder}/log")
    try:
        yield running
    finally:
        await calls.shell(f"kill {pid}; while kill -0 {pid} 2> /dev/null; do sleep 0.1; done; rm -r {folder}")
