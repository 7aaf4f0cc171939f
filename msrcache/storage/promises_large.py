"""The promises of large objects, of listings, URLs and clocks. See `promises`."""

import asyncio
from contextlib import suppress
from typing import Final

import aiohttp

from msrcache.oci.ranges import Span
from msrcache.storage.driver import SpoolFile
from msrcache.storage.errors import NotFound
from msrcache.storage.promises import SAMPLE, SMALL, Promise
from msrcache.storage.stage import Broken, NotPromised, Stage, spooled, thirds

YEAR: Final = 365 * 24 * 3600.0

LISTED: Final = 5.0
"""Seconds that a listing may lag."""

SKEW: Final = 60.0
"""Seconds by which clocks may differ; from some minutes on services refuse signatures."""


def _data(size: int, *, mark: bytes = b"") -> bytes:
    return (mark + SAMPLE * (size // len(SAMPLE) + 1))[:size]


async def commits(stage: Stage) -> None:
    """Whatever the size; over what stands there; two at once; nothing but what was given."""
    for size in (0, 1, 65_535, 65_536, 65_537, 300_000):
        key = stage.key(f"committed/{size}")
        await stage.write(stage.here, key, _data(size))
        await stage.shows(stage.there, key, _data(size), after="a commit")
    key = stage.key("committed/twice")
    both = [_data(100_000, mark=b"one"), _data(90_000, mark=b"two")]
    await asyncio.gather(*(stage.write(stage.here, key, data) for data in both))
    if await stage.read(stage.there, key) not in both:
        raise Broken("two writers of one key left an object that is neither's")
    await _grows(stage)


async def _grows(stage: Stage) -> None:
    """A file that holds more than was given, as a spool does while a blob comes in."""
    key, data = stage.key("committed/grows"), _data(150_000)
    async with spooled(data) as file, stage.here.writer(key) as writer:
        for span in thirds(100_000):
            await writer.write(file, span)
        await writer.commit()
    await stage.shows(stage.there, key, data[:100_000], after="a commit")


async def hides(stage: Stage) -> None:
    """Until the commit nothing shows, and what stood there stands."""
    absent, there = stage.key("hidden/absent"), stage.key("hidden/there")
    await stage.here.put(there, b"old")
    async with spooled(SAMPLE) as file:
        async with stage.here.writer(absent) as writer:
            await writer.write(file, Span(0, len(SAMPLE)))
            await stage.misses(stage.there, absent, what="an object before it was committed")
            await writer.commit()
        async with stage.here.writer(there) as writer:
            await writer.write(file, Span(0, len(SAMPLE)))
            await stage.shows(stage.there, there, b"old", after="writing, before the commit, over a put")
            await writer.commit()
    for key in (absent, there):
        await stage.shows(stage.there, key, SAMPLE, after="a commit")


async def takes_back(stage: Stage) -> None:
    """A writer that is left or aborted leaves nothing; an abort after the commit takes nothing away."""
    left, aborted, kept = (stage.key(f"aborted/{name}") for name in ("left", "aborted", "kept"))
    async with spooled(SAMPLE) as file:
        await _leave(stage, left, file)
        async with stage.here.writer(aborted) as writer:
            await writer.write(file, Span(0, len(SAMPLE)))
            await writer.abort()
        async with stage.here.writer(kept) as writer:
            await writer.write(file, Span(0, len(SAMPLE)))
            await writer.commit()
            await writer.abort()
    for key in (left, aborted):
        await stage.misses(stage.there, key, what="an object that was never committed")
    await stage.shows(stage.there, kept, SAMPLE, after="a commit and an abort")


async def _leave(stage: Stage, key: str, file: SpoolFile) -> None:
    async with stage.here.writer(key) as writer:
        await writer.write(file, Span(0, len(SAMPLE)))


async def lists(stage: Stage) -> None:
    """All that lies below, at any depth, by whole segments. It may lag."""
    names = ("listed/a/one", "listed/a/b/two", "listed/a/b/c/three", "listed/ab/four")
    for name in names:
        await stage.here.put(stage.key(name), SAMPLE)
    wanted = sorted(stage.beside(name) for name in names[:3])
    found: list[str] = []
    # Nothing that must be right depends on a listing: it is waited for.
    with suppress(TimeoutError):
        async with asyncio.timeout(LISTED):
            while (found := await _listed(stage, "listed/a")) != wanted:  # noqa: ASYNC110  nobody tells when
                await asyncio.sleep(0.2)
    if found != wanted:
        raise Broken(f"a listing of 3 objects brought {len(found)}, {LISTED:g} s after they were written")
    try:
        if await _listed(stage, "listed/never"):
            raise Broken("a listing where nothing lies brought something")
    except NotFound:
        raise Broken("a listing where nothing lies is refused instead of empty") from None


async def _listed(stage: Stage, name: str) -> list[str]:
    return sorted([key async for key, _ in stage.there.list(stage.beside(name))])


async def presigns(stage: Stage) -> None:
    """A URL that serves a range without any header."""
    key = stage.key("presigned/object")
    await stage.here.put(key, b"0123456789")
    url = await stage.here.presign(key, 60.0)
    if url is None:
        raise NotPromised(f"{stage.here.name} has no URLs: every byte flows through the cache")
    timeout = aiohttp.ClientTimeout(total=stage.ledger.deadline)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers={"Range": "bytes=2-4"}) as answer,
        ):
            status, body = answer.status, await answer.content.read(100)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Broken(f"the URL could not be read: {type(error).__name__}") from error
    if (status, body) != (206, b"234"):
        raise Broken(f"the URL answered {status} with {len(body)} bytes, not 206 with the 3 of the range")


