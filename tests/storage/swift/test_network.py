"""A bad network between the driver and the service: nothing is lost, mixed, or half written."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.driver import SpoolFile
from msrcache.storage.errors import (
    NotFound,
    StorageError,
    Unavailable,
)
from msrcache.storage.swift import Swift
from msrcache.storage.swiftparameters import MIB
from tests.contract.harness import Spooler, pattern, read, rest, write
from tests.stage.swiftservices import RunningSwift
from tests.stage.toxics import Toxic
from tests.storage.swift.ledger import KEY, PART, Ledger, segments

pytestmark = pytest.mark.real


async def test_a_body_that_breaks_goes_on(
    swift_service: RunningSwift, container: str, driver: Swift, far: Swift, network: Toxic, spool: Spooler
) -> None:
    """The connection is cut again and again within the body: the reader gets every byte once."""
    data = pattern(3 * MIB)
    await driver.put("a/small", data)
    await write(driver, KEY, spool(data))
    await far.stat(KEY)
    ledger = Ledger(swift_service, container)
    await network.add("limit_data", {"bytes": MIB + 1000})
    for key in ("a/small", KEY):
        assert await read(far, key) == data
        asked = ledger.new()
        assert len(asked) > 1
        assert set(asked) == {f"GET {key}"}


@pytest.mark.parametrize("back", [True, False], ids=["back", "gone"])
async def test_a_body_waits_for_a_service_that_restarts(
    driver: Swift,
    far: Swift,
    network: Toxic,
    monkeypatch: pytest.MonkeyPatch,
    back: bool,  # noqa: FBT001
) -> None:
    """Connections are refused while it is away: it is asked again after a while, and the body goes on; one that stays
    away ends the body with an error.
    """
    monkeypatch.setattr("msrcache.storage.swift.RESUMES", (0.0,) * 4)
    data, get, tries = pattern(3 * MIB), far.container.get, 0

    @asynccontextmanager
    async def counted(key: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        nonlocal tries
        tries += 1
        if back and tries == 4:
            await network.enable(up=True)
        async with get(key, headers) as response:
            yield response

    monkeypatch.setattr(far.container, "get", counted)
    await driver.put(KEY, data)
    await far.stat(KEY)
    await network.add("limit_data", {"bytes": MIB})
    async with far.open(KEY) as content:
        await network.enable(up=False)
        await network.remove("limit_data")
        if back:
            assert await rest(content) == data
        else:
            with pytest.raises(Unavailable, match="the body broke at byte"):
                await rest(content)
    assert tries == (4 if back else 5)


async def test_a_body_is_never_mixed(driver: Swift, far: Swift, network: Toxic) -> None:
    """When the connection breaks after the object was replaced, the reader gets an error, never bytes of both."""
    await driver.put(KEY, b"a" * (3 * MIB))
    await far.stat(KEY)
    await network.add("limit_data", {"bytes": MIB})
    async with far.open(KEY) as content:
        await driver.put(KEY, b"b" * (3 * MIB))
        with pytest.raises(StorageError, match="another object"):
            await rest(content)


async def test_a_service_that_is_down_is_unavailable(driver: Swift, far: Swift, network: Toxic) -> None:
    """Each call says so in words, and works again without another driver."""
    await driver.put(KEY, b"1")
    await far.stat(KEY)
    await network.enable(up=False)
    for call in (
        far.stat(KEY),
        far.put("a/1", b"1"),
        far.create("a/2", b"1"),
        far.delete(KEY),
        read(far, KEY),
    ):
        with pytest.raises(Unavailable, match="does not answer"):
            await call
    await network.enable(up=True)
    assert await read(far, KEY) == b"1"


async def test_slow_is_not_broken(far: Swift, network: Toxic, spool: Spooler) -> None:
    """Latency costs time, nothing else."""
    await network.add("latency", {"latency": 30, "jitter": 10})
    data = pattern(2 * PART + 5)
    info = await write(far, KEY, spool(data), spans=3)
    assert info.size == len(data)
    assert await read(far, KEY, Span(PART - 3, PART + 3)) == data[PART - 3 : PART + 3]


async def test_parts_that_break_are_sent_again(
    swift_service: RunningSwift, container: str, far: Swift, driver: Swift, network: Toxic, spool: Spooler
) -> None:
    """Connections cut while segments go out cost those once more; the object is whole, and nothing left beside it."""
    data = pattern(6 * PART)
    file = spool(data)
    async with far.writer(KEY) as writer:
        await network.add("limit_data", {"bytes": PART + PART // 2}, upstream=True)
        await writer.write(file, Span(0, 6 * PART))
        while len(await segments(swift_service, container)) < 2:
            await asyncio.sleep(0.01)
        await network.remove("limit_data")
        await writer.commit()
    assert await read(driver, KEY) == data
    assert len(await segments(swift_service, container)) == 6


async def test_a_network_that_goes_leaves_only_segments(
    swift_service: RunningSwift, container: str, driver: Swift, far: Swift, network: Toxic, spool: Spooler
) -> None:
    """The commit fails, nothing is visible, and what could not be removed is the sweep's."""
    file = spool(pattern(3 * PART))
    with pytest.raises(Unavailable):
        await commit_without_network(far, file, network, swift_service, container)
    with pytest.raises(NotFound):
        await driver.stat(KEY)
    assert await segments(swift_service, container)
    assert await driver.sweep(0.0) == 1
    assert await swift_service.names(container) == []


async def commit_without_network(
    far: Swift, file: SpoolFile, network: Toxic, service: RunningSwift, container: str
) -> None:
    """The network goes down once a segment stands."""
    async with far.writer(KEY) as writer:
        await writer.write(file, Span(0, 3 * PART))
        while not await segments(service, container):
            await asyncio.sleep(0.01)
        await network.enable(up=False)
        await writer.commit()
