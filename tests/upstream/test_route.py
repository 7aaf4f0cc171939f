"""Where a request is sent on to, and what it takes along: never a credential to another origin."""

import asyncio
import ssl
from pathlib import Path

import pytest

from msrcache.oci.errors import RegistryError, UpstreamBroken, UpstreamUnavailable
from msrcache.oci.pulls import Catalog
from msrcache.oci.registry import SERVICE, Credential, Right
from tests.stage.certificates import authority
from tests.upstream.played import (
    Asked,
    CallersOwn,
    Say,
    Waits,
    blob_pull,
    byte_ranges,
    manifest_pull,
    played,
    read,
    upstream,
)

DATA = b"layer" * 1000
OURS = CallersOwn(Credential("Bearer callers-own"))


def to(url: str, status: int = 307) -> Say:
    """A redirect."""
    return Say(status, headers=(("Location", url),))


@pytest.mark.parametrize("right", [OURS, SERVICE])
async def test_trap_1_a_redirect_never_hands_our_token_to_the_storage_host(right: Right) -> None:
    """Neither the caller's credential nor the account's token reaches the object store of a redirect."""

    def registry(asked: Asked) -> Say:
        if asked.target.startswith("/token"):
            return Say(body=b'{"token": "ours"}')
        if not asked.authorization:
            return Say(401, headers=(("WWW-Authenticate", f'Bearer realm="{home.url}/token"'),))
        return to(f"{bucket.url}/object?X-Signature=a%2Fb%3D&y=%7E")

    async with (
        played(lambda asked: byte_ranges(DATA, asked)) as bucket,
        played(registry) as home,
        upstream(home, username="ours", password="pw") as client,
        client.blob(blob_pull(DATA, right=right)) as blob,
    ):
        assert await read(blob) == DATA
        assert bucket.asked() == ["GET /object?X-Signature=a%2Fb%3D&y=%7E"], (
            "a signed address is sent as it is"
        )
        assert not any("auth" in name or name == "cookie" for name in bucket.ledger[0].headers)
        assert home.ledger[-1].authorization in {"Bearer callers-own", "Bearer ours"}


async def test_a_redirect_within_the_origin_keeps_the_credential() -> None:
    """Also one that comes back from elsewhere."""

    def registry(asked: Asked) -> Say:
        match asked.target:
            case "/here":
                return to(f"{other.url}/there")
            case "/back":
                return Say(body=DATA)
        return to("/here", 302)

    async with (
        played(lambda _: to(f"{home.url}/back")) as other,
        played(registry) as home,
        upstream(home) as client,
        client.blob(blob_pull(DATA, right=OURS)) as blob,
    ):
        assert await read(blob) == DATA
        assert [a.authorization for a in home.ledger] == ["Bearer callers-own"] * 3
        assert [a.authorization for a in other.ledger] == [""]


async def test_a_bucket_that_breaks_is_found_anew() -> None:
    """The body is resumed by asking the registry again: the old address may have expired."""

    def bucket_play(asked: Asked) -> Say:
        return byte_ranges(DATA, asked) if asked.range else Say(body=DATA, cut=100)

    async with (
        played(bucket_play) as bucket,
        played(lambda _: to(f"{bucket.url}/{len(home.ledger)}")) as home,
        upstream(home) as client,
        client.blob(blob_pull(DATA)) as blob,
    ):
        assert await read(blob) == DATA
        assert [(a.target, a.range) for a in bucket.ledger] == [("/1", ""), ("/2", "bytes=100-")]


async def test_ten_redirects_and_no_more() -> None:
    """The eleventh is one too many."""

    def play(asked: Asked) -> Say:
        hop = int(asked.target.rpartition("/")[2]) if asked.target.startswith("/hop") else 0
        return Say(body=DATA) if hop == limit else to(f"/hop/{hop + 1}")

    async with played(play) as server, upstream(server) as client:
        limit = 10
        async with client.blob(blob_pull(DATA)) as blob:
            assert await read(blob) == DATA
        limit = 11
        with pytest.raises(UpstreamBroken, match="more than 10"):
            await client.resolve(blob_pull(DATA))


