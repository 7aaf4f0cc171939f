"""Requests to Cloud Storage: made once, bounded, never followed, and every kind of answer is told for what it is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from msrcache.oci.ranges import Span
from msrcache.storage.errors import Denied, StorageError, Unavailable, Unusable
from msrcache.storage.gcs import Gcs, make
from msrcache.storage.gcsclient import AHEAD, _proxy
from msrcache.storage.gcserrors import CredentialsRefused
from msrcache.storage.gcsparameters import parameters
from msrcache.storage.parameters import ParameterError
from tests.contract.harness import keys, read
from tests.stage.certificates import authority
from tests.stage.gcsfront import refusal
from tests.stage.gcsservices import RunningGcs, fakegcs
from tests.stage.scripted import Hold, Scripted, Turn, scripted

BUCKET = "client"
OBJECT = f"/storage/v1/b/{BUCKET}/o/a%2Fkey"
MEDIA = f"{OBJECT}?alt=media"
STAT = f"{OBJECT}?fields=name%2Csize%2Cgeneration%2Cupdated%2Ccrc32c"
STANDS = b'{"name": "a/key", "size": "5", "generation": "7", "updated": "2026-11-24T20:00:00.5Z", "crc32c": "AAAAAA=="}'


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningGcs]:
    """The service with a bucket."""
    async with fakegcs(tmp_path / "gcs") as running:
        await running.make_bucket(BUCKET)
        yield running


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    """A service that answers what the test wants."""
    async with scripted() as server:
        yield server


@asynccontextmanager
async def driver(url: str, **more: object) -> AsyncIterator[Gcs]:
    """A driver for the service at that URL, which wants no token."""
    made = Gcs(parameters({"bucket": BUCKET, "endpoint": url, **more}))
    try:
        yield made
    finally:
        await made.close()


async def test_nothing_is_asked_before_the_first_call() -> None:
    """make() reads parameters and opens nothing: a service that is away is no reason not to start."""
    made = make({"bucket": BUCKET, "endpoint": "http://127.0.0.1:1"})
    with pytest.raises(
        Unavailable, match=r"objects\.get: the service at http://127\.0\.0\.1:1 does not answer"
    ):
        await made.stat("a/key")
    await made.close()
    with pytest.raises(StorageError, match="closed"):
        await made.stat("a/key")


@pytest.mark.parametrize("operation", ["put", "create", "delete", "stat"])
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
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(STANDS), STANDS))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, driver(url) as made:
        await made.stat("a/key")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "put": lambda: made.put("a/key", b""),
            "create": lambda: made.create("a/key", b""),
            "delete": lambda: made.delete("a/key"),
            "stat": lambda: made.stat("a/key"),
        }
        with pytest.raises(Unavailable):
            await calls[operation]()
    assert asked == ["GET", {"stat": "GET", "delete": "DELETE"}.get(operation, "POST")]


async def test_what_an_answer_says(script: Scripted) -> None:
    """Size, time, generation and checksum of a document, and of the headers before an object's bytes."""
    script.always(STAT, Turn(body=STANDS))
    told = (
        ("X-Goog-Hash", "md5=AAAAAAAAAAAAAAAAAAAAAA=="),
        ("X-Goog-Hash", "crc32c=AAAAAA=="),
        ("X-Goog-Generation", "7"),
        ("Last-Modified", "Tue, 24 Nov 2026 20:00:00 GMT"),
    )
    script.always(MEDIA, Turn(body=b"12345", headers=told))
    async with driver(script.url) as made:
        info = await made.stat("a/key")
        async with made.open("a/key") as content:
            assert (info.size, info.etag, info.checksum) == (5, "7", "crc32c:00000000")
            assert (content.info.size, content.info.etag) == (5, "7")
            assert (content.info.checksum, content.info.modified) == (info.checksum, info.modified - 0.5)
    assert {request.headers["accept-encoding"] for request in script.ledger} == {"identity"}
    assert {"authorization"} & set().union(*(request.headers for request in script.ledger)) == set()


