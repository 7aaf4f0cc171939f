"""Strangers against the whole cache as a process: they cost little, and whoever pulls beside them notices nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.scenarios.plays import pull, pulling
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.images import noise
from tests.stage.process import until
from tests.stage.scripted import Hold, Scripted, Turn, scripted
from tests.stage.serving import RawClient

MIB = 1 << 20
DATA = noise(300_000, 31)
K = 100_000
SETTINGS = {"access": {"mode": "open"}, "limits": {"headertimeout": "1s"}}
CROWD = 200


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[tuple[Scripted, RunningCache]]:
    """An upstream and a cache process before it, with a second for headers."""
    async with scripted() as upstream, cache(folder, {"url": upstream.url}, settings=SETTINGS) as running:
        yield upstream, running


async def stranger(running: RunningCache, stack: AsyncExitStack) -> RawClient:
    """A connection to the cache."""
    client = RawClient(*await asyncio.open_connection("127.0.0.1", running.port))
    stack.push_async_callback(client.close)
    return client


FEW = 4
"""Descriptors that come and go by themselves: the store's writer, a kept upstream connection, a worker's pipe."""


async def quiet(running: RunningCache, descriptors: int) -> None:
    """Returns when the process has no more open than it had."""

    async def there() -> bool:
        return running.descriptors <= descriptors

    await until(there, what=f"the cache to have {descriptors} descriptors again")


def unharmed(running: RunningCache) -> None:
    """It lives, and has told of no bug."""
    assert not running.process.ended
    assert "Traceback" not in running.process.said(1_000_000)


async def test_slow_headers_by_the_hundred(tmp_path: Path) -> None:
    """Two hundred connections that never end their headers: each gets 408, a pull beside them its bytes."""
    async with stage(tmp_path) as (upstream, running), AsyncExitStack() as stack:
        path = upstream.publish_blob(DATA)
        before = running.descriptors
        crowd = [await stranger(running, stack) for _ in range(CROWD)]
        for client in crowd:
            await client.send("GET /v2/ HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        assert (await pull(running.port, path)).body == DATA
        replies = await asyncio.gather(*(client.reply() for client in crowd))
        assert {reply.status for reply in replies} == {408}
        assert {await client.rest() for client in crowd} == {b""}
        await quiet(running, before + 2)  # the stored blob's fill may still be ending
        unharmed(running)


async def test_header_bombs_by_the_dozen(tmp_path: Path) -> None:
    """Endless headers on fifty connections: refused after 64 KiB each, so that memory hardly grows."""
    async with stage(tmp_path) as (upstream, running), AsyncExitStack() as stack:
        path = upstream.publish_blob(DATA)
        assert (await pull(running.port, path)).body == DATA
        before = running.resident

        async def bomb(client: RawClient) -> int:
            await client.send("GET /v2/ HTTP/1.1\r\nHost: a\r\n")
            try:
                for number in range(2000):  # 20 MB, if they were taken
                    await client.send(f"X-{number}: {'x' * 10_000}\r\n")
            except ConnectionError:
                pass
            return len(await client.rest())

        await asyncio.gather(*[bomb(await stranger(running, stack)) for _ in range(50)])
        assert running.resident - before < 50 * MIB
        assert (await pull(running.port, path)).body == DATA
        unharmed(running)


async def test_a_flood_of_pipelined_requests_that_nobody_reads(tmp_path: Path) -> None:
    """A client sends requests without end and reads no answer: it is held back, and memory hardly grows."""
    async with stage(tmp_path) as (upstream, running), AsyncExitStack() as stack:
        path = upstream.publish_blob(DATA)
        assert (await pull(running.port, path)).body == DATA
        before = running.resident
        flood = await stranger(running, stack)
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()

        async def pour() -> None:
            for _ in range(64):
                await flood.send(request * 5000)

        pouring = asyncio.create_task(pour())  # 40 MB of requests, if they were taken
        for _ in range(20):
            assert (await pull(running.port, path)).body == DATA
        assert not pouring.done()
        assert running.resident - before < 50 * MIB
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
        flood.writer.transport.abort()  # it would wait until all of that was taken
        unharmed(running)


async def test_pipelined_pulls_are_answered_in_order(tmp_path: Path) -> None:
    """A hit, a miss and a range sent at once on one connection: each answer whole, in the order asked."""
    async with stage(tmp_path) as (upstream, running), AsyncExitStack() as stack:
        hit, miss = upstream.publish_blob(DATA), upstream.publish_blob(DATA[::-1])
        assert (await pull(running.port, hit)).body == DATA
        client = await stranger(running, stack)
        ranged = f"GET {hit} HTTP/1.1\r\nHost: a\r\nRange: bytes=7-9\r\n\r\n"
        await client.send("".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n" for path in (hit, miss)) + ranged)
        bodies = [(await client.reply()).body for _ in range(3)]
        assert bodies == [DATA, DATA[::-1], DATA[7:10]]
        unharmed(running)


async def test_half_closed_and_reset_clients_leave_a_fill_to_the_others(tmp_path: Path) -> None:
    """Forty readers of a fill half-close or reset: they are gone, the one that stays gets every byte, nothing leaks."""
    async with stage(tmp_path) as (upstream, running):
        path = upstream.publish_blob(DATA)
        before = running.descriptors
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold))
        async with pulling(running.port, path) as faithful:
            assert await faithful.take(K) == DATA[:K]
            with_all = running.descriptors
            async with AsyncExitStack() as stack:
                crowd = [await stack.enter_async_context(pulling(running.port, path)) for _ in range(40)]
                for number, client in enumerate(crowd):
                    await client.take(1000)
                    if number % 2:
                        client.reset()
                    else:
                        client.half_close()
                await quiet(running, with_all + FEW)
            hold.go.set()
            assert await faithful.rest() == DATA[K:]
        await quiet(running, before + FEW)
        assert upstream.lines[-1] == f"GET {path}"
        unharmed(running)


async def test_an_upstream_that_resets_is_resumed(tmp_path: Path) -> None:
    """An RST of the upstream at byte k: the rest is asked for from there, and the client sees nothing of it."""
    async with stage(tmp_path) as (upstream, running):
        path = upstream.publish_blob(DATA)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold, cut=K, reset=True))
        async with pulling(running.port, path) as client:
            assert await client.take(K) == DATA[:K]
            hold.go.set()
            assert await client.rest() == DATA[K:]
        assert [line for line in upstream.lines if path in line] == [f"GET {path}", f"GET {path} bytes={K}-"]
        unharmed(running)
