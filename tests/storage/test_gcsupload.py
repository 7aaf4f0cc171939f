"""Uploads to Google Cloud Storage: whose success a commit is, and where an upload that broke goes on."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from msrcache.oci.ranges import Span
from msrcache.storage.driver import SpoolFile
from msrcache.storage.errors import NotFound, Unavailable
from msrcache.storage.gcs import Gcs
from msrcache.storage.gcsparameters import ALIGNED
from tests.contract.harness import Spooler, keys, pattern, read, write
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


async def generation(driver: Gcs, key: str = KEY) -> str | None:
    """Which object stands there."""
    return (await driver.stat(key)).etag


@pytest.mark.parametrize("theirs", [0, 9], ids=["the-same", "another"])
async def test_whoever_was_faster_is_found_at_the_end(
    service: RunningGcs, driver: Gcs, spool: Spooler, theirs: int
) -> None:
    """Something came to stand there while the upload was under way: the same bytes stay, others are replaced."""
    data = pattern(2 * PART + 1)
    file = spool(data)
    async with driver.writer(KEY) as writer:
        await writer.write(file, Span(0, len(data)))
        while not service.front.open_sessions:
            await asyncio.sleep(0)
        await driver.put(KEY, pattern(len(data), seed=theirs))
        stood = await generation(driver)
        info = await writer.commit()
    assert await read(driver, KEY) == data
    assert (info.etag == stood) == (theirs == 0)
    assert await generation(driver) == info.etag
    assert service.front.open_sessions == []


@pytest.mark.parametrize("size", [1000, 2 * PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_finds_the_success_of_somebody_else(
    service: RunningGcs, driver: Gcs, spool: Spooler, size: int
) -> None:
    """Two fills of one blob: the second's commit succeeds, the first's object stands, and no upload is left."""
    first = await write(driver, KEY, spool(pattern(size)))
    again = await write(driver, KEY, spool(pattern(size)))
    assert (again.size, again.etag, again.checksum) == (size, first.etag, first.checksum)
    assert await generation(driver) == first.etag
    assert service.front.open_sessions == []


@pytest.mark.parametrize("size", [1000, 2 * PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_replaces_what_is_not_the_blob(
    service: RunningGcs, driver: Gcs, spool: Spooler, size: int
) -> None:
    """A truncated object, and one whose bytes are others, do not keep a blob out for ever."""
    for wrong in (b"short", pattern(size, seed=9)):
        await driver.put(KEY, wrong)
        committed = await write(driver, KEY, spool(pattern(size)))
        assert await read(driver, KEY) == pattern(size)
        assert committed.checksum == (await driver.stat(KEY)).checksum
    assert service.front.open_sessions == []


async def test_a_piece_that_breaks_goes_on_where_the_service_stands(
    service: RunningGcs, far: Gcs, driver: Gcs, network: Toxic, spool: Spooler
) -> None:
    """The connection is cut within a piece: the service is asked how far it came, and the rest is sent."""
    data = pattern(7 * PART + 1)
    file = spool(data)
    async with far.writer(KEY) as writer:
        await network.add("limit_data", {"bytes": PART // 2}, upstream=True)
        writing = asyncio.create_task(writer.write(file, Span(0, len(data))))
        while f"ask {KEY}" not in service.front.ledger:
            await asyncio.sleep(0.01)
        await network.remove("limit_data")
        await writing
        await writer.commit()
    assert await read(driver, KEY) == data
    starts = [
        int(line.split()[2].partition("-")[0]) for line in service.front.ledger if line.startswith("piece")
    ]
    assert any(start % PART for start in starts), "no piece went on within another"
    assert service.front.open_sessions == []


async def test_a_network_that_goes_leaves_nothing_that_is_seen(
    service: RunningGcs, driver: Gcs, far: Gcs, network: Toxic, spool: Spooler
) -> None:
    """The commit fails, nothing is visible, and what could not be cancelled the service drops by itself."""
    file = spool(pattern(3 * PART))
    with pytest.raises(Unavailable):
        await commit_without_network(far, file, network, service)
    with pytest.raises(NotFound):
        await driver.stat(KEY)
    assert await keys(driver.list("")) == []
    assert service.front.open_sessions == [KEY]


async def commit_without_network(far: Gcs, file: SpoolFile, network: Toxic, service: RunningGcs) -> None:
    """The network goes down once an upload is open."""
    async with far.writer(KEY) as writer:
        await writer.write(file, Span(0, 3 * PART))
        while not service.front.open_sessions:
            await asyncio.sleep(0.01)
        await network.enable(up=False)
        await writer.commit()


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (1000, "write"),
        (PART + 1000, f"piece {KEY} {PART}-"),
        (3 * PART, f"piece {KEY} */"),
        (3 * PART, "begin"),
    ],
    ids=["in-one", "last-piece", "end", "beginning"],
)
async def test_a_lost_reply_is_settled(
    service: RunningGcs, driver: Gcs, spool: Spooler, size: int, line: str
) -> None:
    """The service has done it and its answer never came: the commit finds its own success."""
    lost: list[str] = []

    def lose(said: str) -> bool:
        if said.startswith(line) and not lost:
            lost.append(said)
            return True
        return False

    service.front.lost = lose
    info = await write(driver, KEY, spool(pattern(size)))
    assert (info.size, len(lost)) == (size, 1)
    assert await read(driver, KEY) == pattern(size)
    assert await generation(driver) == info.etag


async def test_an_upload_that_was_forgotten_is_begun_anew(
    service: RunningGcs, driver: Gcs, spool: Spooler
) -> None:
    """The service knows the upload no more: the bytes that it had go out once more, from the spool file."""
    data = pattern(7 * PART + 1)
    file = spool(data)
    async with driver.writer(KEY) as writer:
        await writer.write(file, Span(0, 4 * PART))
        while not service.front.open_sessions:
            await asyncio.sleep(0)
        for session in service.front.sessions.values():
            session.ended = 410
        await writer.write(file, Span(4 * PART, len(data)))
        await writer.commit()
    assert await read(driver, KEY) == data
    assert [line for line in service.front.ledger if line.startswith("begin")] == [f"begin {KEY}"] * 2


async def test_an_upload_goes_to_the_endpoint_that_is_configured(
    service: RunningGcs, driver: Gcs, spool: Spooler
) -> None:
    """Whatever host the service names for it, as one behind a private endpoint does: no other is shown a token."""

    def turn(line: str) -> web.Response | None:
        if line != f"begin {KEY}" or service.front.ledger.count(line) > 1:
            return None
        where = (
            f"https://elsewhere.invalid/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&upload_id=theirs"
        )
        return web.Response(headers={"Location": where})

    service.front.turn = turn
    data = pattern(PART + 1)
    await write(driver, KEY, spool(data))
    assert await read(driver, KEY) == data
    assert service.front.ledger.count(f"begin {KEY}") == 2  # the service that was asked knows no such upload


async def test_bytes_that_were_spoiled_are_not_published(
    service: RunningGcs, driver: Gcs, spool: Spooler
) -> None:
    """The service's checksum is not ours: it publishes nothing, and all bytes are sent once more."""
    data = pattern(2 * PART)
    file = spool(data)
    async with driver.writer(KEY) as writer:
        await writer.write(file, Span(0, len(data)))
        while not any(session.received for session in service.front.sessions.values()):
            await asyncio.sleep(0)
        for session in service.front.sessions.values():
            session.crc32c ^= 1
        info = await writer.commit()
    assert await read(driver, KEY) == data
    assert info.checksum == (await driver.stat(KEY)).checksum


