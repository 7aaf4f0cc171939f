"""The Swift client: a change is sent once, a refused token is renewed once, answers are bounded, nothing is guessed."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from msrcache.oci.ranges import Span
from msrcache.storage.errors import Denied, StorageError, Unavailable, Unusable
from msrcache.storage.swift import Swift, make
from msrcache.storage.swiftcontainer import Features, features_of
from msrcache.storage.swifterrors import CredentialsRefused
from msrcache.storage.swiftparameters import parameters
from msrcache.storage.swiftsigning import digest_of
from tests.contract.harness import keys, read
from tests.stage.certificates import authority
from tests.stage.scripted import Scripted, Turn, scripted

ACCOUNT = "/v1/AUTH_a"
OBJECT = f"{ACCOUNT}/c/files/a/key"
AUTH = "/auth/v1.0"


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    """A service that answers what the test wants, and gives a token to whoever asks."""
    async with scripted() as server:
        headers = (("X-Auth-Token", "t"), ("X-Storage-Url", f"{server.url}{ACCOUNT}"))
        server.always(AUTH, Turn(body=b"", headers=headers))
        yield server


@asynccontextmanager
async def driver(url: str, **more: object) -> AsyncIterator[Swift]:
    """A driver for the service at that URL."""
    given = {"authurl": f"{url}{AUTH}", "username": "a:b", "password": "k", "container": "c", **more}
    made = Swift(parameters(given))
    try:
        yield made
    finally:
        await made.close()


def objects(script: Scripted) -> list[str]:
    """What was asked but for tokens."""
    return [line for line in script.lines if AUTH not in line]


async def test_nothing_is_asked_before_the_first_call() -> None:
    """make() reads parameters and opens nothing: a service that is away is no reason not to start."""
    made = make({"authurl": "http://127.0.0.1:1/v1.0", "username": "a", "password": "b", "container": "c"})
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1/v1\.0 does not answer"):
        await made.stat("a/key")
    await made.close()
    with pytest.raises(StorageError, match="closed"):
        await made.stat("a/key")


@pytest.mark.parametrize(("operation", "times"), [("put", 1), ("create", 1), ("stat", 2)])
async def test_what_changes_something_is_sent_once(operation: str, times: int) -> None:
    """A connection that was kept and is cut after the next request came: a create that took effect would be told that
    somebody else made it. What only reads is asked once more.
    """
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                asked.append(head.split(" ")[0])
                if len(asked) > 2:
                    break
                port = server.sockets[0].getsockname()[1]
                said = f"X-Auth-Token: t\r\nX-Storage-Url: http://127.0.0.1:{port}{ACCOUNT}\r\n"
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{said}\r\n".encode())
        except asyncio.IncompleteReadError:
            pass
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
    assert asked == ["GET", "HEAD", *([{"stat": "HEAD"}.get(operation, "PUT")] * times)]


async def test_a_busy_service_is_not_pressed(script: Scripted) -> None:
    """503 with Retry-After: Unavailable with the seconds, after one request."""
    script.script(OBJECT, Turn(status=503, body=b"slow down", headers=(("Retry-After", "7"),)))
    async with driver(script.url) as made:
        with pytest.raises(Unavailable, match="slow down") as busy:
            await read(made, "a/key")
    assert busy.value.retry_after == 7.0
    assert objects(script) == [f"GET {OBJECT}"]


async def test_a_refused_token_is_renewed_once(script: Scripted) -> None:
    """The same request with a new one; where that is refused too, somebody has to look."""
    script.script(OBJECT, Turn(status=401, body=b""), Turn(body=b"12345"))
    async with driver(script.url) as made:
        assert await read(made, "a/key") == b"12345"
        assert script.lines == [f"GET {AUTH}", f"GET {OBJECT}", f"GET {AUTH}", f"GET {OBJECT}"]
        script.always(OBJECT, Turn(status=401, body=b""))
        with pytest.raises(CredentialsRefused, match="refuses the token that it was given a moment ago"):
            await read(made, "a/key")
    assert len(objects(script)) == 4


async def test_every_request_says_who_and_what(script: Scripted) -> None:
    """The token, our name, the length and the checksum; no cookie, no trailer, no waiting for a 100."""
    script.always(OBJECT, Turn(body=b"", headers=(("Set-Cookie", "a=b"),)), "PUT")
    async with driver(script.url, useragent="somebody/1") as made:
        for data in (b"1" * 100_000, b""):
            await made.put("a/key", data)
    for request, length in zip(script.ledger[1:], ("100000", "0"), strict=True):
        headers = request.headers
        assert (headers["x-auth-token"], headers["user-agent"]) == ("t", "somebody/1")
        assert headers["content-length"] == length
        assert len(headers["etag"]) == 32
        assert not {"expect", "transfer-encoding", "cookie"} & headers.keys()


async def test_a_service_that_ignores_ranges_is_noticed(script: Scripted) -> None:
    """The whole object instead of a span is an error, not other bytes."""
    script.always(OBJECT, Turn(body=b"0123456789", ranges=False))
    async with driver(script.url) as made:
        with pytest.raises(StorageError, match="without saying which"):
            await read(made, "a/key", Span(2, 4))


async def test_an_answer_that_is_no_json_is_an_error(script: Scripted) -> None:
    """A proxy's page instead of a listing is not an empty store."""
    path = f"{ACCOUNT}/c?format=json&prefix=files%2F&limit=1000&marker="
    script.script(path, Turn(body=b"<html>hello</html>"))
    async with driver(script.url) as made:
        with pytest.raises(StorageError, match="no JSON"):
            await keys(made.list(""))


