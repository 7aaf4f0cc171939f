"""The OSS driver on our stand-in: how many requests it makes, and whose success a commit is."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import NotFound, RangeNotSatisfiable, Unavailable
from msrcache.storage.oss import Oss
from msrcache.storage.ossclient import AHEAD
from msrcache.storage.ossparameters import MIB, parameters
from msrcache.storage.probe import probe
from msrcache.storage.promises_large import PROMISES
from msrcache.storage.watched import Ledger
from msrcache.telemetry.clock import SystemClock
from tests.contract.harness import Spooler, keys, pattern, read, write
from tests.stage.ossservice import Service, ossservice

BUCKET = "driver"
KEY = "docker/registry/v2/blobs/sha256/ab/abcd/data"
PART = 5 * MIB


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
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes spool files."""
    folder = tmp_path / "spool"
    folder.mkdir()
    spooler = Spooler(folder)
    yield spooler
    spooler.close()


class Asked:
    """The requests that a service was asked since."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._seen = len(service.requests(BUCKET))

    def new(self) -> list[str]:
        """Those since the last look."""
        asked = self._service.requests(BUCKET)
        new, self._seen = asked[self._seen :], len(asked)
        return new


async def test_each_call_is_one_request(service: Service, driver: Oss) -> None:
    """stat, put, create made or lost, open of all and of a span, delete of one and of many, list, presign: exactly."""
    asked = Asked(service)
    await driver.put("a/1", b"12345")
    assert asked.new() == ["PUT a/1"]
    assert await driver.create("a/2", b"2")
    assert not await driver.create("a/2", b"3")
    assert asked.new() == ["PUT a/2"] * 2
    await driver.stat("a/1")
    assert asked.new() == ["HEAD a/1"]
    await read(driver, "a/1")
    await read(driver, "a/1", Span(1, 99))
    assert asked.new() == ["GET a/1"] * 2
    with pytest.raises(RangeNotSatisfiable):
        await read(driver, "a/1", Span(5, 6))
    assert asked.new() == ["GET a/1", "HEAD a/1"]  # how large it is, the refusal does not say
    assert await keys(driver.list("a")) == ["a/1", "a/2"]
    assert asked.new() == ["GET"]
    assert await driver.presign("a/1", 60)
    assert asked.new() == []
    await driver.delete("a/1")
    assert asked.new() == ["DELETE a/1"]
    await driver.delete("a/1", "a/2", "a/3")
    assert asked.new() == ["POST delete"]
    await driver.delete(*(f"a/{number}" for number in range(1001)))
    assert asked.new() == ["POST delete"] * 2
    with pytest.raises(NotFound):
        await driver.stat("a/1")
    assert asked.new() == ["HEAD a/1"]


async def test_a_blob_of_one_part_is_one_request(service: Service, driver: Oss, spool: Spooler) -> None:
    """And of three parts five: begin, each part, complete."""
    asked = Asked(service)
    await write(driver, "a/one", spool(pattern(PART)), spans=3)
    assert asked.new() == ["PUT a/one"]
    await write(driver, "a/three", spool(pattern(2 * PART + 1)), spans=7)
    first, *parts, last = asked.new()
    assert (first, last) == ("POST a/three uploads", "POST a/three uploadId")
    assert [sorted(line.split()) for line in parts] == [
        sorted(["PUT", "a/three", "partNumber", "uploadId"])
    ] * 3


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_the_checksum_is_the_services(driver: Oss, spool: Spooler, size: int) -> None:
    """What the commit tells, a stat from elsewhere tells too; other bytes of the same size have another."""
    twin = driver.twin()
    committed = await write(driver, KEY, spool(pattern(size)))
    other = await write(driver, "a/other", spool(pattern(size, seed=1)))
    assert committed.checksum is not None
    assert (await twin.stat(KEY)).checksum == committed.checksum != other.checksum
    await twin.close()


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_finds_the_success_of_somebody_else(
    service: Service, driver: Oss, spool: Spooler, size: int
) -> None:
    """Two fills of one blob: the second's commit succeeds, the first's object stands, and no upload is left."""
    first = await write(driver, KEY, spool(pattern(size)))
    standing = service.buckets[BUCKET].objects[KEY]
    again = await write(driver, KEY, spool(pattern(size)))
    assert (again.size, again.checksum) == (size, first.checksum)
    assert service.buckets[BUCKET].objects[KEY] is standing
    assert service.uploads(BUCKET) == []


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_replaces_what_is_not_the_blob(
    service: Service, driver: Oss, spool: Spooler, size: int
) -> None:
    """A truncated object, and one whose bytes are others, do not keep a blob out for ever."""
    for wrong in (b"short", pattern(size, seed=9)):
        await driver.put(KEY, wrong)
        committed = await write(driver, KEY, spool(pattern(size)))
        assert await read(driver, KEY) == pattern(size)
        assert committed.checksum == (await driver.stat(KEY)).checksum
    assert service.uploads(BUCKET) == []


async def test_bytes_that_are_spoiled_on_their_way_are_refused(
    service: Service, driver: Oss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is put carries its MD5: the service stores nothing else, and says so."""
    monkeypatch.setattr("msrcache.storage.oss.md5_of", lambda data: bytes(16))
    with pytest.raises(Unavailable, match="InvalidDigest"):
        await driver.put(KEY, b"12345")
    assert service.buckets[BUCKET].objects == {}


