"""Who may read what, while things are under way and while the upstream is away."""

import json
from pathlib import Path

from msrcache.oci.digest import Digest
from tests.scenarios.plays import Got, cache, following, pull, pulling, settled
from tests.stage.images import noise
from tests.stage.scripted import REPOSITORY, Hold, Request, Turn, scripted

DATA = noise(200_000, 3)
K = 90_000
CHALLENGE = 'Bearer realm="https://token.example.com/auth",service="registry"'
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": f"sha256:{'0' * 64}",
            "size": 2,
        },
        "layers": [],
    }
).encode()
UNAUTHORIZED = Turn(status=401, body=b"{}", headers=(("WWW-Authenticate", CHALLENGE),))
DENIED = Turn(status=403, body=b'{"errors":[{"code":"DENIED"}]}')
SHORT = "  upstream: {retries: 0}\n"


def guard(request: Request) -> Turn | None:
    """Alice may, Bob is denied, everybody else has to log in."""
    match request.authorization:
        case "Bearer alice":
            return None
        case "Bearer bob":
            return DENIED
        case _:
            return UNAUTHORIZED


def tells_nothing(got: Got) -> bool:
    """Neither bytes nor a header about the content."""
    told = {"x-cache", "docker-content-digest", "etag", "content-range", "accept-ranges", "last-modified"}
    return not told & set(got.headers) and b'"errors"' in got.body and len(got.body) < 2000


def said(got: Got) -> tuple[str, str]:
    """The error that a refusal tells, without the request's own id."""
    (error,) = json.loads(got.body)["errors"]
    return error["code"], error["message"]


async def test_a_flight_gives_no_rights(tmp_path: Path) -> None:
    """While Alice's fill holds at byte k, Bob gets his 403 and a stranger the upstream's 401, and not a byte."""
    async with scripted() as upstream, cache(tmp_path, upstream, mode="upstream") as application:
        upstream.guard = guard
        path = upstream.publish_blob(DATA)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold))
        async with pulling(application, path, Authorization="Bearer alice") as alice:
            assert await alice.take(K) == DATA[:K]
            for method in ("GET", "HEAD"):
                bob = await pull(application, path, method=method, Authorization="Bearer bob")
                stranger = await pull(application, path, method=method)
                assert (bob.status, stranger.status) == (403, 401)
                assert stranger.headers["www-authenticate"] == CHALLENGE
                assert method == "HEAD" or (tells_nothing(bob) and tells_nothing(stranger))
            hold.go.set()
            assert await alice.rest() == DATA[K:]
        assert upstream.lines == [f"GET {path}"] + [f"HEAD {path}"] * 4


async def test_a_refused_opener_spoils_nobodys_flight(tmp_path: Path) -> None:
    """Bob's refused fill is his alone: Alice, after him, gets the blob by a fill of her own."""
    async with scripted() as upstream, cache(tmp_path, upstream, mode="upstream") as application:
        upstream.guard = guard
        path = upstream.publish_blob(DATA)
        bob = await pull(application, path, Authorization="Bearer bob")
        alice = await pull(application, path, Authorization="Bearer alice")
        assert (bob.status, alice.status, alice.body) == (403, 200, DATA)
        assert tells_nothing(bob)
        assert upstream.lines == [f"GET {path}"] * 2


async def test_a_stored_blob_is_no_secret_told(tmp_path: Path) -> None:
    """What is stored and what is not look alike to one who may not read: same status, headers and body."""
    async with scripted() as upstream, cache(tmp_path, upstream, mode="upstream") as application:
        upstream.guard = guard
        path = upstream.publish_blob(DATA)
        absent = f"/v2/{REPOSITORY}/blobs/{Digest.of(b'never published')}"
        assert (await pull(application, path, Authorization="Bearer alice")).body == DATA
        await settled(application)
        for wanted in ({}, {"Range": "bytes=0-9"}, {"Range": f"bytes={len(DATA)}-"}):
            here = await pull(application, path, Authorization="Bearer bob", **wanted)
            away = await pull(application, absent, Authorization="Bearer bob", **wanted)
            assert (here.status, away.status) == (403, 403)
            assert said(here) == said(away)
            assert set(here.headers) == set(away.headers)
            assert tells_nothing(here)