@pytest.mark.parametrize("location", ["", "ftp://x/y", "http://", "http://[", "file:///etc/passwd", "//"])
async def test_a_redirect_to_nowhere(location: str) -> None:
    """Nonsense and other schemes are UpstreamBroken."""
    async with played(lambda _: to(location)) as server, upstream(server) as client:
        with pytest.raises(UpstreamBroken, match=server.host):
            await client.resolve(blob_pull(DATA))


async def test_http_after_https_is_refused(tmp_path: Path) -> None:
    """A redirect never takes a pull from TLS to plain text."""
    ca = authority(tmp_path)
    pair = ca.issue("registry")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    async with (
        played(lambda _: Say(body=DATA)) as bucket,
        played(lambda _: to(f"{bucket.url}/x"), tls=context) as home,
        upstream(home, ca=(ca.bundle,)) as client,
    ):
        with pytest.raises(UpstreamBroken, match="https to plain http"):
            await client.resolve(blob_pull(DATA))
        assert bucket.ledger == []


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, UpstreamBroken), (404, UpstreamBroken), (401, UpstreamBroken), (503, UpstreamUnavailable)],
)
async def test_a_bucket_says_nothing_about_the_caller(status: int, error: type[RegistryError]) -> None:
    """Its refusals are the registry's fault, not Denied or BlobUnknown; its 401 is not answered."""
    async with (
        played(lambda _: Say(status, headers=(("WWW-Authenticate", "Basic realm=x"),))) as bucket,
        played(lambda _: to(f"{bucket.url}/x")) as home,
        upstream(home, username="ours", password="pw") as client,
    ):
        with pytest.raises(error, match=r"sent us to 127\.0\.0\.1"):
            await client.resolve(blob_pull(DATA))
        assert len(bucket.ledger) == 1


async def test_pulls_that_wait_for_a_token_do_not_starve_it() -> None:
    """With every connection taken by a pull that needs a token, the token is fetched all the same."""

    def play(asked: Asked) -> Say:
        if asked.target.startswith("/token"):
            return Say(body=b'{"token": "t"}')
        if not asked.authorization:
            return Say(401, headers=(("WWW-Authenticate", f'Bearer realm="{server.url}/token"'),))
        return Say(
            headers=(("Content-Type", "m"), ("Docker-Content-Digest", str(blob_pull(DATA).digest))), length=7
        )

    async with played(play) as server, upstream(server, connections=2, sleep=Waits()) as client:
        found = await asyncio.gather(*(client.resolve(manifest_pull()) for _ in range(6)))
        assert len(found) == 6
        assert sum(a.target.startswith("/token") for a in server.ledger) == 1


async def test_a_mirror_of_several_registries_is_told_which_is_meant() -> None:
    """The configured namespace goes with every request to the upstream, behind a query of its own, and nowhere else."""

    def registry(asked: Asked) -> Say:
        if "/blobs/" in asked.target:
            return to(f"{bucket.url}/object?x=1")
        return Say(body=b'{"repositories": []}')

    async with (
        played(lambda asked: byte_ranges(DATA, asked)) as bucket,
        played(registry) as home,
        upstream(home, namespace="registry.example.com:5000") as client,
    ):
        async with client.blob(blob_pull(DATA)) as blob:
            assert await read(blob) == DATA
        await client.relay(Catalog(n=5, namespace="evil.example.com"))
        digest = blob_pull(DATA).digest
        assert home.asked() == [
            f"GET /v2/team/app/blobs/{digest}?ns=registry.example.com:5000",
            "GET /v2/_catalog?n=5&ns=registry.example.com:5000",
        ]
        assert bucket.asked() == ["GET /object?x=1"]


async def test_what_a_client_names_is_not_passed_on() -> None:
    """A caller's own ?ns= decides nothing: the upstream is asked without one."""
    async with played(lambda asked: Say(body=b'{"repositories": []}')) as home, upstream(home) as client:
        await client.relay(Catalog(n=5, namespace="evil.example.com"))
        assert home.asked() == ["GET /v2/_catalog?n=5"]
