"""What an NFS client does to a store: forgets, remembers too long, renames instead of removing, owns nothing."""

import asyncio
import itertools

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.errors import NotFound
from msrcache.storage.staging import STAGING
from tests.contract.harness import Spooler, keys, pattern, read, rest, write
from tests.nfs.harness import NodesHarness, on_nodes
from tests.stage.nodes.fleet import Fleet
from tests.stage.nodes.remote import Agent
from tests.stage.process import until

pytestmark = pytest.mark.real

REMEMBERED = """
import os
def there(path):
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1
def anew(folder):
    os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
"""


REMEMBERS = 2.5
"""Seconds for which the client does not ask about a file that it knows: three (acregmin), a bit less to be sure."""


async def look(calls: Agent, path: str, *, anew: bool = False) -> int:
    """The size that a client's kernel believes a file to have, -1 for none."""
    lines = "anew(os.path.dirname(path))\n" if anew else ""
    return int(await calls.python(REMEMBERED + lines + "result = there(path)", path=path))


async def shell(stores: NodesHarness, script: str) -> str:
    """A script on the first machine, in the store's folder."""
    return await stores.here.shell(f"mkdir -p {stores.root} && cd {stores.root} && {script}")


async def test_the_default_mount_remembers_and_opening_the_folder_helps(nodes: Fleet) -> None:
    """Why the driver asks anew: without it the client hides what was made, replaced and removed elsewhere."""
    async with on_nodes(nodes, "default") as stores:
        loop, turns = asyncio.get_running_loop(), itertools.count()

        async def played() -> bool:
            began, folder = loop.time(), f"turn-{next(turns)}"
            hidden = await hidden_and_seen(stores, folder)
            in_time = loop.time() - began < REMEMBERS
            assert not in_time or hidden == {"made": -1, "replaced": 1, "removed": 1}
            return in_time

        await until(played, what="a play within what the client remembers", seconds=60)


async def hidden_and_seen(stores: NodesHarness, folder: str) -> dict[str, int]:
    """What one machine still hides of what the other has changed; asked anew, it sees all of it."""
    await shell(stores, f"mkdir {folder}; cd {folder}; printf 1 > removed; printf 1 > replaced")
    names = {"made": -1, "replaced": 1, "removed": 1}
    for name, size in names.items():
        assert await look(stores.there, f"{stores.root}/{folder}/{name}") == size
    await shell(stores, f"cd {folder}; printf 12 > made; printf 12 > new; mv new replaced; rm removed")
    hidden = {name: await look(stores.there, f"{stores.root}/{folder}/{name}") for name in names}
    seen = {name: await look(stores.there, f"{stores.root}/{folder}/{name}", anew=True) for name in names}
    assert seen == {"made": 2, "replaced": 2, "removed": -1}
    return hidden


async def test_the_positive_mount_does_not_remember_absence(nodes: Fleet) -> None:
    """The advised mount asks the server for every name that is not there."""
    async with on_nodes(nodes, "positive") as stores:
        await shell(stores, "true")
        assert await look(stores.there, f"{stores.root}/made") == -1
        await shell(stores, "printf 12 > made")
        assert await look(stores.there, f"{stores.root}/made") == 2


@pytest.mark.parametrize(("mount", "nfs"), [("default", (True, True)), ("positive", (False, True))])
async def test_the_mount_is_read(nodes: Fleet, mount: str, nfs: tuple[bool, bool]) -> None:
    """Nobody has told the driver that it is on NFS; what the kernel's mountinfo says is enough."""
    async with on_nodes(nodes, mount) as stores:
        driver = stores.on(stores.here)
        await driver.put("a", b"1")
        found = await stores.here.python(
            "found = things[number].lookups; mount = found.mount\n"
            "result = [mount.kind, found.remembers_absence, found.remembers_presence, mount.shares_locks]",
            number=await driver.number(),
        )
        assert found == ["nfs4", *nfs, True]
        await driver.close()


async def test_files_belong_to_somebody_else(nodes: Fleet, spool: Spooler) -> None:
    """root_squash: a replica that runs as root owns nothing there, chowns nothing, and does all the same."""
    async with on_nodes(nodes, "default", linking=True) as stores:
        driver = stores.on(stores.here)
        await driver.put("put", b"1")
        assert await driver.create("created", b"1")
        await write(driver, "a/written", spool(pattern(100_000)))
        listed = await shell(stores, "id -u; stat -c '%u %a' put created a/written a")
        assert listed.split("\n")[:5] == ["0", *["65534 644"] * 3, "65534 755"]
        await driver.delete("put", "created", "a/written")
        assert await keys(driver.list("")) == []
        await driver.close()


async def test_what_is_removed_while_open_is_no_object(nodes: Fleet) -> None:
    """The client keeps it as .nfs…: it is read to its end, never listed, and gone when it is closed."""
    async with on_nodes(nodes, "default") as stores:
        driver, other = stores.on(stores.here), stores.on(stores.there)
        for name in ("a/removed", "a/replaced"):
            await driver.put(name, b"a" * 200_000)
        async with driver.open("a/removed") as removed, driver.open("a/replaced") as replaced:
            await driver.delete("a/removed")
            await driver.put("a/replaced", b"b")
            assert (await shell(stores, "ls -A a")).count(".nfs") == 2
            assert await keys(driver.list("")) == await keys(other.list("")) == ["a/replaced"]
            assert await other.sweep(0.0) == 0
            assert [await rest(content) for content in (removed, replaced)] == [b"a" * 200_000] * 2
        await asyncio.gather(driver.close(), other.close())

        async def gone() -> bool:
            return (await shell(stores, "ls -A a")).split() == ["replaced"]

        await until(gone, what="the client to let go of what was closed")


