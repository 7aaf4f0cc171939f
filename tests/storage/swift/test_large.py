"""Large objects: static ones as the driver makes them, dynamic ones as Docker Registry does, and what is left over."""

import asyncio
import json

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.errors import (
    NotFound,
    RangeNotSatisfiable,
    StorageError,
    Unavailable,
)
from msrcache.storage.swift import Swift
from tests.contract.harness import Spooler, keys, pattern, read, write
from tests.stage.swiftservices import RunningSwift
from tests.storage.swift.ledger import KEY, PART, Ledger, segments

pytestmark = pytest.mark.real


async def test_a_blob_of_one_part_is_one_request(
    swift_service: RunningSwift, container: str, driver: Swift, spool: Spooler
) -> None:
    """And of three parts four: each segment, then the manifest. Nothing is begun, nothing ended."""
    ledger = Ledger(swift_service, container)
    await write(driver, "a/one", spool(pattern(PART)), spans=3)
    assert ledger.new() == ["PUT a/one"]
    await write(driver, "a/three", spool(pattern(2 * PART + 1)), spans=7)
    assert ledger.new() == ["PUT segment"] * 3 + ["PUT a/three?multipart-manifest=put"]


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_the_checksum_is_the_services(driver: Swift, spool: Spooler, size: int) -> None:
    """What the commit tells, a stat from elsewhere tells too; other bytes of the same size have another."""
    twin = driver.twin()
    committed = await write(driver, KEY, spool(pattern(size)))
    other = await write(driver, "a/other", spool(pattern(size, seed=1)))
    assert committed.checksum is not None
    assert (await twin.stat(KEY)).checksum == committed.checksum != other.checksum
    await twin.close()


async def test_a_large_object_is_one(
    swift_service: RunningSwift, container: str, driver: Swift, spool: Spooler
) -> None:
    """Size in stat, open and list is the whole's; a span may cross segments; it goes with all that it is made of."""
    data = pattern(2 * PART + 5)
    await write(driver, KEY, spool(data))
    assert (await driver.stat(KEY)).size == len(data)
    assert {key: info.size async for key, info in driver.list("")} == {KEY: len(data)}
    assert await read(driver, KEY) == data
    assert await read(driver, KEY, Span(PART - 3, 2 * PART + 3)) == data[PART - 3 : 2 * PART + 3]
    with pytest.raises(RangeNotSatisfiable) as refused:
        await read(driver, KEY, Span(len(data), len(data) + 1))
    assert refused.value.size == len(data)
    assert len(await segments(swift_service, container)) == 3
    await driver.delete(KEY)
    assert await swift_service.names(container) == []


async def test_a_large_object_goes_manifest_first(
    swift_service: RunningSwift, container: str, driver: Swift, spool: Spooler
) -> None:
    """Whatever ends a delete in the middle, nobody finds an object whose segments are gone."""
    await write(driver, KEY, spool(pattern(2 * PART)))
    ledger = Ledger(swift_service, container)
    await driver.delete(KEY)
    assert ledger.new() == [
        f"HEAD {KEY}",
        f"GET {KEY}?multipart-manifest=get",
        f"DELETE {KEY}",
        "GET /info",
        "POST ?bulk-delete=true",
    ]


async def test_a_dynamic_large_object_is_read_as_it_is(
    swift_service: RunningSwift, container: str, driver: Swift
) -> None:
    """As Docker Registry 2.8 writes them: size, listing and spans are the whole's; its segments go with it."""
    data, below = pattern(250_000), "segments/abc/def"
    for number in range(1, 4):
        part = data[(number - 1) * 100_000 : number * 100_000]
        await swift_service.ask("PUT", f"/{container}/{below}/{number:016d}", data=part)
    await swift_service.ask("PUT", f"/{container}/segments/abd/other/{1:016d}", data=b"another's")
    manifest = {"X-Object-Manifest": f"{container}/{below}"}
    await swift_service.ask("PUT", f"/{container}/files/{KEY}", headers=manifest, data=b"")
    info = await driver.stat(KEY)
    assert (info.size, info.checksum) == (250_000, None)
    assert {key: found.size async for key, found in driver.list("")} == {KEY: 250_000}
    assert await read(driver, KEY) == data
    assert await read(driver, KEY, Span(99_990, 200_010)) == data[99_990:200_010]
    await driver.delete(KEY)
    assert await swift_service.names(container) == [f"segments/abd/other/{1:016d}"]


async def test_a_dynamic_large_object_without_segments_is_not_there(
    swift_service: RunningSwift, container: str, driver: Swift
) -> None:
    """The listing that it depends on lags: empty is not what was written. It can be deleted all the same."""
    manifest = {"X-Object-Manifest": f"{container}/segments/abc/none"}
    await swift_service.ask("PUT", f"/{container}/files/{KEY}", headers=manifest, data=b"")
    with pytest.raises(NotFound, match="none of the segments"):
        await driver.stat(KEY)
    with pytest.raises(NotFound):
        await read(driver, KEY)
    assert await keys(driver.list("")) == []
    await driver.delete(KEY)
    assert await swift_service.names(container) == []