async def test_what_was_published_wrong_is_withdrawn(
    service: RunningGcs, driver: Gcs, spool: Spooler
) -> None:
    """A service that does not check, and stands for other bytes than were sent: they go, and all are sent once more."""
    data = pattern(PART + 1)
    told: list[str] = []

    def turn(line: str) -> web.Response | None:
        if line != f"piece {KEY} {PART}-{PART}/{PART + 1}" or told:
            return None
        told.append(line)
        wrong = {
            "size": str(len(data)),
            "generation": "7",
            "updated": "2026-11-24T20:00:00Z",
            "crc32c": "AAAAAA==",
        }
        return web.json_response(wrong)

    service.front.turn = turn
    info = await write(driver, KEY, spool(data))
    assert f"delete {KEY}" in service.front.ledger
    assert await read(driver, KEY) == data
    assert info.checksum == (await driver.stat(KEY)).checksum


async def test_an_upload_that_makes_no_way_is_given_up(
    service: RunningGcs, driver: Gcs, spool: Spooler
) -> None:
    """A service that answers each piece without taking a byte is not asked for ever."""

    def turn(line: str) -> web.Response | None:
        return web.Response(status=308) if line.startswith(("piece", "ask")) else None

    service.front.turn = turn
    with pytest.raises(Unavailable, match="took no more bytes of the upload than 0"):
        await write(driver, KEY, spool(pattern(PART + 1)))
    assert len([line for line in service.front.ledger if line.startswith("piece")]) <= 4
    assert service.front.open_sessions == []


async def test_cancelled_anywhere_no_upload_is_left(service: RunningGcs, driver: Gcs, spool: Spooler) -> None:
    """Whichever request the cancellation meets, the upload is cancelled too; only one whose beginning was not answered
    yet is the service's to drop.
    """
    file = spool(pattern(3 * PART + 1))
    for count in range(1, 6):
        service.front.ledger.clear()
        writing = asyncio.create_task(_written(driver, file))
        while len([line for line in service.front.ledger if line != "token"]) < count and not writing.done():
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        while driver._uploads._tidying:
            await asyncio.sleep(0)
        assert service.front.open_sessions == [], service.front.ledger
        await driver.delete(KEY)


async def _written(driver: Gcs, file: SpoolFile) -> None:
    async with driver.writer(KEY) as writer:
        await writer.write(file, Span(0, 3 * PART + 1))
        await writer.commit()


def test_pieces_grow_to_a_bound() -> None:
    """Each is a multiple of 256 KiB, the first as configured, none more than eight times as large."""
    from msrcache.storage.gcs import make

    plan = make({"bucket": "cache", "endpoint": "http://127.0.0.1:1", "chunksize": 3 * ALIGNED})._plan
    sizes = [plan.size_of(number) // ALIGNED for number in (1, 2, 3, 4, 5, 10_000)]
    assert sizes == [3, 6, 12, 24, 24, 24]
