"""Hundreds of slow readers of one fill: more of them in one process fill the kernel's own TCP memory."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

from tests.scenarios.plays import cache, following, pulling
from tests.stage.images import noise
from tests.stage.scripted import Hold, Turn, scripted

MIB = 1 << 20
READERS = 300


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_hundreds_of_slow_readers_cost_no_memory(tmp_path: Path) -> None:
    """While all of them wait in the middle of 16 MiB, memory has grown by far less than one buffer of 1 MiB each."""
    data = await asyncio.to_thread(noise, 16 * MIB, 8)
    async with scripted() as upstream, cache(tmp_path, upstream) as application, AsyncExitStack() as stack:
        path = upstream.publish_blob(data)
        hold = Hold(8 * MIB)
        upstream.script(path, Turn(hold=hold))
        first = await stack.enter_async_context(pulling(application, path))
        await asyncio.wait_for(hold.reached.wait(), 20)
        before = resident()
        crowd = [await stack.enter_async_context(pulling(application, path)) for _ in range(READERS)]
        await following(application, READERS + 1)
        heads = await asyncio.gather(*(reader.take(1000) for reader in crowd))
        assert all(head == data[:1000] for head in heads)
        # our own clients hold up to 128 KiB each, in this same process
        assert resident() - before < READERS * MIB // 2
        hold.go.set()
        assert await first.rest() == data
        assert await crowd[0].rest() == data[1000:]
        assert upstream.lines == [f"GET {path}"]
