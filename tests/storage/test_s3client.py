"""The S3 client: a request is made once, refusals are told, look-alikes are borne, nothing blocks the loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import aiohttp
import pytest
from botocore.loaders import JSONFileLoader
from structlog.testing import capture_logs

from msrcache.oci.ranges import Span
from msrcache.storage.errors import StorageError, Unavailable, Unusable
from msrcache.storage.parameters import ParameterError
from msrcache.storage.s3 import S3, make
from msrcache.storage.s3errors import CredentialsRefused
from msrcache.storage.s3parameters import parameters
from tests.contract.harness import read
from tests.stage.s3services import KEY, REGION, SECRET, RunningS3, versitygw
from tests.stage.scripted import Scripted, Turn, scripted

BUCKET = "client"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningS3]:
    """versitygw with a bucket that has one object."""
    async with versitygw(tmp_path / "s3") as running:
        running.make_bucket(BUCKET)
        running.client.put_object(Bucket=BUCKET, Key="a/key", Body=b"12345")
        yield running


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    """A service that answers what the test wants."""
    async with scripted() as server:
        yield server


@asynccontextmanager
async def driver(url: str, **more: object) -> AsyncIterator[S3]:
    """A driver for the service at that URL."""
    given = {"bucket": BUCKET, "regionendpoint": url, "accesskey": KEY, "secretkey": SECRET, "region": REGION}
    made = S3(parameters({**given, **more}))
    try:
        yield made
    finally:
        await made.close()


def exclusive(made: S3) -> bool:
    """As the portable half asks."""
    return made.create_is_exclusive


def refusal(code: str, status: int, *headers: tuple[str, str], more: str = "") -> Turn:
    """An error document."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message>{more}</Error>"
    return Turn(status=status, body=body.encode(), headers=(("Content-Type", "application/xml"), *headers))


def ok(*headers: tuple[str, str]) -> Turn:
    """An answer without a body."""
    return Turn(body=b"", headers=(("Date", "Tue, 24 Nov 2026 20:00:00 GMT"), ("ETag", '"1"'), *headers))


async def test_nothing_is_asked_before_the_first_call() -> None:
    """make() reads parameters and opens nothing: a service that is away is no reason not to start."""
    made = make(
        {"bucket": BUCKET, "regionendpoint": "http://127.0.0.1:1", "accesskey": "a", "secretkey": "b"}
    )
    assert "0 endpoints" in repr(made.bucket.client)
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1 does not answer"):
        await made.stat("a/key")
    await made.close()
    with pytest.raises(StorageError, match="closed"):
        await made.stat("a/key")


async def test_making_the_client_leaves_the_loop_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's data models, megabytes of JSON, are read in a thread."""
    threads: list[str] = []
    load: Any = JSONFileLoader.load_file

    def noted(self: object, path: str) -> object:
        if "/s3/" in path:
            threads.append("loop" if current_thread() is main_thread() else "thread")
        return load(self, path)

    monkeypatch.setattr(JSONFileLoader, "load_file", noted)
    async with driver("http://127.0.0.1:1") as made:
        assert await made.presign("a/key", 60.0)
    assert set(threads) == {"thread"}


@pytest.mark.parametrize("operation", ["put", "create", "stat"])
async def test_a_request_is_sent_once(operation: str) -> None:
    """A connection that was kept and is cut after the next request came: that request is not made a second time,
    since a create that took effect would then be told that somebody else made it.
    """
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            asked.append(head.split(" ")[0])
            if len(asked) > 1:
                break
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "1"\r\n\r\n')
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, driver(url) as made:
        await made.stat("a/key")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "put": lambda: made.put("a/key", b""),
            "create": lambda: made.create("a/key", b""),
            "stat": lambda: made.stat("a/key"),
        }
        with pytest.raises(Unavailable):
            await calls[operation]()
    assert asked == ["HEAD", {"stat": "HEAD"}.get(operation, "PUT")]


