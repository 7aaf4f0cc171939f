"""check-storage on a real NFS store: from one machine, and between two of them."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.nfs.harness import NodesHarness, on_nodes
from tests.stage.nodes.fleet import Fleet
from tests.stage.nodes.machine import Node
from tests.stage.nodes.remote import Agent
from tests.stage.process import until
from tests.stage.tools import PROJECT

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

PORT = 5055
PROGRAM = f"cd {PROJECT} && HOME=/run PYTHONDONTWRITEBYTECODE=1 {sys.executable} -m msrcache check-storage"
CONFIG = "/mnt/tmp/check-storage.yml"


async def configured(calls: Agent, root: str) -> None:
    """The same configuration on a machine."""
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": root}},
        "http": {"secret": "s3cr3t"},
        "proxy": {"remoteurl": "http://upstream.example.com"},
    }
    await calls.python(
        "import pathlib; pathlib.Path(path).write_text(text)", path=CONFIG, text=json.dumps(config)
    )


async def checked(calls: Agent, *more: str) -> dict[str, Any]:
    """What the command says on a machine, as JSON."""
    text = await calls.shell(f"{PROGRAM} {CONFIG} --json {' '.join(more)} || true")
    found: dict[str, Any] = json.loads(text)
    return found


@asynccontextmanager
async def listening(nodes: Fleet, node: Node, calls: Agent) -> AsyncIterator[str]:
    """The other machine of a check."""
    start = (
        f"{PROGRAM} {CONFIG} --listen {node.address}:{PORT} > /mnt/tmp/check.log 2>&1 < /dev/null & echo $!"
    )
    pid = int(await calls.shell(start))
    try:

        async def listens() -> bool:
            return await nodes.network.accepts(node.address, PORT)

        await until(listens, what="the other machine to listen", seconds=90)
        yield f"http://{node.address}:{PORT}"
    finally:
        await calls.shell(f"kill {pid}; while kill -0 {pid} 2> /dev/null; do sleep 0.1; done")


def broken(told: dict[str, Any]) -> dict[str, str]:
    """What is neither kept nor merely not claimed."""
    return {
        promise["name"]: promise["said"]
        for promise in told["promises"]
        if promise["verdict"] not in ("kept", "not promised")
    }


async def files(stores: NodesHarness) -> str:
    """What lies below the probe's folder."""
    return await stores.here.shell(f"find {stores.root} -path '*probe*' -type f")


@pytest.mark.parametrize("mount", ["default", "positive"])
async def test_every_promise_is_kept_between_two_machines(nodes: Fleet, mount: str) -> None:
    """Over either mount; the mount is described, with what its options cost; nothing stays."""
    async with on_nodes(nodes, mount) as stores:
        for calls in (stores.here, stores.there):
            await configured(calls, stores.root)
        async with listening(nodes, nodes.clients[0], stores.here) as url:
            told = await checked(stores.there, "--peer", url)
        assert told["between"] == f"this machine and {url}"
        assert broken(told) == {}
        assert told["status"] == 0
        assert told["left"] == []
        assert any("as nfs4 (rw" in remark for remark in told["remarks"])
        assert any("rw,root_squash,no_wdelay" in remark for remark in told["remarks"])
        costs = any("mount with lookupcache=positive" in remark for remark in told["remarks"])
        assert costs is (mount == "default")
        assert await files(stores) == ""
