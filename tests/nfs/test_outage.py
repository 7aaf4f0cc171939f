"""The file server hangs, or dies and comes again, in the middle of everything: late, but right, and nobody waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.errors import Unavailable
from tests.contract.harness import Spooler, keys, pattern, read, rest
from tests.nfs.harness import NodesHarness, on_nodes
from tests.stage.nodes.fleet import Fleet
from tests.stage.nodes.remote import Agent, RemoteDriver
from tests.stage.process import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

DATA = pattern(3_000_000)


@asynccontextmanager
async def hung(nodes: Fleet) -> AsyncIterator[None]:
    """The server answers nothing inside."""
    nodes.server.node.pause()
    try:
        yield
    finally:
        nodes.server.node.resume()


class Under:
    """Work of every kind under way on one machine when the server goes away, and what must come of it."""

    def __init__(self, stores: NodesHarness, spool: Spooler) -> None:
        self.driver, self.other = stores.on(stores.here), stores.on(stores.there)
        self._spool = spool

    async def prepared(self) -> None:
        """What must be there before."""
        await self.other.put("read", DATA)
        await self.other.put("opened", DATA)
        self.writer = self.driver.writer("committed")
        await self.writer.__aenter__()
        self.file = self._spool(DATA)
        await self.writer.write(self.file, Span(0, 1_000_000))
        self.content = self.driver.open("opened")
        self.opened = await self.content.__aenter__()

    async def started(self) -> list[asyncio.Task[object]]:
        """All of it is waiting for the server."""
        works = (self._commit(), read(self.driver, "read"), rest(self.opened), self.driver.put("put", DATA),
                 self.driver.create("created", b"mine"), self.driver.stat("opened"))  # fmt: skip
        return [asyncio.create_task(work) for work in works]

    async def _commit(self) -> int:
        await self.writer.write(self.file, Span(1_000_000, len(DATA)))
        return (await self.writer.commit()).size

    async def ended(self, tasks: list[asyncio.Task[object]]) -> None:
        """It came out right, and the other machine sees it."""
        committed, found, opened, _, created, info = await asyncio.gather(*tasks)
        assert (committed, found, opened, created) == (len(DATA), DATA, DATA, True)
        assert info == await self.other.stat("opened")
        await self.content.__aexit__(None, None, None)
        await self.writer.__aexit__(None, None, None)
        assert await keys(self.other.list("")) == ["committed", "created", "opened", "put", "read"]
        for name in ("committed", "put"):
            assert await read(self.other, name) == DATA
        await asyncio.gather(self.driver.close(), self.other.close())


async def alive(driver: RemoteDriver) -> None:
    """The loop that the driver works on turns."""
    assert await driver.calls.python("result = 7") == 7


async def threads(node: Agent, number: int) -> bool:
    """Whether the drivers there have so many threads."""
    source = "import threading; result = sum(t.name.startswith('filesystem') for t in threading.enumerate())"
    return bool(await node.python(source) == number)


@pytest.mark.parametrize("linking", [True, False], ids=["linked", "copied"])
async def test_a_server_that_hangs(nodes: Fleet, spool: Spooler, *, linking: bool) -> None:
    """Commit, put, create, open and a body wait for it; the loop does not; all is right when it goes on."""
    async with on_nodes(nodes, "default", linking=linking) as stores:
        work = Under(stores, spool)
        await work.prepared()
        async with hung(nodes):
            tasks = await work.started()
            for _ in range(20):
                await alive(work.driver)
            assert not any(task.done() for task in tasks[:2])
        await work.ended(tasks)


async def test_more_hanging_calls_than_threads(nodes: Fleet) -> None:
    """Their callers leave, the threads stay bounded, and the store is well as soon as the server is."""
    async with on_nodes(nodes, "default") as stores:
        driver = stores.on(stores.here, maxthreads="25")
        await driver.put("a", b"1")
        async with hung(nodes):
            calls = [asyncio.create_task(driver.stat(f"missing/{number}")) for number in range(120)]
            # They come to the node behind the next question, and only a call that has begun keeps a thread.
            await until(lambda: threads(stores.here, 25), what="the calls to take every thread")
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            await alive(driver)
            assert await threads(stores.here, 25)
        assert (await driver.stat("a")).size == 1
        await driver.close()


@pytest.mark.slow
async def test_a_soft_mount_gives_up(nodes: Fleet) -> None:
    """The call ends by itself, as Unavailable, and its thread is free again."""
    async with on_nodes(nodes, "soft") as stores:
        driver = stores.on(stores.here)
        await driver.put("a", b"1")
        async with hung(nodes):
            with pytest.raises(Unavailable, match=r"the file server does not answer|the disk failed"):
                await driver.stat("a")
        assert (await driver.stat("a")).size == 1
        await driver.close()


async def test_a_server_that_dies_and_comes_again(nodes: Fleet, spool: Spooler) -> None:
    """What was stored before is there, what was under way is done, and a living writer's lock has survived."""
    async with on_nodes(nodes, "default") as stores:
        work = Under(stores, spool)
        await work.prepared()
        nodes.server.kill()
        tasks = await work.started()
        await alive(work.driver)
        await nodes.server.start()
        async with work.driver.writer("living") as writer:
            await writer.write(spool(b"1234"), Span(0, 4))
            assert await work.other.sweep(0.0) == 0
        await work.ended(tasks)
