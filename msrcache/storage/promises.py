"""What a store promises, each promise with its proof: the contract's clauses that can be run on an operator's store.

A proof takes a Stage, writes below its prefix only, and returns, or raises Broken, NotPromised, or what the driver
raised. Here are the promises of small objects; those of large ones, of listings and URLs are in `promises_large`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msrcache.oci.ranges import Span
from msrcache.storage.driver import Driver
from msrcache.storage.errors import NotFound, RangeNotSatisfiable
from msrcache.storage.stage import Broken, NotPromised, Stage

SAMPLE: Final = bytes(range(256)) + b"\r\n\n\x1f\x8b\x08\x00" + b"0123456789abcdef" * 64
"""All values, line ends, what looks compressed: whoever converts bytes on their way shows."""

MANY: Final = 20
"""Creates at once; enough for a service that only looks before it writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One promise. `vital`: without it replicas cannot share the store; `at_start`: proved at each start too."""

    name: str
    words: str
    follows: str
    """What follows where it is not kept."""
    prove: Callable[[Stage], Awaitable[None]]
    vital: bool = False
    at_start: bool = False


async def read_after_write(stage: Stage) -> None:
    """Each way of writing, to a key that was missing a moment ago for the one who looks."""
    put, created, committed = (stage.key(f"seen/{way}") for way in ("put", "create", "commit"))
    for key in (put, created, committed):
        await stage.misses(stage.there, key, what="something where nothing was ever written")
    await stage.here.put(put, SAMPLE)
    await stage.shows(stage.there, put, SAMPLE, after="a put")
    if not await stage.here.create(created, SAMPLE):
        raise Broken("create said that something stood there, where nothing was")
    await stage.shows(stage.there, created, SAMPLE, after="a create")
    await stage.write(stage.here, committed, SAMPLE)
    await stage.shows(stage.there, committed, SAMPLE, after="a commit")


async def deletes(stage: Stage) -> None:
    """Gone for everybody, also for who has just read it; nothing else goes."""
    key = stage.key("deleted/object")
    await stage.here.put(key, SAMPLE)
    await stage.read(stage.there, key)
    await stage.here.delete(key)
    await stage.misses(stage.there, key, what="an object after it was deleted")
    await stage.there.delete(key, stage.beside("deleted/never"))
    kept = [stage.key(name) for name in ("deleted/a/b/c", "deleted/a/bc")]
    gone = [stage.key(name) for name in ("deleted/one", "deleted/two")]
    for name in (*kept, *gone):
        await stage.here.put(name, SAMPLE)
    below = [stage.beside("deleted/a/b"), stage.beside("deleted/a")]
    await stage.here.delete(gone[0], *below, stage.beside("deleted/never"), gone[1])
    for name in gone:
        await stage.misses(stage.there, name, what="one of several objects that were deleted at once")
    for name in kept:
        await stage.shows(stage.there, name, SAMPLE, after="deleting what is beside it")


async def replaces(stage: Stage) -> None:
    """The last put stands, and whoever reads meanwhile sees one of the two, whole."""
    key = stage.key("replaced/object")
    for data in (SAMPLE * 4, SAMPLE, b""):
        await stage.here.put(key, data)
        await stage.shows(stage.there, key, data, after="a second put")
    both = [bytes([number]) * 65_536 for number in b"ab"]
    await stage.here.put(key, both[0])

    async def replace_often() -> None:
        for number in range(8):
            await stage.here.put(key, both[number % 2])

    replacing = asyncio.create_task(replace_often())
    reading = [asyncio.create_task(_look_often(stage, key, both, pause, replacing)) for pause in range(4)]
    try:
        await asyncio.gather(replacing, *reading)
    finally:
        for task in (replacing, *reading):
            task.cancel()
        await asyncio.gather(replacing, *reading, return_exceptions=True)


async def _look_often(
    stage: Stage, key: str, whole: Sequence[bytes], pause: int, until: "asyncio.Task[None]"
) -> None:
    """Read again and again, each reader out of step with the others."""
    while not until.done():
        if await stage.read(stage.there, key) not in whole:
            raise Broken("a reader saw an object that was half replaced")
        for _ in range(pause):
            await asyncio.sleep(0)


async def creates(stage: Stage) -> None:
    """Makes what is absent, keeps what is there, and works again after a delete."""
    key, put = stage.key("created/object"), stage.key("created/put")
    if not await stage.here.create(key, b"first"):
        raise Broken("create said that something stood there, where nothing was")
    await stage.shows(stage.there, key, b"first", after="a create")
    await stage.here.put(put, b"first")
    for driver, there in ((stage.there, key), (stage.here, key), (stage.there, put)):
        if await driver.create(there, b"second"):
            raise Broken("create made what was there already")
        await stage.shows(stage.here, there, b"first", after="a create that was refused")
    for _ in range(3):
        await stage.here.delete(key)
        if not await stage.there.create(key, b"again"):
            raise Broken("create said that something stood there, where it had been deleted")
    await stage.shows(stage.here, key, b"again", after="a create")


async def neighbours(stage: Stage) -> None:
    """What empties a place does not hinder who fills it."""

    async def come_and_go(driver: Driver, key: str) -> None:
        if driver is stage.there:
            await driver.delete(key)  # out of step with the others: one deletes while the other creates
        for _ in range(3):
            if not await driver.create(key, b"1"):
                raise Broken("create said that something stood there, where it had been deleted")
            await driver.delete(key)

    drivers = (stage.here, stage.there) * 2
    await asyncio.gather(
        *(come_and_go(driver, stage.key(f"neighbours/a/b/{n}")) for n, driver in enumerate(drivers))
    )


async def creates_once(stage: Stage) -> None:
    """Of many at once exactly one wins, and its content stands."""
    if not stage.here.create_is_exclusive:
        raise NotPromised(f"{stage.here.name} does not claim it")
    for number in range(2):
        key = stage.key(f"exclusive/{number}")
        drivers = (stage.here, stage.there) * (MANY // 2)
        won = await asyncio.gather(*(driver.create(key, b"%d" % n) for n, driver in enumerate(drivers)))
        if sum(won) != 1:
            raise Broken(f"of {MANY} creates at once {sum(won)} were told that they made it")
        await stage.shows(stage.there, key, b"%d" % won.index(True), after=f"{MANY} creates at once")


async def ranges(stage: Stage) -> None:
    """Exactly the bytes asked for; the size comes with them; what lies beyond the end is refused."""
    key, size = stage.key("ranges/object"), 200_000
    data = (SAMPLE * (size // len(SAMPLE) + 1))[:size]
    await stage.here.put(key, data)
    spans = [Span(0, 1), Span(size - 1, size), Span(65_535, 131_073), Span(10, 20), Span(7, 1 << 40)]
    parts = await asyncio.gather(*(stage.read(stage.there, key, span) for span in spans))
    for span, part in zip(spans, parts, strict=True):
        if part != data[span.start : span.stop]:
            raise Broken(f"open of bytes {span.start} to {min(span.stop, size)} gave other bytes")
    async with stage.there.open(key, Span(10, 20)) as content:
        if (content.info.size, content.span) != (size, Span(10, 20)):
            raise Broken(f"open of bytes 10 to 20 of {size} told {content.span} of {content.info.size}")
    await _refuses(stage, key, size)
    empty = stage.key("ranges/empty")
    await stage.here.put(empty, b"")
    await _refuses(stage, empty, 0)


async def _refuses(stage: Stage, key: str, size: int) -> None:
    for start in (size, size + 1):
        try:
            await stage.read(stage.there, key, Span(start, start + 1))
        except RangeNotSatisfiable as refused:
            if refused.size != size:
                raise Broken(f"a range beyond the end told a size of {refused.size}, not {size}") from None
        else:
            raise Broken(f"a range beyond the end of {size} bytes was not refused")


async def survives(stage: Stage) -> None:
    """Who has opened an object reads it to its end, whatever happens to the key."""
    key = stage.key("survives/object")
    data = SAMPLE * 200
    for replaced in (True, False):
        await stage.here.put(key, data)
        async with stage.near.open(key) as content:
            if replaced:
                await stage.here.put(key, bytes(len(data)))
            else:
                await stage.here.delete(key)
            try:
                found = await stage.rest(content)
            except NotFound:
                found = b""
        if found != data:
            happened = "replaced" if replaced else "deleted"
            raise Broken(f"an object that was {happened} while it was read was not read to its end")


async def keys(stage: Stage) -> None:
    """Every character counts, upper and lower case too; what leads to a key is no object."""
    names = [
        "keys/Case",
        "keys/case",
        "keys/.hidden",
        "keys/-dash",
        "keys/under_score..x",
        "keys/" + "n" * 255,
    ]
    for number, name in enumerate(names):
        await stage.here.put(stage.key(name), b"%d" % number)
    for number, name in enumerate(names):
        await stage.shows(stage.there, stage.key(name), b"%d" % number, after="writing a similar key, a put")
    for name in ("keys", "keys/case/below"):
        await stage.misses(
            stage.there, stage.beside(name), what="an object where only others lie below or above"
        )


SMALL: Final = (
    Promise(
        name="read-after-write",
        words="what was written is seen at once, by every replica",
        follows="replicas fetch again what others have stored: use a service or mount options that promise it",
        prove=read_after_write,
        vital=True,
        at_start=True,
    ),
    Promise(
        name="delete",
        words="what was deleted is gone at once, for every replica",
        follows="released leases and removed content are seen for a while; fills wait longer",
        prove=deletes,
        at_start=True,
    ),
    Promise(
        name="create",
        words="create makes what is absent and keeps what is there",
        follows="replicas cannot agree on who fetches: some blobs are fetched more than once",
        prove=creates,
        at_start=True,
    ),
    Promise(
        name="exclusive-create",
        words="of many creates at once exactly one wins",
        follows="creates are not exclusive here: replicas will share fills by home replica",
        prove=creates_once,
        at_start=True,
    ),
    Promise(
        name="neighbours",
        words="removing one object does not hinder writing another beside it",
        follows="a lease is missed now and then: some blobs are fetched more than once",
        prove=neighbours,
    ),
    Promise(
        name="replace",
        words="a put replaces as a whole",
        follows="readers may see half a record or manifest, take it as missing, and ask the upstream",
        prove=replaces,
    ),
    Promise(
        name="ranges",
        words="a range brings exactly its bytes, and the object's size",
        follows="hits would be cut or wrong: this store cannot be used",
        prove=ranges,
        vital=True,
    ),
    Promise(
        name="open",
        words="an object is read to its end, even if it is replaced or deleted meanwhile",
        follows="a pull may be cut when content expires under it; the client asks again",
        prove=survives,
    ),
    Promise(
        name="keys",
        words="every character of a key counts, upper and lower case too",
        follows="objects may hide each other: use a store that tells upper from lower case",
        prove=keys,
        vital=True,
    ),
)