async def test_a_body_is_as_long_as_it_says(script: Scripted) -> None:
    """The length is told before it, whatever it is made of: nothing is chunked, nothing waits for a 100."""
    path = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=multipart&fields=name%2Csize%2Cgeneration%2Cupdated%2Ccrc32c"
    script.always(path, Turn(body=STANDS), "POST")
    async with driver(script.url) as made:
        await made.put("a/key", b"1" * 200_000)
    headers = script.ledger[0].headers
    assert not {"transfer-encoding", "expect", "content-encoding"} & headers.keys()
    assert 200_000 < int(headers["content-length"]) < 201_000
    assert headers["user-agent"].startswith("msrcache/")


async def test_a_redirect_is_not_followed(script: Scripted) -> None:
    """Whoever answers so is not the service, and must not be shown a token's worth of trust."""
    script.always(MEDIA, Turn(status=302, body=b"", headers=(("Location", f"{script.url}/elsewhere"),)))
    async with driver(script.url) as made:
        with pytest.raises(StorageError, match=r"refused objects\.get: status 302"):
            await read(made, "a/key")
    assert len(script.ledger) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"7"])
async def test_what_is_no_document_is_told(script: Scripted, body: bytes) -> None:
    """A proxy that answers with a page of its own is no store."""
    script.always(STAT, Turn(body=body))
    async with driver(script.url) as made:
        with pytest.raises(StorageError, match=r"the answer to objects\.get is no document"):
            await made.stat("a/key")


async def test_a_document_without_what_is_needed_is_told(script: Scripted) -> None:
    """No size is not size 0."""
    script.always(STAT, Turn(body=b"{}"))
    async with driver(script.url) as made:
        with pytest.raises(StorageError, match="without the object's size and time"):
            await made.stat("a/key")


async def test_an_answer_that_does_not_end_is_left(script: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a stranger sends, little of it is kept."""
    monkeypatch.setattr("msrcache.storage.gcsclient.DOCUMENT", 1000)
    script.always(STAT, Turn(body=b" " * 100_000))
    async with driver(script.url) as made:
        with pytest.raises(StorageError, match="does not end"):
            await made.stat("a/key")


async def test_a_service_that_ignores_ranges_is_noticed(script: Scripted) -> None:
    """The whole object instead of a span is an error, not other bytes."""
    script.always(MEDIA, Turn(body=b"0123456789", ranges=False))
    async with driver(script.url) as made:
        with pytest.raises(StorageError, match="without saying which"):
            await read(made, "a/key", Span(2, 4))


async def test_few_wait_at_once_and_bodies_are_not_counted(script: Scripted) -> None:
    """As many requests wait for an answer as maxconcurrency says, the others for their turn; who reads a body has had
    his.
    """
    hold, body = Hold(0), Hold(2)
    script.always(STAT, Turn(body=STANDS, hold=hold))
    script.always(MEDIA, Turn(body=b"12345", hold=body))
    async with driver(script.url, maxconcurrency=25) as made, made.open("a/key") as content:
        asking = [asyncio.create_task(made.stat("a/key")) for _ in range(60)]
        await script.asked(26)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(script.ledger) == 26
        hold.go.set()
        await asyncio.gather(*asking)
        body.go.set()
        assert b"".join([chunk async for chunk in content.chunks]) == b"12345"
    assert len(script.ledger) == 61


async def test_little_is_read_ahead(script: Scripted) -> None:
    """Of a body that nobody takes, the HTTP client keeps one read of the socket."""
    script.always(MEDIA, Turn(body=b"x" * 20_000_000))
    async with driver(script.url) as made, made.open("a/key"):
        session = made.bucket.client._session
        assert session is not None
        assert session._read_bufsize == AHEAD


@pytest.mark.parametrize(("trusting", "works"), [("ca", True), ("skipverify", True), ("nobody", False)])
async def test_a_private_authority(tmp_path: Path, trusting: str, works: object) -> None:
    """Trusted when it is named, or when nobody is verified; else refused in words."""
    certificates = authority(tmp_path / "ca")
    pair = certificates.issue("storage")
    given: dict[str, dict[str, object]] = {
        "ca": {"ca": str(certificates.bundle)},
        "skipverify": {"skipverify": True},
        "nobody": {},
    }
    url = await _tls(pair.certificate, pair.key)
    async with url as where, driver(where, **given[trusting]) as made:
        made.bucket.client.identity.token = _no_token  # type: ignore[method-assign]
        if works:
            assert (await made.stat("a/key")).size == 5
        else:
            with pytest.raises(Unusable, match=r"is not trusted; give its authority as storage\.gcs\.ca"):
                await made.stat("a/key")


async def test_a_file_that_is_no_authority_is_told(tmp_path: Path) -> None:
    """Not there, or not of the kind."""
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("ca.pem", "missing.pem"):
        async with driver("https://127.0.0.1:1", ca=str(tmp_path / name)) as made:
            made.bucket.client.identity.token = _no_token  # type: ignore[method-assign]
            with pytest.raises(StorageError, match=r"storage\.gcs\.ca cannot be used"):
                await made.stat("a/key")


@pytest.mark.parametrize(("name", "words"), [("ca.pem", "holds no PEM"), ("missing.pem", "No such file")])
def test_a_wrong_authority_is_told_at_the_start(tmp_path: Path, name: str, words: str) -> None:
    """One sentence with the file's name."""
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ParameterError, match=f"{name}.*{words}"):
        make({"bucket": BUCKET, "ca": str(tmp_path / name)})


