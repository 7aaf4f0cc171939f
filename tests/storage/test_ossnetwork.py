"""The OSS driver on a bad network before our stand-in: bodies that break, services that fall silent or are away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.calls import Deadlines
from msrcache.storage.driver import SpoolFile
from msrcache.storage.errors import NotFound, StorageError, Unavailable
from msrcache.storage.oss import Oss
from msrcache.storage.ossparameters import MIB, parameters
from msrcache.storage.store import Store, StoreSettings
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics
from tests.contract.harness import Spooler, pattern, read, rest, write
from tests.stage.ossservice import Service, ossservice
from tests.stage.scripted import Hold, Turn, scripted
from tests.stage.toxics import Toxic, toxic

BUCKET = "driver"
KEY = "docker/registry/v2/blobs/sha256/ab/abcd/data"
PART = 5 * MIB
GIVEN = {"bucket": BUCKET, "region": "cn-hangzhou", "accesskeyid": "AK", "accesskeysecret": "SK"}

pytestmark = pytest.mark.real


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """With an empty bucket."""
    async with ossservice() as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture
async def driver(service: Service) -> AsyncIterator[Oss]:
    """On that bucket."""
    made = service.driver(BUCKET, chunksize=PART)
    yield made
    await made.close()


@pytest.fixture
async def network(service: Service, tmp_path: Path) -> AsyncIterator[Toxic]:
    """What lies between the service and a driver that is far."""
    async with toxic(tmp_path / "toxics", service.port) as proxy:
        yield proxy


@pytest.fixture
async def far(service: Service, network: Toxic) -> AsyncIterator[Oss]:
    """A driver behind that network."""
    made = service.driver(BUCKET, port=network.port, chunksize=PART)
    yield made
    await made.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes spool files."""
    folder = tmp_path / "spool"
    folder.mkdir()
    spooler = Spooler(folder)
    yield spooler
    spooler.close()


async def test_a_broken_body_goes_on_where_it_broke(
    service: Service, driver: Oss, far: Oss, network: Toxic
) -> None:
    """The connection is cut within the body: the reader gets every byte once, from as many requests as it takes."""
    data = pattern(3 * MIB)
    await driver.put(KEY, data)
    await far.stat(KEY)
    before = len(service.requests(BUCKET))
    await network.add("limit_data", {"bytes": MIB})
    assert await read(far, KEY) == data
    lines = service.requests(BUCKET)[before:]
    assert len(lines) > 1
    assert set(lines) == {f"GET {KEY}"}


async def test_a_body_is_never_mixed(driver: Oss, far: Oss, network: Toxic) -> None:
    """When the connection breaks after the object was replaced, the reader gets an error, never bytes of both."""
    await driver.put(KEY, b"a" * (3 * MIB))
    await far.stat(KEY)
    await network.add("limit_data", {"bytes": MIB})
    async with far.open(KEY) as content:
        await driver.put(KEY, b"b" * (3 * MIB))
        with pytest.raises(StorageError, match="another object"):
            await rest(content)


async def test_a_service_that_is_down_is_unavailable(driver: Oss, far: Oss, network: Toxic) -> None:
    """Each call says so in words, and works again without another driver."""
    await driver.put(KEY, b"1")
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


async def test_parts_that_break_are_sent_again(
    service: Service, far: Oss, driver: Oss, network: Toxic, spool: Spooler
) -> None:
    """Connections cut while parts go out cost those parts once more; the object is whole, and no upload left."""
    data = pattern(3 * PART)
    file = spool(data)
    async with far.writer(KEY) as writer:
        await network.add("limit_data", {"bytes": 2 * MIB}, upstream=True)
        await writer.write(file, Span(0, 3 * PART))
        while not service.uploads(BUCKET):
            await asyncio.sleep(0.01)
        await network.remove("limit_data")
        await writer.commit()
    assert await read(driver, KEY) == data
    assert service.uploads(BUCKET) == []


async def test_a_network_that_goes_leaves_only_an_upload(
    service: Service, driver: Oss, far: Oss, network: Toxic, spool: Spooler
) -> None:
    """The commit fails, nothing is visible, and what could not be aborted is the sweep's."""
    file = spool(pattern(3 * PART))
    with pytest.raises(Unavailable):
        await commit_without_network(far, file, network, service)
    with pytest.raises(NotFound):
        await driver.stat(KEY)
    assert service.uploads(BUCKET) == [KEY]
    assert await driver.sweep(0.0) == 1
    assert service.uploads(BUCKET) == []


async def commit_without_network(far: Oss, file: SpoolFile, network: Toxic, service: Service) -> None:
    """The network goes down once an upload is open."""
    async with far.writer(KEY) as writer:
        await writer.write(file, Span(0, 3 * PART))
        while not service.uploads(BUCKET):
            await asyncio.sleep(0.01)
        await network.enable(up=False)
        await writer.commit()


@pytest.mark.parametrize("call", ["stat", "open", "put", "write"])
async def test_a_service_that_falls_silent_is_left_in_time(
    driver: Oss, far: Oss, network: Toxic, spool: Spooler, call: str
) -> None:
    """No answer and no end: the store's deadline ends the call, and the next one works when the network does."""
    await driver.put(KEY, b"12345")
    await far.stat(KEY)
    store = impatient(far, Deadlines(ask=0.3, change=0.3, stall=0.3, commit=0.3))
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "stat": lambda: store.stat(KEY),
        "open": lambda: read(store, KEY),
        "put": lambda: store.put("a/1", b"1"),
        "write": lambda: write(store, "a/2", spool(pattern(PART + 1))),
    }
    await network.add("timeout", {"timeout": 0})
    with pytest.raises(Unavailable, match="not done within"):
        await calls[call]()
    await network.remove("timeout")
    assert await read(far, KEY) == b"12345"


async def test_a_body_that_falls_silent_is_left_in_time() -> None:
    """Its first bytes have come, nothing more does: the reader gets an error instead of waiting."""
    hold = Hold(at=1000)
    async with scripted() as server:
        server.always(f"/{BUCKET}/{KEY}", Turn(body=pattern(MIB), hold=hold))
        far = Oss(parameters({**GIVEN, "endpoint": server.url}))
        async with impatient(far, Deadlines(stall=0.3)).open(KEY) as content:
            await hold.reached.wait()
            with pytest.raises(Unavailable, match="not done within"):
                await rest(content)
        hold.go.set()
        await far.close()


def impatient(driver: Oss, deadlines: Deadlines) -> Store:
    """The portable half, with deadlines that a test can wait for."""
    settings = StoreSettings(deadlines=deadlines)
    return Store(driver, metrics=Metrics(), clock=SystemClock(), settings=settings)
