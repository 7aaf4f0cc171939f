"""The Google Cloud Storage driver: how many requests it makes, and what a bad network does to its readers."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.errors import NotFound, RangeNotSatisfiable, StorageError, Unavailable
from msrcache.storage.gcs import Gcs
from tests.contract.harness import Spooler, keys, pattern, read, rest, write
from tests.stage.gcsfront import refusal
from tests.stage.gcsservices import RunningGcs, fakegcs
from tests.stage.toxics import Toxic, toxic

BUCKET = "driver"
KEY = "docker/registry/v2/blobs/sha256/ab/abcd/data"
MIB = 1 << 20
PART = MIB

pytestmark = pytest.mark.real


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningGcs]:
    """The service with an empty bucket."""
    async with fakegcs(tmp_path / "gcs") as running:
        await running.make_bucket(BUCKET)
        yield running


@pytest.fixture
async def driver(service: RunningGcs) -> AsyncIterator[Gcs]:
    """On that bucket."""
    made = service.driver(BUCKET, chunksize=PART)
    yield made
    await made.close()


@pytest.fixture
async def network(service: RunningGcs, tmp_path: Path) -> AsyncIterator[Toxic]:
    """What lies between the service and a driver that is far."""
    async with toxic(tmp_path / "toxics", service.port) as proxy:
        yield proxy


@pytest.fixture
async def far(service: RunningGcs, network: Toxic) -> AsyncIterator[Gcs]:
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


def asked(service: RunningGcs) -> list[str]:
    """The requests since the last look."""
    ledger = service.front.ledger[:]
    service.front.ledger.clear()
    return ledger


async def test_each_call_is_one_request(service: RunningGcs, driver: Gcs) -> None:
    """stat, put, create made or lost, open of all and of a span, delete of one and of many, list, presign: exactly.
    One token serves them all.
    """
    await driver.put("a/1", b"12345")
    assert asked(service) == ["token", "write a/1"]
    assert await driver.create("a/2", b"2")
    assert not await driver.create("a/2", b"3")
    assert asked(service) == ["write a/2"] * 2
    await driver.stat("a/1")
    assert asked(service) == ["stat a/1"]
    await read(driver, "a/1")
    await read(driver, "a/1", Span(1, 99))
    assert asked(service) == ["read a/1"] * 2
    with pytest.raises(RangeNotSatisfiable):
        await read(driver, "a/1", Span(5, 6))
    assert asked(service) == ["read a/1"]
    assert await keys(driver.list("a")) == ["a/1", "a/2"]
    assert asked(service) == ["list a/"]
    assert await driver.presign("a/1", 60)
    assert asked(service) == []
    await driver.delete("a/1")
    assert asked(service) == ["delete a/1"]
    await driver.delete("a/1", "a/2", "a/3")
    assert sorted(asked(service)) == ["delete a/1", "delete a/2", "delete a/3"]
    with pytest.raises(NotFound):
        await driver.stat("a/1")
    assert asked(service) == ["stat a/1"]


async def test_a_blob_of_one_part_is_one_request(service: RunningGcs, driver: Gcs, spool: Spooler) -> None:
    """A larger one is a beginning and its pieces, each larger than the one before: a round trip each."""
    await write(driver, "a/one", spool(pattern(PART)), spans=3)
    assert asked(service) == ["token", "write a/one"]
    await write(driver, "a/more", spool(pattern(8 * PART - 1)), spans=5)
    edges = [(0, 1, "*"), (1, 3, "*"), (3, 7, "*")]
    pieces = [f"piece a/more {start * PART}-{stop * PART - 1}/{total}" for start, stop, total in edges]
    last = f"piece a/more {7 * PART}-{8 * PART - 2}/{8 * PART - 1}"
    assert asked(service) == ["begin a/more", *pieces, last]
    await write(driver, "a/even", spool(pattern(3 * PART)))
    assert asked(service)[-1] == f"piece a/even */{3 * PART}"


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_the_checksum_is_the_services(driver: Gcs, spool: Spooler, size: int) -> None:
    """What the commit tells, a stat and an open from elsewhere tell too; other bytes of the same size have another."""
    twin = driver.twin()
    committed = await write(driver, KEY, spool(pattern(size)))
    other = await write(driver, "a/other", spool(pattern(size, seed=1)))
    assert committed.checksum is not None
    assert (await twin.stat(KEY)).checksum == committed.checksum != other.checksum
    async with twin.open(KEY) as content:
        assert (content.info.checksum, content.info.etag) == (committed.checksum, committed.etag)
    await twin.close()


async def test_a_broken_body_goes_on_where_it_broke(
    service: RunningGcs, driver: Gcs, far: Gcs, network: Toxic
) -> None:
    """The connection is cut within the body: the reader gets every byte once, from as many requests as it takes."""
    data = pattern(3 * MIB)
    await driver.put(KEY, data)
    await far.stat(KEY)
    asked(service)
    await network.add("limit_data", {"bytes": MIB})
    assert await read(far, KEY) == data
    requests = asked(service)
    assert len(requests) > 1
    assert set(requests) == {f"read {KEY}"}


async def test_a_body_is_never_mixed(driver: Gcs, far: Gcs, network: Toxic) -> None:
    """When the connection breaks after the object was replaced, the reader gets an error, never bytes of both."""
    await driver.put(KEY, b"a" * (3 * MIB))
    await far.stat(KEY)
    await network.add("limit_data", {"bytes": MIB})
    async with far.open(KEY) as content:
        await driver.put(KEY, b"b" * (3 * MIB))
        with pytest.raises(StorageError, match="another object"):
            await rest(content)


async def test_a_service_that_is_down_is_unavailable(driver: Gcs, far: Gcs, network: Toxic) -> None:
    """Each call says so in words, and works again without another driver."""
    await driver.put(KEY, b"1")
    await network.enable(up=False)
    for call in (
        far.stat(KEY),
        far.put("a/1", b"1"),
        far.create("a/2", b"1"),
        far.delete(KEY),
        far.delete(KEY, "a/1"),
        read(far, KEY),
        keys(far.list("")),
    ):
        with pytest.raises(Unavailable, match="does not answer"):
            await call
    await network.enable(up=True)
    assert await read(far, KEY) == b"1"


async def test_slow_is_not_broken(far: Gcs, network: Toxic, spool: Spooler) -> None:
    """Latency costs time, nothing else."""
    await network.add("latency", {"latency": 30, "jitter": 10})
    data = pattern(2 * PART + 5)
    info = await write(far, KEY, spool(data), spans=3)
    assert info.size == len(data)
    assert await read(far, KEY, Span(PART - 3, PART + 3)) == data[PART - 3 : PART + 3]


async def test_a_busy_service_is_not_pressed(service: RunningGcs, driver: Gcs) -> None:
    """429 with Retry-After: Unavailable with the seconds, after one request."""
    service.front.turn = lambda line: (
        None if line == "token" else refusal(429, "rateLimitExceeded", "slow down", Retry_After="7")
    )
    with pytest.raises(Unavailable, match="rateLimitExceeded") as busy:
        await read(driver, KEY)
    assert busy.value.retry_after == 7.0
    assert asked(service) == ["token", f"read {KEY}"]


async def test_another_rootdirectory_is_another_store(service: RunningGcs, driver: Gcs) -> None:
    """Keys are below it, listings too; a folder that a console has made is no object."""
    below = service.driver(BUCKET, rootdirectory="/team/cache/")
    await driver.put("a/1", b"1")
    await driver.put("team/cache/", b"")
    await below.put("a/2", b"2")
    assert (await keys(driver.list("")), await keys(below.list(""))) == (["a/1", "team/cache/a/2"], ["a/2"])
    assert await service.objects(BUCKET) == {"a/1": 1, "team/cache/": 0, "team/cache/a/2": 1}
    await below.close()


async def test_only_the_version_that_was_seen_is_removed(driver: Gcs) -> None:
    """Another one that stands there by now stays, and that nothing does is no error."""
    await driver.put("a/b", b"one")
    seen = await driver.stat("a/b")
    await driver.put("a/b", b"other")
    await driver.delete_version("a/b", seen)
    now = await driver.stat("a/b")
    assert now.size == 5
    for _ in range(2):
        await driver.delete_version("a/b", now)
    with pytest.raises(NotFound):
        await driver.stat("a/b")