async def sweeps(stage: Stage) -> None:
    """What dead writers left can be found. Only what is older than a year is removed here."""
    await stage.here.sweep(YEAR)


async def clocks(stage: Stage) -> None:
    """The time stamp of an object that was written just now, beside this machine's clock."""
    key = stage.key("clock/object")
    before = stage.clock.time()
    await stage.here.put(key, b"")
    after = stage.clock.time()
    stamp = (await stage.here.stat(key)).modified
    if abs(stamp - before) > 10 * YEAR:
        raise NotPromised(f"{stage.here.name} has no clock")
    # Stamps of whole seconds are rounded down.
    skew = min(0.0, stamp + 1 - before) if stamp < before else max(0.0, stamp - after)
    if abs(skew) > SKEW:
        ahead = "ahead of" if skew > 0 else "behind"
        raise Broken(f"the store's clock is {abs(skew):.0f} s {ahead} this machine's")


LARGE: Final = (
    Promise(
        name="commit",
        words="a large object is published whole by its commit",
        follows="blobs would be stored wrong: this store cannot be used",
        prove=commits,
        vital=True,
    ),
    Promise(
        name="hidden",
        words="nothing of a large object is seen before its commit",
        follows="other replicas may find half a blob: this store cannot be used",
        prove=hides,
        vital=True,
    ),
    Promise(
        name="abort",
        words="a large object that is given up leaves nothing that is seen",
        follows="half blobs may be found: this store cannot be used",
        prove=takes_back,
        vital=True,
    ),
    Promise(
        name="list",
        words="a listing brings all that lies below, after a while",
        follows="unused content is not found to be removed, and the catalogue is short",
        prove=lists,
    ),
    Promise(
        name="presign",
        words="a presigned URL serves ranges without credentials",
        follows="redirected pulls would fail: set storage.redirect.disable, or correct the endpoint",
        prove=presigns,
    ),
    Promise(
        name="sweep",
        words="what dead writers left can be found and removed",
        follows="unfinished uploads stay and cost space: allow it, or let the service remove them after days",
        prove=sweeps,
    ),
    Promise(
        name="clock",
        words="the store's clock and this machine's agree",
        follows="services refuse signatures from some minutes on: run NTP on both",
        prove=clocks,
    ),
)

PROMISES: Final = (*SMALL, *LARGE)
"""All, in the order in which they are proved."""
