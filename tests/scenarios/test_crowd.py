"""A thousand slow readers of one fill, with a fast one beside them: against the cache as a process."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

from tests.scenarios.plays import pull, pulling
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.images import noise
from tests.stage.scripted import Hold, Turn, scripted
from tests.stage.serving import RawClient

MIB = 1 << 20
READERS = 1000
WINDOW = 4096
"""Bytes that a slow reader's kernel takes for it: what it does not take waits in the cache's, and all TCP memory of a
machine is one pool."""


async def slow_reader(running: RunningCache, path: str, stack: AsyncExitStack) -> RawClient:
    """A connection that has asked, and takes next to nothing by itself."""
    sock = socket.socket()
    sock.settimeout(0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", running.port))
    client = RawClient(*await asyncio.open_connection(sock=sock, limit=WINDOW))
    stack.callback(client.writer.transport.abort)
    await client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    return client


async def test_a_thousand_slow_readers_beside_a_fast_one(tmp_path: Path) -> None:
    """All of them join one fill and take 1,000 bytes; memory stays below 150 MiB, a fast client has its whole body."""
    data = await asyncio.to_thread(noise, 16 * MIB, 8)
    settings = {"access": {"mode": "open"}}
    async with (
        scripted() as upstream,
        cache(tmp_path, {"url": upstream.url}, settings=settings) as running,
        AsyncExitStack() as stack,
    ):
        path = upstream.publish_blob(data)
        hold = Hold(8 * MIB)
        upstream.script(path, Turn(hold=hold))
        first = await stack.enter_async_context(pulling(running.port, path))
        await asyncio.wait_for(hold.reached.wait(), 20)
        crowd = [await slow_reader(running, path, stack) for _ in range(READERS)]
        for reader in crowd:
            status, headers = await reader.heading()
            assert (status, headers["x-cache"]) == (200, ["joined"])
            async with asyncio.timeout(20):
                assert await reader.reader.readexactly(1000) == data[:1000]
        fast = asyncio.create_task(pull(running.port, path))
        hold.go.set()
        assert (await fast).body == data
        assert await first.rest() == data
        assert running.resident < 150 * MIB
        assert (await pull(running.port, path)).body == data
        assert await crowd[0].rest() == data[1000:]
        assert [line for line in upstream.lines if path in line] == [f"GET {path}"]
        assert "Traceback" not in running.process.said(1_000_000)
