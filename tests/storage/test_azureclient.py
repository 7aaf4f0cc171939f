"""The Azure client: a request is made once, credentials and refusals are told, URLs are signed, containers made."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    ResourceTypes,
    Services,
    generate_account_sas,
)

from msrcache.oci.ranges import Span
from msrcache.storage.azure import Azure, make
from msrcache.storage.azureerrors import CredentialsRefused, NoContainer
from msrcache.storage.azureparameters import parameters
from msrcache.storage.errors import Denied, NotFound, StorageError, Unavailable, Unusable
from tests.contract.harness import keys, read
from tests.stage.azureservice import ACCOUNT, KEY, RunningAzure
from tests.stage.scripted import Scripted, Turn, scripted

CONTAINER = "client"
PLACE = f"/{ACCOUNT}/{CONTAINER}/a/key"
WRONG = "d3Jvbmcta2V5"


@pytest.fixture
def container(azure_service: RunningAzure) -> str:
    """One that has one blob."""
    name = azure_service.make_container()
    azure_service.client.get_blob_client(name, "a/key").upload_blob(b"12345")
    return name


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    """A service that answers what the test wants."""
    async with scripted() as server:
        yield server


@asynccontextmanager
async def driver(url: str, container: str = CONTAINER, **more: object) -> AsyncIterator[Azure]:
    """A driver for the account at that URL."""
    given = {"container": container, "serviceurl": url, "accountname": ACCOUNT}
    if not {"accountkey", "sastoken", "connectionstring"} & more.keys():
        given["accountkey"] = KEY
    made = Azure(parameters({**given, **more}))
    try:
        yield made
    finally:
        await made.close()


def refusal(code: str, status: int, *headers: tuple[str, str]) -> Turn:
    """An error document."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    told = (("Content-Type", "application/xml"), ("x-ms-error-code", code))
    return Turn(status=status, body=body.encode(), headers=(*told, *headers))


async def test_nothing_is_asked_before_the_first_call() -> None:
    """make() reads parameters and opens nothing: a service that is away is no reason not to start."""
    made = make(
        {
            "container": CONTAINER,
            "serviceurl": "http://127.0.0.1:1",
            "accountname": ACCOUNT,
            "accountkey": KEY,
        }
    )
    assert "not yet made" in repr(made.container.client)
    with pytest.raises(Unavailable, match=r"the service at http://127\.0\.0\.1:1 does not answer"):
        await made.stat("a/key")
    await made.close()
    with pytest.raises(StorageError, match="closed"):
        await made.stat("a/key")


async def test_an_account_that_is_not_there_is_told() -> None:
    """Its name makes its host, which nobody knows then."""
    async with driver("https://nobody.blob.example.invalid") as made:
        with pytest.raises(Unavailable, match=r"is not known: is storage\.azure\.accountname right"):
            await made.stat("a/key")


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
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/{ACCOUNT}"
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


@pytest.mark.parametrize(("code", "status"), [("ServerBusy", 503), ("429", 429), ("OperationTimedOut", 500)])
async def test_a_busy_service_is_not_pressed(script: Scripted, code: str, status: int) -> None:
    """Unavailable with the seconds of Retry-After, after one request."""
    script.script(PLACE, refusal(code, status, ("Retry-After", "7")))
    async with driver(f"{script.url}/{ACCOUNT}") as made:
        with pytest.raises(Unavailable, match=code) as busy:
            await read(made, "a/key")
    assert busy.value.retry_after == 7.0
    assert len(script.ledger) == 1


async def test_a_service_that_ignores_ranges_is_noticed(script: Scripted) -> None:
    """The whole blob instead of a span is an error, not other bytes."""
    script.always(PLACE, Turn(body=b"0123456789"))
    async with driver(f"{script.url}/{ACCOUNT}") as made:
        with pytest.raises(StorageError, match="without saying which"):
            await read(made, "a/key", Span(2, 4))


async def test_no_request_needs_what_lookalikes_refuse(script: Scripted) -> None:
    """A version of the API that is some years old, a length, and an MD5; no chunks, no waiting for a 100."""
    date = ("Date", "Tue, 24 Nov 2026 20:00:00 GMT")
    script.always(PLACE, Turn(status=201, body=b"", headers=(date, ("ETag", '"1"'))), "PUT")
    async with driver(f"{script.url}/{ACCOUNT}") as made:
        await made.put("a/key", b"1" * 100_000)
    (put,) = (request.headers for request in script.ledger)
    assert not {"expect", "transfer-encoding", "content-encoding"} & put.keys()
    assert put["content-length"] == "100000"
    assert put["x-ms-version"] == "2023-11-03"
    assert "content-md5" in put
    assert put["user-agent"].startswith("msrcache/")


@pytest.mark.real
async def test_a_wrong_key_is_told(azure_service: RunningAzure, container: str) -> None:
    """A sentence, and no secret in it."""
    async with driver(azure_service.url, container, accountkey=WRONG) as made:
        with pytest.raises(CredentialsRefused, match="is none of account testaccount's") as refused:
            await read(made, "a/key")
        assert WRONG not in str(refused.value)


@pytest.mark.real
async def test_a_wrong_account_is_told(azure_service: RunningAzure, container: str) -> None:
    """Where it is part of the path; reads are misses, the first write says it."""
    url = azure_service.url.replace(ACCOUNT, "nobody")
    async with driver(url, container, accountname="nobody") as made:
        with pytest.raises(NotFound):
            await made.stat("a/key")
        with pytest.raises(Unusable, match="there is no account nobody"):
            await made.put("a/key", b"1")