async def _no_token(key: str) -> None:
    del key


async def _tls(certificate: Path, key: Path):  # type: ignore[no-untyped-def]
    """A service over TLS that knows one object."""
    import ssl

    from aiohttp import web

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        del request
        return web.Response(body=STANDS)

    @asynccontextmanager
    async def running() -> AsyncIterator[str]:
        runner = web.ServerRunner(web.Server(serve))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            yield f"https://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    return running()


def test_the_proxy_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """By scheme, but for what NO_PROXY names and for this machine itself."""
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "private.test")
    assert _proxy("https://storage.googleapis.com/storage/v1") == "http://proxy.test:3128"
    assert _proxy("http://storage.googleapis.com/storage/v1") is None
    for url in ("https://private.test/x", "https://localhost:1/x", "https://127.0.0.1:1/x"):
        assert _proxy(url) is None


def test_what_is_dangerous_is_said_at_the_start() -> None:
    """No verification, no encryption."""
    with capture_logs() as logs:
        make({"bucket": BUCKET, "skipverify": True})
        make({"bucket": BUCKET, "endpoint": "http://127.0.0.1:1"})
        make({"bucket": BUCKET})
    said = [log["event"] for log in logs]
    assert len(said) == 2
    assert "storage.gcs.skipverify is on" in said[0]
    assert "storage.gcs.endpoint is not encrypted" in said[1]


@pytest.mark.real
async def test_a_missing_bucket_is_told(service: RunningGcs) -> None:
    """Whatever is asked of it; it is no object that is missing."""
    made = service.driver("missing-bucket")
    calls = (made.put("a/key", b"1"), made.create("a/key", b"1"), made.delete("a/key"), made.stat("a/key"))
    for call in (*calls, read(made, "a/key"), keys(made.list(""))):
        with pytest.raises(Unusable, match="there is no bucket missing-bucket; create it"):
            await call
    await made.close()


@pytest.mark.real
async def test_a_token_that_is_refused_is_renewed(service: RunningGcs) -> None:
    """The request that met it is told, the next one works."""
    made = service.driver(BUCKET)
    await made.put("a/key", b"12345")
    service.front.tokens.given.clear()
    with pytest.raises(CredentialsRefused, match="not valid, or no longer"):
        await read(made, "a/key")
    assert await read(made, "a/key") == b"12345"
    await made.close()


@pytest.mark.real
async def test_a_denial_heals_without_a_restart(service: RunningGcs) -> None:
    """The permission that the service names is told; once it is given, the next call works."""
    made = service.driver(BUCKET)
    message = "cache@project does not have storage.objects.create access to the Google Cloud Storage object."
    service.front.turn = lambda line: refusal(403, "forbidden", message) if line.startswith("write") else None
    with pytest.raises(Denied, match=f"bucket {BUCKET} is denied; allow storage.objects.create"):
        await made.put("a/key", b"1")
    service.front.turn = lambda line: None
    await made.put("a/key", b"1")
    await made.close()
