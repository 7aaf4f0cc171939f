"""Upstream: what each pull costs, and what comes of every kind of answer."""

import pytest

from msrcache.oci.descriptor import OCI_INDEX
from msrcache.oci.digest import Digest
from msrcache.oci.errors import (
    BlobUnknown,
    ContentMismatch,
    Denied,
    ManifestUnknown,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    UpstreamBroken,
    UpstreamUnavailable,
)
from msrcache.oci.pulls import ManifestPull
from msrcache.oci.registry import SERVICE, Credential, Outcome
from tests.upstream.played import (
    REPOSITORY,
    Asked,
    CallersOwn,
    Say,
    blob_pull,
    manifest_pull,
    played,
    read,
    upstream,
)

DATA = b'{"schemaVersion": 2, "manifests": []}'
DIGEST = Digest.of(DATA)
TYPE = ("Content-Type", OCI_INDEX)


async def test_a_manifest_as_received() -> None:
    """Bytes and type as they came, the digest our own hash, one GET."""
    told = ("Docker-Content-Digest", str(Digest.of(b"a lie")))
    async with played(lambda _: Say(body=DATA, headers=(TYPE, told))) as server, upstream(server) as client:
        found = await client.manifest(manifest_pull())
        assert server.asked() == ["GET /v2/team/app/manifests/1.0"]
        assert "application/vnd.oci.image.index.v1+json" in server.ledger[0].headers["accept"]
    assert (found.data, found.outcome) == (DATA, Outcome.PASS)
    assert (found.descriptor.media_type, found.descriptor.digest) == (OCI_INDEX, DIGEST)


async def test_accept_is_the_callers() -> None:
    """What the client accepts is what the upstream is asked for, the request id with it."""
    pull = ManifestPull(
        repository=REPOSITORY, reference=DIGEST, accept=("a/b", "c/d;q=0.5"), request_id="r-7"
    )
    async with played(lambda _: Say(body=DATA, headers=(TYPE,))) as server, upstream(server) as client:
        await client.manifest(pull)
        headers = server.ledger[0].headers
    assert (headers["accept"], headers["x-request-id"]) == ("a/b, c/d;q=0.5", "r-7")
    assert headers["user-agent"] == "msrcache"
    assert not {"cookie", "authorization"} & set(headers)


async def test_the_wrong_manifest_for_a_digest() -> None:
    """Bytes with another digest than asked for are ContentMismatch."""
    async with played(lambda _: Say(body=b"{}", headers=(TYPE,))) as server, upstream(server) as client:
        with pytest.raises(ContentMismatch):
            await client.manifest(manifest_pull(DATA))


async def test_a_large_manifest_is_hashed_too() -> None:
    """Above 64 KiB as well, then off the loop; sha512 by its own name."""
    data = b'{"schemaVersion": 2, "manifests": [], "x": "' + b"x" * 100_000 + b'"}'
    pull = ManifestPull(repository=REPOSITORY, reference=Digest.of(data, "sha512"))
    async with played(lambda _: Say(body=data)) as server, upstream(server) as client:
        found = await client.manifest(pull)
    assert found.descriptor.digest == pull.reference
    assert found.descriptor.media_type == OCI_INDEX, "derived where the upstream names none"


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (Say(body=b"<html>", headers=(("Content-Type", "text/html"),)), "web page"),
        (Say(body=b"nonsense"), "no manifest"),
        (Say(206, DATA, (TYPE,)), "says 206"),
        (Say(204), "204"),
        (Say(body=bytes((16 << 20) + 1), headers=(TYPE,)), "more than"),
    ],
)
async def test_no_manifest(say: Say, words: str) -> None:
    """HTML, nonsense and too much are UpstreamBroken with the upstream's name."""
    async with played(lambda _: say) as server, upstream(server) as client:
        with pytest.raises(UpstreamBroken, match=words) as caught:
            await client.manifest(manifest_pull())
        assert server.host in caught.value.message


async def test_a_manifest_that_breaks_is_an_outage() -> None:
    """It is small: whoever balances asks for it again, whole."""
    async with played(lambda _: Say(body=DATA, cut=5, headers=(TYPE,))) as server, upstream(server) as client:
        with pytest.raises(UpstreamUnavailable, match="did not come whole"):
            await client.manifest(manifest_pull())


def head(*headers: tuple[str, str], **more: object) -> object:
    """HEAD tells so much; GET gives the manifest."""

    def play(asked: Asked) -> Say:
        if asked.method == "GET":
            return Say(body=DATA, headers=(TYPE,))
        return Say(headers=headers, **{"length": len(DATA), **more})  # type: ignore[arg-type]

    return play


TOLD = ("Docker-Content-Digest", str(DIGEST))


@pytest.mark.parametrize(
    ("play", "reference", "methods"),
    [
        (head(TYPE, TOLD), "1.0", ["HEAD"]),
        (head(TYPE), DATA, ["HEAD"]),
        (head(TYPE), "1.0", ["HEAD", "GET"]),
        (head(TYPE, ("Docker-Content-Digest", "sha256:no")), "1.0", ["HEAD", "GET"]),
        (head(TOLD), "1.0", ["HEAD", "GET"]),
        (head(TYPE, TOLD, length=None), "1.0", ["HEAD", "GET"]),
        (head(TYPE, TOLD, status=405), "1.0", ["HEAD", "GET"]),
    ],
)
async def test_resolve_asks_head_and_get_where_that_is_not_enough(
    play: object, reference: str | bytes, methods: list[str]
) -> None:
    """405, or a digest, length or type that HEAD does not tell: GET tells."""
    async with played(play) as server, upstream(server) as client:  # type: ignore[arg-type]
        found = await client.resolve(manifest_pull(reference))
        assert [asked.method for asked in server.ledger] == methods
    assert (found.descriptor.digest, found.descriptor.size) == (DIGEST, len(DATA))
    assert found.descriptor.media_type == OCI_INDEX


