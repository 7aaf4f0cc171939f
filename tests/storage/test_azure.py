"""The Azure driver on Azurite: how many requests it makes, whose success a commit is, and what a bad network does."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.azure import Azure
from msrcache.storage.azureerrors import NotImplementedThere
from msrcache.storage.azureparameters import MIB
from msrcache.storage.calls import Retries
from msrcache.storage.driver import ObjectInfo, SpoolFile
from msrcache.storage.errors import NotFound, RangeNotSatisfiable, StorageError, Unavailable
from tests.contract.harness import Spooler, keys, pattern, read, rest, write
from tests.stage.azureservice import RunningAzure
from tests.stage.toxics import Toxic, toxic

KEY = "docker/registry/v2/blobs/sha256/ab/abcd/data"
PART = MIB

pytestmark = pytest.mark.real


@pytest.fixture
def container(azure_service: RunningAzure) -> str:
    """An empty one."""
    return azure_service.make_container()


@pytest.fixture
async def driver(azure_service: RunningAzure, container: str) -> AsyncIterator[Azure]:
    """On that container."""
    made = azure_service.driver(container, chunksize=PART)
    yield made
    await made.close()


@pytest.fixture
async def network(azure_service: RunningAzure, tmp_path: Path) -> AsyncIterator[Toxic]:
    """What lies between the service and a driver that is far."""
    async with toxic(tmp_path / "toxics", azure_service.port) as proxy:
        yield proxy


@pytest.fixture
async def far(azure_service: RunningAzure, container: str, network: Toxic) -> AsyncIterator[Azure]:
    """A driver behind that network."""
    made = azure_service.driver(container, port=network.port, chunksize=PART)
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
    """The requests that the service was asked about a container since; how it was made is none."""

    def __init__(self, service: RunningAzure, container: str, *, seen: int = 1) -> None:
        self._service = service
        self._container = container
        self._seen = seen

    async def new(self) -> list[str]:
        """Those since the last look."""
        asked = await self._service.requests(self._container)
        new, self._seen = asked[self._seen :], len(asked)
        return new


async def test_each_call_is_one_request(azure_service: RunningAzure, container: str, driver: Azure) -> None:
    """stat, put, create made or lost, open of all and of a span, delete of one and of many, list, presign: exactly.

    One more in all: the first call that reads looks for names with a leading slash.
    """
    ledger = Ledger(azure_service, container)
    await driver.put("docker/1", b"12345")
    await driver.put("docker/1", b"12345" * 20_000)
    assert await ledger.new() == ["PUT docker/1"] * 2
    await driver.stat("docker/1")
    assert await ledger.new() == ["GET comp=list", "HEAD docker/1"]
    await driver.put("docker/1", b"12345")
    assert await driver.create("docker/2", b"2")
    assert not await driver.create("docker/2", b"3")
    assert await ledger.new() == ["PUT docker/1", "PUT docker/2", "PUT docker/2"]
    await read(driver, "docker/1")
    await read(driver, "docker/1", Span(1, 99))
    assert await ledger.new() == ["GET docker/1"] * 2
    with pytest.raises(RangeNotSatisfiable):
        await read(driver, "docker/1", Span(5, 6))
    assert await ledger.new() == ["GET docker/1"]
    assert await keys(driver.list("docker")) == ["docker/1", "docker/2"]
    assert await ledger.new() == ["GET comp=list"]
    assert await driver.presign("docker/1", 60)
    assert await ledger.new() == []
    await driver.delete("docker/1")
    assert await ledger.new() == ["DELETE docker/1"]
    await driver.delete("docker/1", "docker/2", "docker/3")
    assert await ledger.new() == ["POST comp=batch"]
    with pytest.raises(NotFound):
        await driver.stat("docker/1")
    assert await ledger.new() == ["HEAD docker/1"]
    await driver.sweep(0.0)
    assert await ledger.new() == []


async def test_a_blob_of_one_part_is_one_request(
    azure_service: RunningAzure, container: str, driver: Azure, spool: Spooler
) -> None:
    """And of three parts four: each part, the commit."""
    ledger = Ledger(azure_service, container)
    await write(driver, "a/one", spool(pattern(PART)), spans=3)
    assert await ledger.new() == ["PUT a/one"]
    await write(driver, "a/three", spool(pattern(2 * PART + 1)), spans=7)
    assert await ledger.new() == ["PUT a/three comp=block"] * 3 + ["PUT a/three comp=blocklist"]


async def test_many_are_deleted_in_batches(
    azure_service: RunningAzure, container: str, driver: Azure
) -> None:
    """256 to a request; what is not there is none less."""
    names = [f"a/{number}" for number in range(300)]
    await driver.put(names[-1], b"1")
    ledger = Ledger(azure_service, container)
    await ledger.new()
    await driver.delete(*names)
    # The first call that needs it looks for names with a leading slash.
    assert await ledger.new() == ["GET comp=list"] + ["POST comp=batch"] * 2
    assert azure_service.blobs(container) == {}


async def test_only_the_version_that_was_seen_is_removed(
    azure_service: RunningAzure, container: str, driver: Azure
) -> None:
    """In one request; another one that stands there by now stays, and that nothing does is no error."""
    await driver.put(KEY, b"one")
    seen = await driver.stat(KEY)
    await driver.put(KEY, b"other")
    ledger = Ledger(azure_service, container)
    await ledger.new()
    await driver.delete_version(KEY, seen)
    assert await ledger.new() == [f"DELETE {KEY}"]
    now = await driver.stat(KEY)
    assert now.size == 5
    for _ in range(2):
        await driver.delete_version(KEY, now)
        assert azure_service.blobs(container) == {}


async def test_without_batches_blobs_are_deleted_one_by_one(
    azure_service: RunningAzure, container: str, driver: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the service knows none, it is asked for one once."""
    asked: list[str] = []

    async def none(key: str, names: object) -> object:
        asked.append(key)
        raise NotImplementedThere("azure", key, None, f"no batch of {names}")

    monkeypatch.setattr(driver.container.client, "delete_many", none)
    for _ in range(2):
        for name in ("a/1", "a/2", "a/4"):
            await driver.put(name, b"1")
        await driver.delete("a/1", "a/2", "a/3")
        assert azure_service.blobs(container) == {"a/4": 1}
    assert len(asked) == 1


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_the_checksum_is_the_services(driver: Azure, spool: Spooler, size: int) -> None:
    """What the commit tells, a stat from elsewhere tells too; other bytes of the same size have another."""
    twin = driver.twin()
    committed = await write(driver, KEY, spool(pattern(size)))
    other = await write(driver, "a/other", spool(pattern(size, seed=1)))
    assert committed.checksum is not None
    assert (await twin.stat(KEY)).checksum == committed.checksum != other.checksum
    async with twin.open(KEY, Span(1, 5)) as part:
        assert part.info.checksum == committed.checksum  # the blob's, not the range's
    await twin.close()


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_what_is_spoiled_on_its_way_is_not_stored(
    driver: Azure, spool: Spooler, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service compares each body with its MD5, and refuses another."""

    async def another(part: object) -> bytes:
        return bytes(16) if part else b""

    monkeypatch.setattr("msrcache.storage.azureupload.md5_of_part", another)
    monkeypatch.setattr(driver._uploads, "retries", Retries(attempts=1))
    with pytest.raises(StorageError, match="Md5Mismatch"):
        await write(driver, KEY, spool(pattern(size)))
    with pytest.raises(NotFound):
        await driver.stat(KEY)


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_finds_the_success_of_somebody_else(
    azure_service: RunningAzure, container: str, driver: Azure, spool: Spooler, size: int
) -> None:
    """Two fills of one blob: the second's commit succeeds, and the first's object stands."""
    first = await write(driver, KEY, spool(pattern(size)))
    again = await write(driver, KEY, spool(pattern(size)))
    assert (again.size, again.etag) == (size, first.etag)  # the same object still
    assert (await driver.stat(KEY)).etag == first.etag
    assert azure_service.blobs(container) == {KEY: size}


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_replaces_what_is_not_the_blob(driver: Azure, spool: Spooler, size: int) -> None:
    """A truncated object, and one whose bytes are others, do not keep a blob out for ever."""
    for wrong in (b"short", pattern(size, seed=9)):
        await driver.put(KEY, wrong)
        committed = await write(driver, KEY, spool(pattern(size)))
        assert await read(driver, KEY) == pattern(size)
        assert committed.checksum == (await driver.stat(KEY)).checksum


async def test_a_commit_whose_blocks_another_has_dropped(driver: Azure, spool: Spooler) -> None:
    """Azure keeps staged blocks by the blob, and whoever commits drops all others': the loser finds the winner's."""
    data = pattern(2 * PART)
    first, second = spool(data), spool(data)
    async with driver.writer(KEY) as loser:
        await loser.write(first, Span(0, 2 * PART))
        await write(driver, KEY, second)
        info = await loser.commit()
    assert info.size == len(data)
    assert await read(driver, KEY) == data


async def test_a_block_that_is_gone_is_an_error(driver: Azure, spool: Spooler) -> None:
    """Where what stands is not the blob, the commit fails, and what stands is not touched."""
    async with driver.writer(KEY) as loser:
        await loser.write(spool(pattern(2 * PART)), Span(0, 2 * PART))
        while loser._under_way:
            await asyncio.sleep(0.01)
        await write(driver, KEY, spool(pattern(3 * PART, seed=1)))
        await driver.delete(KEY)
        with pytest.raises(StorageError, match="no more"):
            await loser.commit()
    with pytest.raises(NotFound):
        await driver.stat(KEY)


@pytest.mark.parametrize("chunksize", [64 * MIB, 8 * MIB], ids=["in-one", "in-parts"])
async def test_bodies_are_never_whole_in_memory(
    azure_service: RunningAzure, container: str, spool: Spooler, chunksize: int
) -> None:
    """Neither on their way there nor back: the SDK's own upload would hold a part, its download 32 MiB."""
    size = 40 * MIB
    file = spool(pattern(size))
    made = azure_service.driver(container, chunksize=chunksize)
    await made.put("a/first", b"1")
    tracemalloc.start()
    try:
        async with made.writer(KEY) as writer:
            await writer.write(file, Span(0, size))
            await writer.commit()
        got = 0
        async with made.open(KEY) as content:
            async for chunk in content.chunks:
                got += len(chunk)
        assert tracemalloc.get_traced_memory()[1] < 6 * MIB
    finally:
        tracemalloc.stop()
    assert got == size
    await made.close()


async def test_a_broken_body_goes_on_where_it_broke(
    azure_service: RunningAzure, container: str, driver: Azure, far: Azure, network: Toxic
) -> None:
    """The connection is cut within the body: the reader gets every byte once, from as many requests as it takes."""
    data = pattern(3 * MIB)
    await driver.put(KEY, data)
    await far.stat(KEY)
    ledger = Ledger(azure_service, container)
    await ledger.new()
    await network.add("limit_data", {"bytes": MIB})
    assert await read(far, KEY) == data
    asked = await ledger.new()
    assert len(asked) > 1
    assert set(asked) == {f"GET {KEY}"}


async def test_a_body_is_never_mixed(driver: Azure, far: Azure, network: Toxic) -> None:
    """When the connection breaks after the object was replaced, the reader gets an error, never bytes of both."""
    await driver.put(KEY, b"a" * (3 * MIB))
    await far.stat(KEY)
    await network.add("limit_data", {"bytes": MIB})
    async with far.open(KEY) as content:
        await driver.put(KEY, b"b" * (3 * MIB))
        with pytest.raises(StorageError, match="another object"):
            await rest(content)


async def test_a_service_that_is_down_is_unavailable(driver: Azure, far: Azure, network: Toxic) -> None:
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


async def test_slow_is_not_broken(far: Azure, network: Toxic, spool: Spooler) -> None:
    """Latency costs time, nothing else."""
    await network.add("latency", {"latency": 30, "jitter": 10})
    data = pattern(2 * PART + 5)
    info = await write(far, KEY, spool(data), spans=3)
    assert info.size == len(data)
    assert await read(far, KEY, Span(PART - 3, PART + 3)) == data[PART - 3 : PART + 3]


async def test_parts_that_break_are_sent_again(
    azure_service: RunningAzure, container: str, far: Azure, driver: Azure, network: Toxic, spool: Spooler
) -> None:
    """Connections cut while parts go out cost those parts once more; the object is whole."""
    data = pattern(3 * PART)
    file = spool(data)
    async with far.writer(KEY) as writer:
        await network.add("limit_data", {"bytes": 2 * MIB}, upstream=True)
        await writer.write(file, Span(0, 3 * PART))
        while not azure_service.uncommitted(container):
            await asyncio.sleep(0.01)
        await network.remove("limit_data")
        await writer.commit()
    assert await read(driver, KEY) == data


async def test_a_network_that_goes_leaves_only_blocks(
    azure_service: RunningAzure, container: str, driver: Azure, far: Azure, network: Toxic, spool: Spooler
) -> None:
    """The commit fails, nothing is visible, and the service drops its blocks in a week."""
    file = spool(pattern(3 * PART))
    with pytest.raises(Unavailable):
        await commit_without_network(far, file, network, azure_service, container)
    with pytest.raises(NotFound):
        await driver.stat(KEY)
    assert azure_service.uncommitted(container) == [KEY]


async def commit_without_network(
    far: Azure, file: SpoolFile, network: Toxic, azure_service: RunningAzure, container: str
) -> None:
    """The network goes down once a block is there."""
    async with far.writer(KEY) as writer:
        await writer.write(file, Span(0, 3 * PART))
        while not azure_service.uncommitted(container):
            await asyncio.sleep(0.01)
        await network.enable(up=False)
        await writer.commit()


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_whose_reply_is_lost_is_settled(
    far: Azure, network: Toxic, spool: Spooler, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service has done it and its answer never came: the commit finds its own success."""
    lost: list[str] = []
    call = far.container.client.call

    async def losing(operation: str, key: str, *arguments: Any, **more: Any) -> object:
        answer = await call(operation, key, *arguments, **more)
        if operation in ("Put Blob", "Put Block List") and not lost:
            lost.append(operation)
            raise Unavailable("azure", key, None, "the reply is lost")
        return answer

    monkeypatch.setattr(far.container.client, "call", losing)
    info: ObjectInfo = await write(far, KEY, spool(pattern(size)))
    assert (info.size, len(lost)) == (size, 1)
    assert await read(far, KEY) == pattern(size)
    assert network.port