async def test_a_commit_replaces_what_stands_there(
    swift_service: RunningSwift, container: str, driver: Swift, spool: Spooler
) -> None:
    """A truncated object, one of other bytes, one whose segments somebody removed: none keeps a blob out for ever."""
    data = pattern(PART + 1000)
    await driver.put(KEY, b"short")
    await write(driver, KEY, spool(data))
    assert await read(driver, KEY) == data
    for name in await segments(swift_service, container):
        await swift_service.ask("DELETE", f"/{container}/{name}")
    with pytest.raises(StorageError):
        await read(driver, KEY)
    await write(driver, KEY, spool(data))
    assert await read(driver, KEY) == data
    await write(driver, KEY, spool(pattern(1000)))
    assert await read(driver, KEY) == pattern(1000)


async def test_sweep_spares_what_is_used(
    swift_service: RunningSwift, container: str, driver: Swift, spool: Spooler
) -> None:
    """Segments of a published object stay, also where its manifest lost the mark; those of the one before it go, as do
    those of the dead; those of Docker Registry, and of a writer at work, are not touched.
    """
    data = pattern(PART + 1)
    await write(driver, KEY, spool(pattern(PART + 2)))
    before = set(await segments(swift_service, container))
    await write(driver, KEY, spool(data))
    await write(driver, "a/unmarked", spool(data))
    status, _, manifest = await swift_service.ask(
        "GET", f"/{container}/files/a/unmarked?multipart-manifest=get&format=raw"
    )
    assert status == 200
    assert isinstance(json.loads(manifest), list)
    path = f"/{container}/files/a/unmarked?multipart-manifest=put"
    assert (await swift_service.ask("PUT", path, data=manifest))[0] == 201
    theirs = f"segments/abc/def/{1:016d}"
    await swift_service.ask("PUT", f"/{container}/{theirs}", data=b"1")
    used = set(await segments(swift_service, container)) - before
    async with driver.writer("a/living") as writer:
        await writer.write(spool(data), Span(0, len(data)))
        while not [name for name in await segments(swift_service, container) if "a/living" in name]:
            await asyncio.sleep(0.01)
        assert await driver.sweep(3600.0) == 0
        assert await driver.sweep(0.0) == 1
        living = [name for name in await segments(swift_service, container) if "a/living" in name]
        assert living
    assert set(await segments(swift_service, container)) == used
    assert await read(driver, "a/unmarked") == await read(driver, KEY) == data


async def test_a_manifest_whose_reply_was_lost_keeps_its_segments(
    swift_service: RunningSwift, container: str, driver: Swift, spool: Spooler
) -> None:
    """The commit failed as far as the writer knows: what it wrote may stand, so it is not taken apart."""
    ask = driver.container.client.ask

    async def losing(request: object) -> object:
        answer = await ask(request)  # type: ignore[arg-type]
        if "manifest" in getattr(request, "operation", ""):
            raise Unavailable("swift", KEY, None, "the reply is lost")
        return answer

    driver.container.client.ask = losing  # type: ignore[method-assign,assignment]
    data = pattern(PART + 1)
    with pytest.raises(Unavailable):
        await write(driver, KEY, spool(data))
    driver.container.client.ask = ask  # type: ignore[method-assign]
    assert await read(driver, KEY) == data
    assert await driver.sweep(0.0) == 0
    assert await read(driver, KEY) == data


async def test_a_commit_that_is_cancelled_takes_nothing_apart(driver: Swift, spool: Spooler) -> None:
    """The manifest may stand already when nobody waits for its reply any more."""
    ask, stands = driver.container.client.ask, asyncio.Event()

    async def hanging(request: object) -> object:
        answer = await ask(request)  # type: ignore[arg-type]
        if "manifest" in getattr(request, "operation", ""):
            stands.set()
            await asyncio.Event().wait()
        return answer

    driver.container.client.ask = hanging  # type: ignore[method-assign,assignment]
    data = pattern(PART + 1)
    writing = asyncio.create_task(write(driver, KEY, spool(data)))
    await asyncio.wait_for(stands.wait(), 30)
    writing.cancel()
    await asyncio.wait({writing})
    assert writing.cancelled()
    driver.container.client.ask = ask  # type: ignore[method-assign]
    assert await read(driver, KEY) == data


async def test_a_service_without_static_large_objects_stores_no_manifest(
    swift_service: RunningSwift, container: str, driver: Swift, spool: Spooler
) -> None:
    """It would take the manifest for the content: the checksum that goes with it is another's, so it refuses."""
    ask = driver.container.client.ask

    async def unknowing(request: object) -> object:
        if "manifest" in getattr(request, "operation", ""):
            object.__setattr__(request, "query", {})  # as if the service knew no such parameter
        return await ask(request)  # type: ignore[arg-type]

    driver.container.client.ask = unknowing  # type: ignore[method-assign,assignment]
    with pytest.raises(StorageError, match="did not arrive as it was"):
        await write(driver, KEY, spool(pattern(PART + 1)))
    assert await swift_service.names(container) == []