@pytest.mark.real
async def test_a_signature_for_another_container_is_told(azure_service: RunningAzure, container: str) -> None:
    """It may be valid there."""
    given = azure_service.signature("elsewhere", "rcwdl")
    async with driver(azure_service.url, container, sastoken=given) as made:
        with pytest.raises(Denied, match="is for another container"):
            await read(made, "a/key")


@pytest.mark.real
async def test_a_connection_string_suffices(azure_service: RunningAzure, container: str) -> None:
    """As the portal shows it."""
    text = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azure_service.url};"
    made = make({"container": container, "connectionstring": text})
    assert await read(made, "a/key") == b"12345"
    await made.close()


def of_the_account() -> str:
    """A shared access signature for what is in any container."""
    allowed = AccountSasPermissions(read=True, write=True, create=True)
    expiry = datetime.now(UTC) + timedelta(days=1)
    return generate_account_sas(
        ACCOUNT, KEY, ResourceTypes(object=True), allowed, expiry, services=Services(blob=True)
    )


@pytest.mark.real
async def test_a_signature_suffices(azure_service: RunningAzure, container: str) -> None:
    """Read, create, write, delete, list on the container are all that is needed; it signs no URLs."""
    async with driver(
        azure_service.url, container, sastoken=azure_service.signature(container, "rcwdl")
    ) as made:
        assert await read(made, "a/key") == b"12345"
        assert await made.create("docker/1", b"1")
        assert (await made.stat("docker/1")).size == 1
        await made.put("docker/1", b"22")
        assert await keys(made.list("")) == ["a/key", "docker/1"]
        await made.delete("docker/1")
        await made.delete("a/key", "a/none")
        assert await keys(made.list("")) == []
        assert await made.presign("a/key", 60.0) is None


CALLS: dict[str, tuple[str, Callable[[Azure], Awaitable[object]]]] = {
    "r": ("Get Blob.* lacks r", lambda made: read(made, "a/key")),
    "w": ("Put Blob.* lacks c and w", lambda made: made.put("a/key", b"1")),
    "d": ("Delete Blob.* lacks d", lambda made: made.delete("a/key")),
    "l": ("List Blobs.* lacks l", lambda made: keys(made.list("a"))),
}


@pytest.mark.real
@pytest.mark.parametrize("missing", CALLS)
async def test_what_a_signature_lacks_is_named(
    azure_service: RunningAzure, container: str, missing: str
) -> None:
    """Without one of its letters a call is denied, and the sentence says which."""
    words, call = CALLS[missing]
    allowed = "rcwdl".replace(missing, "").replace("c", "" if missing == "w" else "c")
    async with driver(
        azure_service.url, container, sastoken=azure_service.signature(container, allowed)
    ) as made:
        with pytest.raises(Denied, match=words):
            await call(made)


@pytest.mark.real
async def test_a_signature_that_has_expired_is_told(azure_service: RunningAzure, container: str) -> None:
    """And what it looks like is not."""
    given = azure_service.signature(container, "rcwdl", days=-1)
    async with driver(azure_service.url, container, sastoken=given) as made:
        with pytest.raises(CredentialsRefused, match="has expired: give a new one") as refused:
            await read(made, "a/key")
        assert given.rpartition("sig=")[2] not in str(refused.value)


@pytest.mark.real
async def test_a_missing_container_is_made_with_the_key_only(azure_service: RunningAzure) -> None:
    """As Docker Registry 2.8 does, by what is written first; who has a signature is told to create it."""
    given = of_the_account()
    async with driver(azure_service.url, "missing", sastoken=given) as made:
        with pytest.raises(NoContainer, match="there is no container missing in account testaccount"):
            await made.put("a/key", b"1")
    async with driver(azure_service.url, "missing") as made:
        with pytest.raises(NoContainer):
            await made.stat("a/key")
        async with driver(azure_service.url, "missing") as other:
            assert sorted(await asyncio.gather(made.create("a/key", b"1"), other.create("a/key", b"2"))) == [
                False,
                True,
            ]
        assert (await made.stat("a/key")).size == 1
    assert await azure_service.requests("missing")


@pytest.mark.real
async def test_a_presigned_url_is_refused_when_it_is_another(
    azure_service: RunningAzure, container: str
) -> None:
    """Tampered with, for another key, or to write: 403; it works for what it was signed for, ranges included."""
    async with driver(azure_service.url, container) as made, aiohttp.ClientSession() as session:
        url = await made.presign("a/key", 60.0)
        assert url is not None
        async with session.get(url, headers={"Range": "bytes=1-2"}) as answer:
            assert (answer.status, await answer.read()) == (206, b"23")
        async with session.head(url) as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, "5")
        for other in (url.replace("a/key", "a/kez"), url.replace("sig=", "sig=A"), url.partition("?")[0]):
            async with session.get(other) as answer:
                assert answer.status in (403, 404)
        async with session.put(url, data=b"1", headers={"x-ms-blob-type": "BlockBlob"}) as answer:
            assert answer.status == 403
        assert await made.presign("a/key", 60.0, endpoint="https://public.test") != url


@pytest.mark.real
async def test_a_presigned_url_ends(azure_service: RunningAzure, container: str) -> None:
    """After its time it is refused, as the service's clock says."""
    async with driver(azure_service.url, container) as made, aiohttp.ClientSession() as session:
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
async def test_a_listing_leaves_the_loop_its_turns(azure_service: RunningAzure, container: str) -> None:
    """Pages are small, as the SDK reads their XML on the loop; each is one request."""
    async with driver(azure_service.url, container) as made:
        for number in range(5):
            await made.put(f"b/{number}", b"1")
        seen = [len(page) async for page in made.container.client.pages("b", "b/", size=2)]
    assert seen == [2, 2, 1]