async def test_resolve_of_a_web_page() -> None:
    """A login page answers HEAD as well."""
    say = Say(body=b"<html>", headers=(("Content-Type", "text/html"), TOLD))
    async with played(lambda _: say) as server, upstream(server) as client:
        with pytest.raises(UpstreamBroken, match="web page"):
            await client.resolve(manifest_pull())


@pytest.mark.parametrize("refused", [False, True])
async def test_resolve_of_a_blob(*, refused: bool) -> None:
    """HEAD, or GET where HEAD is not served: its length, under the blobs' one type."""

    def play(asked: Asked) -> Say:
        return Say(405) if refused and asked.method == "HEAD" else Say(body=b"12345")

    async with played(play) as server, upstream(server) as client:
        found = (await client.resolve(blob_pull(b"12345"))).descriptor
        assert len(server.ledger) == 1 + refused
    assert (found.size, found.media_type) == (5, "application/octet-stream")


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, Denied), (404, BlobUnknown), (429, TooManyRequests), (503, UpstreamUnavailable)],
)
async def test_what_is_no_blob(status: int, error: type[RegistryError]) -> None:
    """Raised on entering, before there is a body."""
    async with played(lambda _: Say(status)) as server, upstream(server) as client:
        with pytest.raises(error, match=server.host):
            async with client.blob(blob_pull(b"x")):
                pass


async def test_absent_manifest() -> None:
    """404 to HEAD has no body to say more."""
    async with played(lambda _: Say(404)) as server, upstream(server) as client:
        with pytest.raises(ManifestUnknown):
            await client.resolve(manifest_pull())


@pytest.mark.parametrize("header", ["Bearer caller", "Basic Y2FsbGVyOnB3", ""])
async def test_a_callers_credential_is_passed_as_it_is(header: str) -> None:
    """No account of ours, no token flow: the 401 comes back with the upstream's values verbatim."""
    values = ('Bearer realm="http://127.0.0.1:1/t",scope="a"', "Basic realm=y")
    say = Say(401, headers=tuple(("WWW-Authenticate", value) for value in values))
    async with played(lambda _: say) as server, upstream(server, username="ours", password="pw") as client:
        with pytest.raises(Unauthorized) as caught:
            await client.resolve(manifest_pull(right=CallersOwn(Credential(header))))
        assert [asked.authorization for asked in server.ledger] == [header]
    assert caught.value.challenges == values


async def test_the_service_account_answers_a_challenge() -> None:
    """Challenge, token, again; the next pull begins with the token, and one 401 to it is renewed in flight."""
    refused: list[str] = []

    def play(asked: Asked) -> Say:
        if asked.target.startswith("/token"):
            number = sum(a.target.startswith("/token") for a in server.ledger)
            return Say(body=b'{"token": "t%d", "expires_in": 300}' % number)
        if asked.authorization in {"", *refused}:
            challenge = f'Bearer realm="{server.url}/token",service="s",scope="repository:team/app:pull"'
            return Say(401, headers=(("WWW-Authenticate", challenge),))
        return Say(body=b"12345")

    async with played(play) as server, upstream(server, username="ours", password="pw") as client:
        for _ in range(2):
            async with client.blob(blob_pull(b"12345")) as blob:
                assert await read(blob) == b"12345"
        shown = [a.authorization for a in server.ledger]
        assert shown == ["", "Basic b3Vyczpwdw==", "Bearer t1", "Bearer t1"]
        refused.append("Bearer t1")
        assert (await client.resolve(blob_pull(b"12345", right=SERVICE))).descriptor.size == 5
        shown = [a.authorization for a in server.ledger[4:]]
        assert shown == ["Bearer t1", "Basic b3Vyczpwdw==", "Bearer t2"]


async def test_a_token_that_expires_in_the_middle_of_a_body() -> None:
    """The resumed part is asked for with a new token, and the reader notices nothing."""
    data = b"x" * 50_000

    def play(asked: Asked) -> Say:
        if asked.target.startswith("/token"):
            number = sum(a.target.startswith("/token") for a in server.ledger)
            return Say(body=b'{"token": "t%d"}' % number)
        good = "Bearer t2" if asked.range else "Bearer t1"
        if asked.authorization != good:
            return Say(401, headers=(("WWW-Authenticate", f'Bearer realm="{server.url}/token"'),))
        return Say(body=data, cut=None if asked.range else 30_000)

    async with played(play) as server, upstream(server) as client, client.blob(blob_pull(data)) as blob:
        assert await read(blob) == data


async def test_a_fresh_token_refused_is_not_looped() -> None:
    """Two requests and one token, then the 401 is the answer."""

    def play(asked: Asked) -> Say:
        if asked.target.startswith("/token"):
            return Say(body=b'{"token": "t"}')
        return Say(401, headers=(("WWW-Authenticate", f'Bearer realm="{server.url}/token"'),))

    async with played(play) as server, upstream(server) as client:
        for _ in range(2):
            with pytest.raises(Unauthorized):
                await client.resolve(manifest_pull())
        assert len(server.ledger) == 6
