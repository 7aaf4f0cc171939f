"""The OSS client: a request is made once, refusals are told, nothing blocks the loop, an authority can be named."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from msrcache.oci.ranges import Span
from msrcache.storage.errors import Denied, NotFound, StorageError, Unavailable, Unusable
from msrcache.storage.oss import Oss, make
from msrcache.storage.osserrors import CredentialsRefused
from msrcache.storage.ossparameters import parameters
from tests.contract.harness import keys, read
from tests.stage.certificates import authority
from tests.stage.ossservice import KEY, REGION, SECRET, Service, ossservice
from tests.stage.osssigning import Account
from tests.stage.process import free_port
from tests.stage.scripted import Scripted, Turn, scripted

BUCKET = "client"
PLACE = f"/{BUCKET}/a/key"
DATE = ("Date", "Tue, 24 Nov 2026 12:00:00 GMT")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """With a bucket that has one object."""
    async with ossservice() as running:
        running.make_bucket(BUCKET)
        async with driver(running) as made:
            await made.put("a/key", b"12345")
        yield running


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    """A service that answers what the test wants."""
    async with scripted() as server:
        yield server


@asynccontextmanager
async def driver(service: Service, **more: object) -> AsyncIterator[Oss]:
    """A driver on the bucket."""
    made = Oss(parameters({**service.settings(BUCKET), **more}))
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def at(url: str, **more: object) -> AsyncIterator[Oss]:
    """A driver for whatever is at that URL."""
    given = {
        "bucket": BUCKET,
        "region": REGION,
        "endpoint": url,
        "accesskeyid": KEY,
        "accesskeysecret": SECRET,
    }
    made = Oss(parameters({**given, **more}))
    try:
        yield made
    finally:
        await made.close()


def refusal(code: str, status: int, *headers: tuple[str, str]) -> Turn:
    """An error document."""
    body = f"<Error><Code>{code}</Code><Message>said so</Message></Error>"
    return Turn(status=status, body=body.encode(), headers=(*headers, DATE))


async def test_nothing_is_asked_before_the_first_call() -> None:
    """A service that is away costs nothing at the start; what nobody listens at is Unavailable, in words."""
    async with at(f"http://127.0.0.1:{free_port()}") as made:
        with pytest.raises(Unavailable, match=r"the service at http://127.0.0.1:[0-9]+ does not answer"):
            await made.stat("a/key")


async def test_making_the_client_leaves_the_loop_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are read, and the system is asked what it is, in threads."""
    where = []

    def noted(name: str) -> None:
        inner: Callable[..., Any] = getattr(__import__("msrcache.storage.ossclient", fromlist=[name]), name)

        def made(*args: object, **more: object) -> object:
            where.append((name, current_thread() is main_thread()))
            return inner(*args, **more)

        monkeypatch.setattr(f"msrcache.storage.ossclient.{name}", made)

    noted("_trust")
    noted("AsyncClient")
    async with driver(service) as made:
        assert await read(made, "a/key") == b"12345"
    assert where == [("_trust", False), ("AsyncClient", False)]


@pytest.mark.parametrize("operation", ["put", "create", "stat", "delete"])
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
    async with server, at(url) as made:
        await made.stat("a/key")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "put": lambda: made.put("a/key", b""),
            "create": lambda: made.create("a/key", b""),
            "stat": lambda: made.stat("a/key"),
            "delete": lambda: made.delete("a/key"),
        }
        with pytest.raises(Unavailable):
            await calls[operation]()
    assert asked == ["HEAD", {"stat": "HEAD", "delete": "DELETE"}.get(operation, "PUT")]


@pytest.mark.parametrize(
    ("code", "status"), [("SlowDown", 503), ("TooManyRequests", 429), ("InternalError", 500)]
)
async def test_a_busy_service_is_not_pressed(script: Scripted, code: str, status: int) -> None:
    """One request, and how long it wants to be left is told."""
    script.always(PLACE, refusal(code, status, ("Retry-After", "7")), "PUT")
    async with at(script.url) as made:
        with pytest.raises(Unavailable, match=f"cannot do PutObject now: {code}") as refused:
            await made.put("a/key", b"1")
    assert refused.value.retry_after == 7.0
    assert len(script.ledger) == 1


async def test_what_a_request_says(script: Scripted) -> None:
    """Who asks, what is forbidden, encrypted, verified; signed with V4; a span by the standard behaviour."""
    script.always(PLACE, Turn(body=b""), "PUT")
    script.always(PLACE, Turn(status=404, body=b""), "GET")
    async with at(script.url, encrypt=True, useragent="our-cache/1", securitytoken="TOKEN") as made:
        assert await made.create("a/key", b"12345")
        with pytest.raises(StorageError):
            await read(made, "a/key", Span(1, 3))
    created, ranged = (request.headers for request in script.ledger)
    assert created["user-agent"].endswith("/our-cache/1")
    assert created["x-oss-forbid-overwrite"] == "true"
    assert created["x-oss-server-side-encryption"] == "AES256"
    assert created["content-md5"] == "gnzLDuqKcGxMNKFokfhOew=="
    assert created["content-length"] == "5"
    assert created["authorization"].startswith("OSS4-HMAC-SHA256 Credential=test-key-id/")
    assert created["x-oss-security-token"] == "TOKEN"
    assert (ranged["range"], ranged["x-oss-range-behavior"]) == ("bytes=1-2", "standard")