async def test_sweep_spares_what_still_grows(service: Service, driver: Oss, spool: Spooler) -> None:
    """An old upload whose last part is young lives, as does one of this process, and one of a push; in pages."""
    service.page = 1
    pushed = "docker/registry/v2/repositories/a/_uploads/1-2/data"
    for key in ("a/dead", "a/dead", "b/dead", pushed):
        await driver.bucket.ask("InitiateMultipartUpload", key)
    file = spool(pattern(2 * PART))
    async with driver.writer(KEY) as writer:
        await writer.write(file, Span(0, 2 * PART))
        while KEY not in service.uploads(BUCKET):
            await asyncio.sleep(0.01)
        assert await driver.sweep(3600.0) == 0
        assert await driver.sweep(0.0) == 3
        await writer.commit()
    assert await read(driver, KEY) == pattern(2 * PART)
    assert service.uploads(BUCKET) == [pushed]


async def test_sweep_goes_by_the_last_part(service: Service, driver: Oss) -> None:
    """An upload begun a day ago whose last part came a minute ago lives; by the service's clock, an hour later not."""
    upload = (await driver.bucket.ask("InitiateMultipartUpload", KEY)).upload_id
    service.ahead = 800.0
    for number in (1, 2, 3):
        await driver.bucket.ask("UploadPart", KEY, upload_id=upload, part_number=number, body=b"1")
    service.page = 2
    assert await driver.sweep(600.0) == 0
    service.buckets[BUCKET].uploads[upload].parts.clear()
    assert await driver.sweep(600.0) == 1


async def test_a_bucket_with_versions_is_found_out() -> None:
    """It ignores forbid-overwrite, as OSS says: the proof of exclusive creates does not hold, the rest does."""
    async with ossservice() as service:
        bucket = service.make_bucket(versions=True)
        here, there = service.driver(bucket), service.driver(bucket)
        report = await probe(
            here, there, PROMISES, prefix="msrcache/probe/1", ledger=Ledger(SystemClock(), 30.0)
        )
        broken = {row.promise.name for row in report.rows if row.troubles}
        await here.close()
        await there.close()
    assert broken == {"create", "exclusive-create"}