async def test_what_is_replaced_while_open_is_never_missed(nodes: Fleet) -> None:
    """Its client takes the name away for a moment; nobody who looks for it there believes that."""
    async with on_nodes(nodes, "default") as stores:
        driver, other = stores.on(stores.here), stores.on(stores.there)
        await driver.put("a/b", b"0")
        replaced = asyncio.Event()

        async def replace_while_open() -> None:
            for number in range(60):
                async with driver.open("a/b"):
                    await driver.put("a/b", b"%d" % (number % 10))
            replaced.set()

        replacing = asyncio.create_task(replace_while_open())
        while not replaced.is_set():
            assert (await other.stat("a/b")).size == len(await read(other, "a/b")) == 1
        await replacing
        await asyncio.gather(driver.close(), other.close())


async def test_the_staging_folder_is_left_clean(nodes: Fleet, spool: Spooler) -> None:
    """Nothing of ours becomes .nfs…: a removed file was closed before, so the client renames nothing."""
    async with on_nodes(nodes, "default") as stores:
        driver = stores.on(stores.here)
        await driver.put("a", b"1")
        before = await renamed(stores)
        assert await driver.create("b", b"2") is True
        assert await driver.create("a", b"2") is False
        async with driver.writer("c") as writer:
            await writer.write(spool(b"1234"), Span(0, 4))
        assert await stores.leftovers() == 0
        assert await renamed(stores) == before
        await driver.close()


async def renamed(stores: NodesHarness) -> list[str]:
    """How often the first machine's client has renamed something on each mount."""
    said = await stores.here.shell("grep RENAME: /proc/self/mountstats")
    return [line.split()[1] for line in said.splitlines()]


async def test_a_writer_of_another_machine_lives(nodes: Fleet, spool: Spooler) -> None:
    """Its lock is seen through the server, whatever its age; when its machine's process is gone, it is swept."""
    async with on_nodes(nodes, "default") as stores:
        driver, other = stores.on(stores.here), stores.on(stores.there)
        async with driver.writer("a") as writer:
            await writer.write(spool(b"1234"), Span(0, 4))
            await shell(stores, f"touch -d '3 days ago' {STAGING}/*")
            assert await other.sweep(86_400.0) == 0
            await writer.commit()
        assert await read(other, "a") == b"1234"
        holding = await stores.here.python(
            "import fcntl, os; fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)\n"
            "fcntl.flock(fd, fcntl.LOCK_EX); result = fd",
            path=f"{stores.root}/{STAGING}/of-a-process-that-dies",
        )
        assert await other.sweep(0.0) == 0
        await stores.here.python("import os; os.close(fd)", fd=holding)
        assert await other.sweep(0.0) == 1
        await asyncio.gather(driver.close(), other.close())


async def test_a_link_whose_reply_was_lost(nodes: Fleet) -> None:
    """EEXIST of a repeated request is success, although the client still remembers one name: the server is asked.

    The other machine makes the link, as the server would have, and the reply says that the name is there.
    """
    async with on_nodes(nodes, "default") as stores:
        driver = stores.on(stores.here)
        await driver.put("a/b", b"1")
        lose = (
            "import errno, os, time\n"
            "def link(source, target):\n"
            "    os.stat(source)\n"
            "    open(root + '/lost', 'w').write(f'{source} {target}')\n"
            "    while not os.path.exists(root + '/made'):\n"
            "        os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY)); time.sleep(0.01)\n"
            "    raise FileExistsError(errno.EEXIST, '-', str(target))\n"
            "things[number]._staging.link = link\n"
        )
        await stores.here.python(lose, root=stores.root, number=await driver.number())
        creating = asyncio.create_task(driver.create("a/lost", b"mine"))
        repeat = (
            "until test -s lost; do sleep 0.05; ls -l . > /mnt/tmp/none; done; ln $(cat lost) && touch made"
        )
        await stores.there.shell(f"cd {stores.root} && {repeat}")
        assert await creating is True
        assert await read(stores.on(stores.there), "a/lost") == b"mine"
        await driver.close()


async def test_folders_that_come_and_go(nodes: Fleet) -> None:
    """A folder that the other machine removed and made anew is another folder: ESTALE is no error of ours."""
    async with on_nodes(nodes, "default") as stores:
        driver, other = stores.on(stores.here), stores.on(stores.there)
        for number in range(20):
            await driver.put("a/b/c", b"%d" % number)
            assert await read(other, "a/b/c") == b"%d" % number
            await other.delete("a/b/c")
            with pytest.raises(NotFound):
                await driver.stat("a/b/c")
            assert await other.create("a/b/c", b"1")
            assert (await driver.stat("a/b/c")).size == 1
        await asyncio.gather(driver.close(), other.close())