async def test_a_busy_service_is_not_pressed(script: Scripted) -> None:
    """SlowDown with Retry-After: Unavailable with the seconds, after one request."""
    script.script(f"/{BUCKET}/a/key", refusal("SlowDown", 503, ("Retry-After", "7")))
    async with driver(script.url) as made:
        with pytest.raises(Unavailable, match="SlowDown") as busy:
            await read(made, "a/key")
    assert busy.value.retry_after == 7.0
    assert len(script.ledger) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_another_region_is_told_not_followed(script: Scripted, method: str) -> None:
    """The sentence names it; no further request is made."""
    script.always(
        f"/{BUCKET}/a/key", refusal("PermanentRedirect", 301, ("x-amz-bucket-region", "eu-west-3")), method
    )
    async with driver(script.url) as made:
        with pytest.raises(
            Unusable, match=r"in region eu-west-3, not in us-east-1: correct storage\.s3\.region"
        ):
            await (made.stat("a/key") if method == "HEAD" else read(made, "a/key"))
    assert len(script.ledger) == 1


async def test_conditions_that_are_not_known_are_left_out(script: Scripted) -> None:
    """A service that knows no If-None-Match: the create is made all the same, and is called exclusive no more."""
    path = f"/{BUCKET}/a/key"
    script.script(path, refusal("NotImplemented", 501, more="<Header>If-None-Match</Header>"), method="PUT")
    script.always(path, ok(), "PUT")
    script.always(path, Turn(status=404), "HEAD")
    async with driver(script.url) as made:
        assert made.create_is_exclusive
        assert await made.create("a/key", b"1")
        assert exclusive(made) is False
        assert await made.create("a/key", b"1")
    conditions = [request.headers.get("if-none-match") for request in script.ledger]
    assert conditions == ["*", None, None, None]
    assert [request.method for request in script.ledger] == ["PUT", "PUT", "HEAD", "PUT"]


async def test_checksums_that_are_not_known_are_left_out(script: Scripted) -> None:
    """A service that knows no x-amz-checksum: asked once with it, never again."""
    path = f"/{BUCKET}/a/key"
    script.script(path, refusal("NotImplemented", 501), method="PUT")
    script.always(path, ok(), "PUT")
    script.always(path, ok(), "HEAD")
    async with driver(script.url) as made:
        await made.put("a/key", b"1")
        await made.put("a/key", b"1")
        await made.stat("a/key")
        assert made.create_is_exclusive
    sent = [[name for name in request.headers if "checksum" in name] for request in script.ledger]
    assert [bool(names) for names in sent] == [True, False, False, False]


async def test_no_request_needs_what_lookalikes_refuse(script: Scripted) -> None:
    """No trailer, no chunked encoding of Amazon's own, no waiting for a 100, and an MD5 where many are deleted."""
    path = f"/{BUCKET}/a/key"
    script.always(path, ok(), "PUT")
    script.always(f"/{BUCKET}?delete", Turn(body=b"<DeleteResult/>"), "POST")
    async with driver(script.url) as made:
        await made.put("a/key", b"1" * 100_000)
        await made.delete("a/1", "a/2")
    put, delete = (request.headers for request in script.ledger)
    for headers in (put, delete):
        assert not {"x-amz-trailer", "expect", "transfer-encoding", "content-encoding"} & headers.keys()
    assert put["content-length"] == "100000"
    assert "content-md5" in delete
    assert "x-amz-checksum-crc32" not in delete


async def test_a_service_that_ignores_ranges_is_noticed(script: Scripted) -> None:
    """The whole object instead of a span is an error, not other bytes."""
    script.always(f"/{BUCKET}/a/key", Turn(body=b"0123456789"))
    async with driver(script.url) as made:
        with pytest.raises(StorageError, match="without saying which"):
            await read(made, "a/key", Span(2, 4))


async def test_a_create_that_meets_another_is_made_again(script: Scripted) -> None:
    """409 ConditionalRequestConflict says that nothing is decided yet."""
    path = f"/{BUCKET}/a/key"
    script.script(path, *[refusal("ConditionalRequestConflict", 409)] * 3, ok(), method="PUT")
    async with driver(script.url) as made:
        assert await made.create("a/key", b"1")
    assert len(script.ledger) == 4