async def test_a_url_is_good_for_its_object_its_method_and_its_time(service: Service, driver: Oss) -> None:
    """Fetched by anybody: whole, by Range; not by HEAD or PUT, not changed, not another object, not afterwards."""
    await driver.put("a/b c+d", b"12345")
    url = await driver.presign("a/b c+d", 1200.0) or ""
    assert parse_qs(urlsplit(url).query)["x-oss-expires"] == ["1200"]
    async with aiohttp.ClientSession() as http:

        async def status(asked: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
            async with http.request(method, asked, headers=headers) as answer:
                return answer.status, await answer.read()

        assert await status(url) == (200, b"12345")
        assert await status(url, Range="bytes=1-2") == (206, b"23")
        for method in ("HEAD", "PUT", "DELETE"):
            assert (await status(url, method))[0] == 403
        assert (await status(url.replace("x-oss-expires=1200", "x-oss-expires=9999")))[0] == 403
        assert (await status(url.replace("a/b", "a/c")))[0] == 403
        service.ahead = 1199.0
        assert (await status(url))[0] == 200
        service.ahead = 1202.0
        assert (await status(url))[0] == 403


@pytest.mark.parametrize(
    ("more", "endpoint", "place"),
    [
        ({}, "", "https://cache.oss-cn-hangzhou.aliyuncs.com/a/key"),
        ({"internal": True}, "", "https://cache.oss-cn-hangzhou-internal.aliyuncs.com/a/key"),
        (
            {"internal": True},
            "https://oss-cn-hangzhou.aliyuncs.com",
            "https://cache.oss-cn-hangzhou.aliyuncs.com/a/key",
        ),
        ({}, "https://blobs.example.com", "https://blobs.example.com/a/key"),
        ({"endpoint": "http://127.0.0.1:9000"}, "", "http://127.0.0.1:9000/cache/a/key"),
        ({"rootdirectory": "/x/y/"}, "", "https://cache.oss-cn-hangzhou.aliyuncs.com/x/y/a/key"),
    ],
)
async def test_where_a_client_is_sent(more: dict[str, object], endpoint: str, place: str) -> None:
    """To the region, to the endpoint for that client, to a domain of the bucket; with the session's token."""
    given = {"region": "cn-hangzhou", "bucket": "cache", "accesskeyid": "AK", "accesskeysecret": "SK"}
    made = Oss(parameters({**given, "securitytoken": "TOKEN", **more}))
    parts = urlsplit(await made.presign("a/key", 60.0, endpoint=endpoint) or "")
    await made.close()
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == place
    query = parse_qs(parts.query)
    assert query["x-oss-signature-version"] == ["OSS4-HMAC-SHA256"]
    assert query["x-oss-security-token"] == ["TOKEN"]
    assert query["x-oss-credential"][0].endswith("/cn-hangzhou/oss/aliyun_v4_request")


async def test_little_is_read_ahead_of_a_slow_reader(driver: Oss) -> None:
    """The HTTP client stops reading from the socket at 32 KiB, so that a thousand slow clients need no gigabyte."""
    await driver.put(KEY, pattern(MIB))
    async with driver.bucket.get(KEY) as (_, response):
        assert response.content.get_read_buffer_limits() == (AHEAD, 2 * AHEAD) == (16 << 10, 32 << 10)


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["in-one", "in-parts"])
async def test_a_commit_whose_reply_is_lost_is_settled(
    service: Service, driver: Oss, spool: Spooler, size: int
) -> None:
    """The service has done it and its answer never came: the commit finds its own success."""
    lost: list[str] = []
    call = driver.bucket.client.call

    async def losing(operation: str, key: str, /, **arguments: object) -> object:
        answer = await call(operation, key, **arguments)
        if operation in ("PutObject", "CompleteMultipartUpload") and not lost:
            lost.append(operation)
            raise Unavailable("oss", key, None, "the reply is lost")
        return answer

    driver.bucket.client.call = losing  # type: ignore[method-assign]
    info: ObjectInfo = await write(driver, KEY, spool(pattern(size)))
    assert (info.size, len(lost)) == (size, 1)
    assert await read(driver, KEY) == pattern(size)
    assert service.uploads(BUCKET) == []