async def test_a_digest_guessed_in_another_repository_is_asked_about(tmp_path: Path) -> None:
    """A caller names, where it may read, a digest of another repository: the upstream's 404, stored or filling."""
    async with scripted() as upstream, cache(tmp_path, upstream, mode="upstream") as application:
        upstream.guard = guard
        path = upstream.publish_blob(DATA)
        mine = upstream.publish_blob(b"mine", "alice/own")
        guessed = f"/v2/alice/own/blobs/{Digest.of(DATA)}"
        assert (await pull(application, mine, Authorization="Bearer alice")).body == b"mine"
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold))
        async with pulling(application, path, Authorization="Bearer alice") as other:
            await other.take(K)
            while_filling = await pull(application, guessed, Authorization="Bearer alice")
            hold.go.set()
            await other.rest()
        await settled(application)
        when_stored = await pull(application, guessed, Authorization="Bearer alice")
        for got in (while_filling, when_stored):
            assert got.status == 404
            assert tells_nothing(got)


async def test_with_the_upstream_away_a_yes_counts_for_a_while(tmp_path: Path) -> None:
    """The upstream is away: who had a yes gets the stored blob within grace, who had none gets 503, never bytes."""
    async with scripted() as upstream:
        upstream.guard = guard
        path = upstream.publish_blob(DATA)
        async with cache(tmp_path, upstream, mode="upstream", more=SHORT) as application:
            assert (await pull(application, path, Authorization="Bearer alice")).body == DATA
            await settled(application)
            await upstream.stop()
            alice = await pull(application, path, Authorization="Bearer alice")
            bob = await pull(application, path, Authorization="Bearer bob")
        assert (alice.status, alice.body) == (200, DATA)
        assert bob.status == 503
        assert tells_nothing(bob)


async def test_a_stale_tag_is_served_to_whom_it_was_and_said_to_be(tmp_path: Path) -> None:
    """The upstream is away: the last known manifest of a tag, marked stale, for a caller within grace only."""
    async with scripted() as upstream:
        upstream.guard = guard
        path = upstream.publish_manifest(MANIFEST, MANIFEST_TYPE, "1")
        async with cache(tmp_path, upstream, mode="upstream", more=SHORT) as application:
            assert (await pull(application, path, Authorization="Bearer alice")).body == MANIFEST
            await settled(application)
            await upstream.stop()
            stale = await pull(application, path, Authorization="Bearer alice")
            refused = await pull(application, path, Authorization="Bearer bob")
        assert (stale.status, stale.body, stale.headers["x-cache"]) == (200, MANIFEST, "stale")
        assert refused.status == 503
        assert tells_nothing(refused)


async def test_a_warm_tag_costs_one_head(tmp_path: Path) -> None:
    """Cold: the tag's HEAD and the manifest's bytes. Warm: one HEAD in all, and it is the caller's verdict too."""
    async with scripted() as upstream, cache(tmp_path, upstream, mode="upstream") as application:
        path = upstream.publish_manifest(MANIFEST, MANIFEST_TYPE, "1")
        await pull(application, path)
        await settled(application)
        by_digest = f"/v2/{REPOSITORY}/manifests/{Digest.of(MANIFEST)}"
        assert upstream.lines == [f"HEAD {path}", f"GET {by_digest}"]
        assert (await pull(application, path)).body == MANIFEST
        assert (await pull(application, by_digest)).body == MANIFEST
        assert upstream.lines[2:] == [f"HEAD {path}"]


async def test_an_opener_whose_credential_ends_costs_the_joiner_nothing(tmp_path: Path) -> None:
    """The opener's token ends in mid-pull (401 at the resumption): the joiner goes on with its own."""
    async with scripted() as upstream, cache(tmp_path, upstream, mode="upstream") as application:
        path = upstream.publish_blob(DATA)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold, cut=K + 1000))
        ended = set[str]()
        upstream.guard = lambda request: UNAUTHORIZED if request.authorization in ended else None
        async with pulling(application, path, Authorization="Bearer opener") as opener:
            assert await opener.take(K) == DATA[:K]
            async with pulling(application, path, Authorization="Bearer joiner") as joiner:
                assert await joiner.take(K) == DATA[:K]
                await following(application, 2)
                ended.add("Bearer opener")
                hold.go.set()
                assert await joiner.rest() == DATA[K:]
            assert len(await opener.rest()) < len(DATA) - K
        assert upstream.ledger[-1].authorization in {"Bearer joiner", "Bearer opener"}