async def test_a_service_that_ignores_ranges_is_noticed(script: Scripted) -> None:
    """It answers 200 with all: an error, never wrong bytes."""
    script.always(PLACE, Turn(body=b"12345", ranges=False))
    async with at(script.url) as made:
        with pytest.raises(StorageError, match="without saying which"):
            await read(made, "a/key", Span(1, 3))


@pytest.mark.parametrize("headers", [(DATE,), ()], ids=["dated", "undated"])
async def test_an_answer_of_something_in_between_is_told(
    script: Scripted, headers: tuple[tuple[str, str], ...]
) -> None:
    """A proxy's page instead of an error document, with and without the date that the SDK wants."""
    async with at(script.url) as made:
        for status, kind in ((502, Unavailable), (403, Denied), (404, NotFound)):
            script.script(
                PLACE, Turn(status=status, body=b"<html>Bad gateway", headers=headers), method="PUT"
            )
            with pytest.raises(kind):
                await made.put("a/key", b"1")


async def test_a_listing_that_is_none_is_told(script: Scripted) -> None:
    """A login page with 200: an error in words, no empty listing."""
    script.guard = lambda _: Turn(body=b"<html>Please log in")
    async with at(script.url) as made:
        with pytest.raises(StorageError, match="ListObjectsV2 could not be asked, or its answer not be read"):
            await keys(made.list("a"))


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"accesskeyid": "nobody"}, CredentialsRefused, "correct accesskeyid"),
        ({"accesskeysecret": "wrong"}, CredentialsRefused, "correct accesskeysecret"),
        ({"securitytoken": "stale"}, CredentialsRefused, "the security token has expired or is not valid"),
        (
            {"bucket": "another"},
            Unusable,
            "there is no bucket another; create it, or correct storage.oss.bucket",
        ),
        ({"region": "cn-beijing"}, Unusable, "is not of region cn-beijing: correct storage.oss.region"),
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "PUT"])
async def test_what_is_configured_wrong_is_told(
    service: Service, more: dict[str, object], kind: type[StorageError], said: str, method: str
) -> None:
    """In one sentence, without a secret; of a HEAD too, whose answer has no body."""
    async with driver(service, **more) as made:
        with pytest.raises(kind, match=said) as refused:
            await (made.stat("a/key") if method == "HEAD" else made.put("a/key", b"1"))
    assert not any(secret in str(refused.value) for secret in ("wrong", "stale", SECRET))


async def test_a_bucket_elsewhere_is_told(service: Service) -> None:
    """With the endpoint that the service names."""
    service.endpoint = "oss-cn-beijing.aliyuncs.com"
    async with driver(service) as made:
        with pytest.raises(
            Unusable, match=r"the bucket client is served at oss-cn-beijing.aliyuncs.com, not at"
        ):
            await made.stat("a/key")


async def test_a_clock_that_is_wrong_is_told_and_heals(service: Service) -> None:
    """More than a quarter of an hour: the sentence says so, and afterwards all works."""
    service.ahead = 1000.0
    async with driver(service) as made:
        with pytest.raises(CredentialsRefused, match="this machine's clock is wrong"):
            await made.stat("a/key")
        service.ahead = 0.0
        assert await read(made, "a/key") == b"12345"


async def test_what_is_denied_is_named(service: Service) -> None:
    """Operation, bucket, and the action that is missing."""
    service.accounts[KEY] = Account(SECRET, allowed={"oss:GetObject"})
    async with driver(service) as made:
        assert await read(made, "a/key") == b"12345"
        with pytest.raises(Denied, match="PutObject on bucket client is denied; allow oss:PutObject"):
            await made.put("a/key", b"1")


async def test_a_private_authority_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    """Not else; skipverify trusts anybody."""
    ca = authority(tmp_path / "ca")
    pair = ca.issue("localhost")
    async with ossservice(tls=pair) as service:
        service.make_bucket(BUCKET)
        async with at(service.url, forcepathstyle=True) as stranger:
            with pytest.raises(Unusable, match=r"not trusted .*: give its CA as storage.oss.ca"):
                await stranger.put("a/key", b"1")
        for more in ({"ca": str(ca.bundle)}, {"skipverify": True}):
            async with at(service.url, forcepathstyle=True, **more) as made:
                await made.put("a/key", b"1")
                assert await read(made, "a/key") == b"1"


async def test_a_closed_driver_says_so(service: Service) -> None:
    """And closing twice is no error."""
    made = service.driver(BUCKET)
    await made.stat("a/key")
    await made.close()
    await made.close()
    with pytest.raises(StorageError, match="the driver has been closed"):
        await made.stat("a/key")


async def test_a_url_needs_nothing_but_itself(service: Service) -> None:
    """No header, no cookie; and the service was not asked for it."""
    async with driver(service) as made:
        before = len(service.ledger)
        url = await made.presign("a/key", 60.0) or ""
        assert len(service.ledger) == before
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        assert (answer.status, await answer.read()) == (200, b"12345")


def test_skipping_verification_is_warned_of() -> None:
    """At each start."""
    with capture_logs() as logs:
        make({"bucket": BUCKET, "region": REGION, "skipverify": True})
    assert "storage.oss.skipverify is on" in logs[0]["event"]