@pytest.mark.real
async def test_refusals_of_a_real_service_are_told(service: RunningS3) -> None:
    """A bucket that is not there, an unknown key, a wrong secret: a sentence each, and no secret in it."""
    async with driver(service.url, bucket="missing") as made:
        with pytest.raises(Unusable, match="there is no bucket missing"):
            await made.put("a/key", b"1")
    for wrong in ({"accesskey": "AKIDNOBODY"}, {"secretkey": "wrong-secret"}):
        async with driver(service.url, **wrong) as made:
            with pytest.raises(CredentialsRefused) as refused:
                await read(made, "a/key")
            assert "wrong-secret" not in str(refused.value)


@pytest.mark.real
async def test_a_presigned_url_is_refused_when_it_is_another(service: RunningS3) -> None:
    """Tampered with or for another key: 403; it works for what it was signed for, ranges included."""
    async with driver(service.url) as made, aiohttp.ClientSession() as session:
        url = await made.presign("a/key", 60.0)
        assert url is not None
        async with session.get(url, headers={"Range": "bytes=1-2"}) as answer:
            assert (answer.status, await answer.read()) == (206, b"23")
        for other in (url.replace("a/key", "a/kez"), url[:-1] + ("0" if url[-1] != "0" else "1")):
            async with session.get(other) as answer:
                assert answer.status == 403


@pytest.mark.real
async def test_a_presigned_url_ends(service: RunningS3) -> None:
    """After its time it is refused, as the service's clock says."""
    async with driver(service.url) as made, aiohttp.ClientSession() as session:
        url = await made.presign("a/key", 1.0)
        assert url is not None
        async with asyncio.timeout(20):
            while True:
                async with session.get(url) as answer:
                    if answer.status == 403:
                        break
                    assert answer.status == 200
                await asyncio.sleep(0.2)


@pytest.mark.real
async def test_a_private_authority_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    """With `ca` TLS is verified, without it refused in words, with skipverify not looked at and warned of."""
    async with versitygw(tmp_path / "s3", tls=True) as service:
        service.make_bucket(BUCKET)
        given = {"bucket": BUCKET, "regionendpoint": service.url, "accesskey": KEY, "secretkey": SECRET}
        assert service.authority is not None
        trusting = make({**given, "ca": str(service.authority.bundle)})
        await trusting.put("a/key", b"1")
        await trusting.close()
        refusing = make(given)
        with pytest.raises(Unusable, match=r"is not trusted .*: give its CA as storage\.s3\.ca"):
            await refusing.put("a/key", b"1")
        await refusing.close()
        with capture_logs() as told:
            skipping = make({**given, "skipverify": "true"})
        assert [line["log_level"] for line in told] == ["warning"]
        assert "skipverify is on" in told[0]["event"]
        await skipping.put("a/key", b"1")
        await skipping.close()


async def test_requests_are_logged_where_it_is_wanted(script: Scripted) -> None:
    """loglevel: operation, key, outcome, seconds; no header, no secret."""
    script.always(f"/{BUCKET}/a/key", ok(), "HEAD")
    with capture_logs() as told:
        async with driver(script.url, loglevel="debug") as made:
            await made.stat("a/key")
        async with driver(script.url) as made:
            await made.stat("a/key")
    assert [(line["operation"], line["key"], line["outcome"]) for line in told] == [
        ("HeadObject", "a/key", 200)
    ]
    assert SECRET not in str(told)


@pytest.mark.parametrize(
    ("text", "sentence"), [(None, "cannot be read: No such file"), ("x", "holds no PEM")]
)
def test_an_authority_that_is_none_is_told_at_the_start(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    """With its path, before anything is served."""
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ParameterError, match=f"storage.s3.ca: .*ca.pem {sentence}"):
        make({"bucket": BUCKET, "region": REGION, "ca": str(path)})


async def test_an_answer_that_is_no_xml_is_told(script: Scripted) -> None:
    """A captive portal says 200 and a page: a StorageError, as everything that goes wrong."""
    script.always(f"/{BUCKET}?list-type=2&prefix=a%2F&encoding-type=url", Turn(body=b"<html>Welcome"))
    async with driver(script.url) as made:
        with pytest.raises(StorageError, match="ListObjectsV2"):
            assert [item async for item in made.list("a")]
