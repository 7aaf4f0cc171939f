"""Two machines on one file server: what one has stored the other sees, and of many creates one wins. Many times."""

import asyncio

import pytest

from msrcache.storage.driver import Driver
from msrcache.storage.errors import NotFound
from tests.contract.harness import read
from tests.nfs.harness import on_nodes
from tests.stage.nodes.fleet import Fleet

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ROUNDS = 1000
TOGETHER = 20
TURNS = 20


def key(number: int) -> str:
    """Some in one folder, some in folders of their own, as manifests and blobs are."""
    return f"many/{number}" if number % 2 else f"blobs/sha256/{number % 16:02x}/{number:064x}/data"


async def missed(driver: Driver, name: str) -> bool:
    """Whether it is not there, for stat and for open."""
    found = 0
    for look in (driver.stat(name), read(driver, name)):
        try:
            await look
        except NotFound:
            continue
        found += 1
    assert found in {0, 2}, f"stat and open disagree about {name}"
    return not found


@pytest.mark.parametrize("mount", ["default", "positive"])
async def test_what_is_stored_here_is_seen_there(nodes: Fleet, mount: str) -> None:
    """A thousand names that were looked for in vain a moment before: no miss. The default mount remembers them."""
    async with on_nodes(nodes, mount) as stores:
        here, there = stores.on(stores.here), stores.on(stores.there)
        late: list[str] = []
        turns = iter(range(ROUNDS if mount == "default" else ROUNDS // 5))

        async def work() -> None:
            for number in turns:
                name = key(number)
                assert await missed(there, name)
                if number % 3:
                    await here.put(name, b"1")
                else:
                    assert await here.create(name, b"1")
                if await missed(there, name):
                    late.append(name)

        await asyncio.gather(*(work() for _ in range(TOGETHER)))
        assert late == []
        await asyncio.gather(here.close(), there.close())


@pytest.mark.parametrize("mount", ["default", "positive"])
async def test_what_is_replaced_here_is_read_there(nodes: Fleet, mount: str) -> None:
    """Records that are replaced again and again while both machines read them: who opens after a put has it.

    The machine that replaces a file which it has open keeps the old one alive under another name, and the other
    machine's kernel would open that.
    """
    async with on_nodes(nodes, mount) as stores:
        here, there = stores.on(stores.here), stores.on(stores.there)
        late: list[tuple[str, int]] = []

        async def keep(name: str) -> None:
            await here.put(name, b"-1")
            for number in range(ROUNDS // 50):
                async with (here if number % 2 else there).open(name), there.open(name):
                    await here.put(name, b"%d" % number)
                    if await read(there, name) != b"%d" % number:
                        late.append((name, number))

        await asyncio.gather(*(keep(f"records/{number}") for number in range(TOGETHER // 4)))
        assert late == []
        await asyncio.gather(here.close(), there.close())


async def test_of_fifty_creates_one_wins(nodes: Fleet) -> None:
    """Of one key by fifty at once, and of fifty keys by two at once: one each, and its content stands."""
    async with on_nodes(nodes, "default") as stores:
        drivers = [stores.on(stores.here), stores.on(stores.there)]
        for name in ("one", "folder/of/its/own"):
            won = await asyncio.gather(*(drivers[n % 2].create(name, b"%d" % n) for n in range(50)))
            assert sum(won) == 1
            assert await read(drivers[0], name) == await read(drivers[1], name) == b"%d" % won.index(True)

        async def race(name: str) -> tuple[bool, bool]:
            first, second = await asyncio.gather(*(driver.create(name, b"1") for driver in drivers))
            return first, second

        winners = set[int]()
        for turn in range(TURNS):  # a machine that is slow just now loses all of them
            pairs = await asyncio.gather(*(race(f"races/{turn}/{number}") for number in range(50)))
            assert [sum(pair) for pair in pairs] == [1] * 50
            winners |= {pair.index(True) for pair in pairs}
            drivers.reverse()  # who is asked first
            if len(winners) == 2:
                break
        assert winners == {0, 1}, "the machines did not race"
        await asyncio.gather(*(driver.close() for driver in drivers))
