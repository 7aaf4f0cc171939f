"""The S3 driver on versitygw: how many requests it makes, whose success a commit is, and what a bad network does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.calls import Deadlines
from msrcache.storage.driver import Content, ObjectInfo, SpoolFile
from msrcache.storage.errors import NotFound, RangeNotSatisfiable, StorageError, Unavailable
from msrcache.storage.s3 import S3
from msrcache.storage.s3client import AHEAD
from msrcache.storage.s3parameters import MIB
from msrcache.storage.store import Store, StoreSettings
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics
from tests.contract.harness import Spooler, keys, pattern, read, rest, write
from tests.stage.s3services import RunningS3, versitygw
from tests.stage.toxics import Toxic, toxic

BUCKET = "driver"
KEY = "docker/registry/v2/blobs/sha256/ab/abcd/data"
PART = 5 * MIB

pytestmark = pytest.mark.real


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningS3]:
    """versitygw with an empty bucket."""
    async with versitygw(tmp_path / "s3") as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture
async def driver(service: RunningS3) -> AsyncIterator[S3]:
    """On that bucket."""
    made = service.driver(BUCKET, chunksize=PART)
    yield made
    await made.close()


@pytest.fixture
async def network(service: RunningS3, tmp_path: Path) -> AsyncIterator[Toxic]:
    """What lies between the service and a driver that is far."""
    async with toxic(tmp_path / "toxics", service.port) as proxy:
        yield proxy


@pytest.fixture
async def far(service: RunningS3, network: Toxic) -> AsyncIterator[S3]:
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


class Ledger:
    """The requests that a service was asked since."""

    def __init__(self, service: RunningS3) -> None:
        self._service = service
        self._seen = len(service.requests(BUCKET))

    def new(self) -> list[str]:
        """Those since the last look."""
        asked = self._service.requests(BUCKET)
        new, self._seen = asked[self._seen :], len(asked)
        return new


async def test_each_call_is_one_request(service: RunningS3, driver: S3) -> None:
    """stat, put, create made or lost, open of all and of a span, delete of one and of many, list, presign: exactly."""
    ledger = Ledger(service)
    await driver.put("a/1", b"12345")
    assert ledger.new() == ["PUT a/1"]
    assert await driver.create("a/2", b"2")
    assert not await driver.create("a/2", b"3")
    assert ledger.new() == ["PUT a/2"] * 2
    await driver.stat("a/1")
    assert ledger.new() == ["HEAD a/1"]
    await read(driver, "a/1")
    await read(driver, "a/1", Span(1, 99))
    assert ledger.new() == ["GET a/1"] * 2
    with pytest.raises(RangeNotSatisfiable):
        await read(driver, "a/1", Span(5, 6))
    assert ledger.new() == ["GET a/1"]
    assert await keys(driver.list("a")) == ["a/1", "a/2"]
    assert ledger.new() == ["GET"]
    assert await driver.presign("a/1", 60)
    assert ledger.new() == []
    await driver.delete("a/1")
    assert ledger.new() == ["DELETE a/1"]
    await driver.delete("a/1", "a/2", "a/3")
    assert ledger.new() == ["POST"]
    await driver.delete(*(f"a/{number}" for number in range(1001)))
    assert ledger.new() == ["POST"] * 2
    with pytest.raises(NotFound):
        await driver.stat("a/1")
    assert ledger.new() == ["HEAD a/1"]


async def test_a_blob_of_one_part_is_one_request(service: RunningS3, driver: S3, spool: Spooler) -> None:
    """And of three parts five: begin, each part, complete."""
    ledger = Ledger(service)
    await write(driver, "a/one", spool(pattern(PART)), spans=3)
    assert ledger.new() == ["PUT a/one"]
    await write(driver, "a/three", spool(pattern(2 * PART + 1)), spans=7)
    asked = ledger.new()
    assert (asked[0], sorted(asked[1:-1]), asked[-1]) == ("POST a/three", ["PUT a/three"] * 3, "POST a/three")


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_the_checksum_is_the_services(driver: S3, spool: Spooler, size: int) -> None:
    """What the commit tells, a stat from elsewhere tells too; other bytes of the same size have another."""
    twin = driver.twin()
    committed = await write(driver, KEY, spool(pattern(size)))
    other = await write(driver, "a/other", spool(pattern(size, seed=1)))
    assert committed.checksum is not None
    assert (await twin.stat(KEY)).checksum == committed.checksum != other.checksum
    await twin.close()


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_finds_the_success_of_somebody_else(
    service: RunningS3, driver: S3, spool: Spooler, size: int
) -> None:
    """Two fills of one blob: the second's commit succeeds, the first's object stands, and no upload is left."""
    await write(driver, KEY, spool(pattern(size)))
    first = service.client.head_object(Bucket=BUCKET, Key=KEY)["LastModified"]
    service.client.put_object_tagging(
        Bucket=BUCKET, Key=KEY, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}
    )
    again = await write(driver, KEY, spool(pattern(size)))
    assert again.size == size
    assert service.client.get_object_tagging(Bucket=BUCKET, Key=KEY)["TagSet"] != []  # the same object still
    assert service.client.head_object(Bucket=BUCKET, Key=KEY)["LastModified"] == first
    assert service.uploads(BUCKET) == []


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_replaces_what_is_not_the_blob(
    service: RunningS3, driver: S3, spool: Spooler, size: int
) -> None:
    """A truncated object, and one whose bytes are others, do not keep a blob out for ever."""
    for wrong in (b"short", pattern(size, seed=9)):
        await driver.put(KEY, wrong)
        committed = await write(driver, KEY, spool(pattern(size)))
        assert await read(driver, KEY) == pattern(size)
        assert committed.checksum == (await driver.stat(KEY)).checksum
    assert service.uploads(BUCKET) == []


async def test_sweep_spares_what_still_grows(service: RunningS3, driver: S3, spool: Spooler) -> None:
    """An old upload whose last part is young lives, as does one of this process, and one of a push."""
    begun = service.client.create_multipart_upload(Bucket=BUCKET, Key="a/dead")["UploadId"]
    pushed = service.client.create_multipart_upload(
        Bucket=BUCKET, Key="docker/registry/v2/repositories/a/_uploads/1-2/data"
    )
    assert pushed["UploadId"]
    file = spool(pattern(2 * PART))
    async with driver.writer(KEY) as writer:
        await writer.write(file, Span(0, 2 * PART))
        while KEY not in service.uploads(BUCKET):
            await asyncio.sleep(0.01)
        assert await driver.sweep(0.0) == 1
        await writer.commit()
    assert await read(driver, KEY) == pattern(2 * PART)
    assert service.uploads(BUCKET) == ["docker/registry/v2/repositories/a/_uploads/1-2/data"]
    assert begun


async def test_a_broken_body_goes_on_where_it_broke(
    service: RunningS3, driver: S3, far: S3, network: Toxic
) -> None:
    """The connection is cut within the body: the reader gets every byte once, from as many requests as it takes."""
    data = pattern(3 * MIB)
    await driver.put(KEY, data)
    await far.stat(KEY)
    ledger = Ledger(service)
    await network.add("limit_data", {"bytes": MIB})
    assert await read(far, KEY) == data
    asked = ledger.new()
    assert len(asked) > 1
    assert set(asked) == {f"GET {KEY}"}


async def test_little_is_read_ahead_of_a_slow_reader(driver: S3) -> None:
    """The HTTP client stops reading from the socket at 32 KiB, so that a thousand slow clients need no gigabyte."""
    await driver.put(KEY, pattern(MIB))
    async with driver.bucket.get(KEY) as (_, response):
        assert response.content.get_read_buffer_limits() == (AHEAD, 2 * AHEAD) == (16 << 10, 32 << 10)


async def test_a_body_is_never_mixed(driver: S3, far: S3, network: Toxic) -> None:
    """When the connection breaks after the object was replaced, the reader gets an error, never bytes of both."""
    await driver.put(KEY, b"a" * (3 * MIB))
    await far.stat(KEY)
    await network.add("limit_data", {"bytes": MIB})
    async with far.open(KEY) as content:
        await driver.put(KEY, b"b" * (3 * MIB))
        with pytest.raises(StorageError, match="another object"):
            await rest(content)


async def test_a_service_that_is_down_is_unavailable(driver: S3, far: S3, network: Toxic) -> None:
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


async def test_slow_is_not_broken(far: S3, network: Toxic, spool: Spooler) -> None:
    """Latency costs time, nothing else."""
    await network.add("latency", {"latency": 30, "jitter": 10})
    data = pattern(2 * PART + 5)
    info = await write(far, KEY, spool(data), spans=3)
    assert info.size == len(data)
    assert await read(far, KEY, Span(PART - 3, PART + 3)) == data[PART - 3 : PART + 3]


async def test_parts_that_break_are_sent_again(
    service: RunningS3, far: S3, driver: S3, network: Toxic, spool: Spooler
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
    service: RunningS3, driver: S3, far: S3, network: Toxic, spool: Spooler
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


async def commit_without_network(far: S3, file: SpoolFile, network: Toxic, service: RunningS3) -> None:
    """The network goes down once an upload is open."""
    async with far.writer(KEY) as writer:
        await writer.write(file, Span(0, 3 * PART))
        while not service.uploads(BUCKET):
            await asyncio.sleep(0.01)
        await network.enable(up=False)
        await writer.commit()


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_whose_reply_is_lost_is_settled(
    service: RunningS3, far: S3, network: Toxic, spool: Spooler, size: int
) -> None:
    """The service has done it and its answer never came: the commit finds its own success."""
    lost: list[str] = []
    call = far.bucket.client.call

    async def losing(name: str, key: str, **arguments: object) -> object:
        answer = await call(name, key, **arguments)
        if name in ("PutObject", "CompleteMultipartUpload") and not lost:
            lost.append(name)
            raise Unavailable("s3", key, None, "the reply is lost")
        return answer

    far.bucket.client.call = losing  # type: ignore[method-assign,assignment]
    info: ObjectInfo = await write(far, KEY, spool(pattern(size)))
    assert (info.size, len(lost)) == (size, 1)
    assert await read(far, KEY) == pattern(size)
    assert service.uploads(BUCKET) == []
    assert network.port


@pytest.mark.parametrize("call", ["stat", "open", "put", "write", "read"])
async def test_a_service_that_falls_silent_is_left_in_time(
    driver: S3, far: S3, network: Toxic, spool: Spooler, call: str
) -> None:
    """No answer and no end: the store's deadline ends the call, and the next one works when the network does."""
    await driver.put(KEY, pattern(3 * MIB))
    await far.stat(KEY)
    settings = StoreSettings(deadlines=Deadlines(ask=0.3, change=0.3, stall=0.3, commit=0.3))
    store = Store(far, metrics=Metrics(), clock=SystemClock(), settings=settings)
    calls: dict[str, Callable[[Content], Awaitable[object]]] = {
        "stat": lambda _: store.stat(KEY),
        "open": lambda _: read(store, KEY),
        "put": lambda _: store.put("a/1", b"1"),
        "write": lambda _: write(store, "a/2", spool(pattern(PART + 1))),
        "read": rest,
    }
    async with silenced(network, far) as opened:
        with pytest.raises(Unavailable, match="not done within"):
            await calls[call](opened)
    await network.remove("timeout")
    await network.remove("bandwidth")
    assert await read(far, KEY) == pattern(3 * MIB)


@asynccontextmanager
async def silenced(network: Toxic, far: S3) -> AsyncIterator[Content]:
    """Nothing comes through any more, not even what of an open object is on its way.

    Slow before, else all of it might have come already; and opening it has time, unlike reading it.
    """
    settings = StoreSettings(deadlines=Deadlines(stall=0.3))
    await network.add("bandwidth", {"rate": 100})
    async with Store(far, metrics=Metrics(), clock=SystemClock(), settings=settings).open(KEY) as content:
        await network.add("timeout", {"timeout": 0})
        yield content