async def test_an_answer_has_an_end(script: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read whole is bounded."""
    monkeypatch.setattr("msrcache.storage.swiftclient.LARGEST_ANSWER", 1000)
    path = f"{ACCOUNT}/c?format=json&prefix=files%2F&limit=1000&marker="
    script.script(path, Turn(body=b"[" + b" " * 2000))
    async with driver(script.url) as made:
        with pytest.raises(StorageError, match="has no end"):
            await keys(made.list(""))


async def test_a_service_that_hides_what_it_can_is_asked_little(script: Scripted) -> None:
    """Without /info objects are deleted one by one, and URLs are signed by the better digest."""
    for number in range(3):
        script.always(f"{ACCOUNT}/c/files/a/{number}", Turn(body=b"", headers=(("Etag", "e"),)), "HEAD")
        script.always(f"{ACCOUNT}/c/files/a/{number}", Turn(status=204, body=b""), "DELETE")
    script.always("/info", Turn(status=403, body=b""))
    async with driver(script.url) as made:
        await made.delete("a/0", "a/1", "a/2")
    asked = [line for line in objects(script) if "/info" not in line]
    assert sorted(line.split(" ")[0] for line in asked) == ["DELETE"] * 3 + ["HEAD"] * 3


async def test_a_bulk_delete_that_fails_in_part_is_told(script: Scripted) -> None:
    """Its status is 200 whatever happened: what counts stands in its body."""
    for number in range(2):
        script.always(f"{ACCOUNT}/c/files/a/{number}", Turn(body=b"", headers=(("Etag", "e"),)), "HEAD")
    script.always("/info", Turn(body=json.dumps({"bulk_delete": {"max_deletes_per_request": 10}}).encode()))
    said = {"Number Deleted": 1, "Errors": [["/c/files/a/1", "403 Forbidden"]], "Response Status": "400 Bad"}
    bulk = f"{ACCOUNT}?bulk-delete=true"
    script.script(bulk, Turn(body=json.dumps(said).encode()), method="POST")
    script.script(bulk, Turn(body=b'  \n {"Response Status": "502 Bad Gateway"}'), method="POST")
    async with driver(script.url) as made:
        with pytest.raises(Denied, match="bulk delete"):
            await made.delete("a/0", "a/1")
        with pytest.raises(Unavailable, match="bulk delete"):
            await made.delete("a/0", "a/1")


@pytest.mark.parametrize(
    ("said", "configured", "digest"),
    [
        ({"tempurl": {"allowed_digests": ["sha1", "sha256"], "methods": ["GET"]}}, (), "sha256"),
        ({"tempurl": {"allowed_digests": ["sha1"], "methods": ["GET"]}}, (), "sha1"),
        ({"tempurl": {"allowed_digests": ["sha512"]}}, (), "sha512"),
        ({"tempurl": {}}, (), "sha1"),
        ({"tempurl": {"methods": ["PUT"]}}, (), ""),
        ({"tempurl": {"methods": ["GET"]}}, ("PUT",), ""),
        ({"swift": {"version": "2.1"}}, (), ""),
        ([], (), "sha256"),
    ],
)
def test_the_digest_is_one_that_the_service_takes(
    said: Any, configured: tuple[str, ...], digest: str
) -> None:
    """SHA-256 before SHA-1; none where the service has no URLs for GET. One that hides what it can is trusted."""
    assert digest_of(features_of(said), configured) == digest


def test_what_a_service_says_of_itself() -> None:
    """With the defaults of an old one where it says less."""
    assert features_of(
        {"swift": {"version": "2.38.3"}, "bulk_delete": {"max_deletes_per_request": 7}}
    ) == Features(version="2.38.3", bulk=7, tempurl=False, digests=("sha1",))


async def test_the_environment_names_a_proxy(script: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """For requests of objects and of tokens; not for a host that it excepts."""
    monkeypatch.setenv("http_proxy", script.url)
    monkeypatch.delenv("no_proxy", raising=False)
    script.always(f"http://swift.test{AUTH}", Turn(status=401, body=b""))
    async with driver("http://swift.test") as made:
        with pytest.raises(CredentialsRefused):
            await made.stat("a/key")
    assert script.lines == [f"GET http://swift.test{AUTH}"]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with driver("http://127.0.0.1:1") as made:
        with pytest.raises(Unavailable):
            await made.stat("a/key")
    assert len(script.ledger) == 1


async def test_tls_is_verified(script: Scripted, tmp_path: Path) -> None:
    """With `ca` it is trusted, without it refused, with insecureskipverify not looked at and warned of."""
    trusted = authority(tmp_path / "ca")
    pair = trusted.issue("swift")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with driver(url) as made:
            with pytest.raises(Unusable, match=r"is not trusted .*: give its CA as storage\.swift\.ca"):
                await made.stat("a/key")
        async with driver(url, ca=str(tmp_path / "absent.pem")) as made:
            with pytest.raises(Unusable, match=r"absent\.pem cannot be read"):
                await made.stat("a/key")
        async with driver(url, ca=str(trusted.bundle)) as made:
            with pytest.raises(CredentialsRefused):
                await made.stat("a/key")
        with capture_logs() as told:
            given = {"authurl": f"{url}{AUTH}", "username": "a:b", "password": "k", "container": "c"}
            skipping = make({**given, "insecureskipverify": "true"})
        with pytest.raises(CredentialsRefused):
            await skipping.stat("a/key")
        await skipping.close()
    assert "insecureskipverify is on" in told[0]["event"]
    assert script.ledger == []
