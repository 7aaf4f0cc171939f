"""Signatures and other artifacts of an image through the cache: the referrers API, and the tag in its place."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from tests.stage import clients, images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.images import OCI_INDEX, Image, digest_of
from tests.stage.scripted import REPOSITORY, Request, Scripted, Turn, scripted

SUBJECT = images.simple_image(1, seed=41)
SIGNATURE = images.artifact(SUBJECT)
SBOM = images.artifact(SUBJECT, b"sbom", "application/vnd.test.sbom")
REFERRERS = f"/v2/{REPOSITORY}/referrers/"


def _entry(made: Image) -> dict[str, object]:
    kind = json.loads(made.manifest.bytes())["artifactType"]
    return made.manifest.descriptor(artifactType=kind)


def _index(*made: Image) -> bytes:
    manifests = [_entry(one) for one in made]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


def _api(request: Request) -> Turn | None:
    """The referrers API of a registry: filters, and a second page by a parameter of its own."""
    parts = urlsplit(request.path)
    if not parts.path.startswith(REFERRERS):
        return None
    query = parse_qs(parts.query)
    headers = [("Content-Type", OCI_INDEX)]
    if not parts.path.endswith(SUBJECT.digest):
        return Turn(body=_index(), headers=tuple(headers))
    if kinds := query.get("artifactType"):
        headers.append(("OCI-Filters-Applied", "artifactType"))
        made = [one for one in (SIGNATURE, SBOM) if _entry(one)["artifactType"] == kinds[0]]
        return Turn(body=_index(*made), headers=tuple(headers))
    if query.get("nextToken") == ["a/b=="]:
        return Turn(body=_index(SBOM), headers=tuple(headers))
    headers.append(("Link", f'<http://registry.example{parts.path}?nextToken=a%2Fb%3D%3D>; rel="next"'))
    return Turn(body=_index(SIGNATURE), headers=tuple(headers))


def _publish(server: Scripted, made: Image, tag: str) -> None:
    for blob in made.blobs:
        server.publish_blob(blob.bytes())
    server.publish_manifest(made.manifest.bytes(), made.manifest.media_type, tag)


@dataclass(frozen=True, slots=True)
class Pair:
    """The upstream, with an image and its signature, and the cache before it."""

    upstream: Scripted
    cache: RunningCache

    def url(self, digest: str, query: str = "") -> str:
        """Of the referrers of a digest, at the cache."""
        return f"{self.cache.url}{REFERRERS}{digest}{query}"


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """A scripted upstream and a cache process."""
    async with scripted() as upstream:
        _publish(upstream, SUBJECT, "1")
        _publish(upstream, SIGNATURE, SUBJECT.digest.replace(":", "-"))
        async with cache(tmp_path / "cache", {"url": upstream.url}) as running:
            yield Pair(upstream, running)


async def _listed(session: aiohttp.ClientSession, url: str) -> tuple[list[str], aiohttp.ClientResponse]:
    async with session.get(url) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == OCI_INDEX
        return [one["digest"] for one in json.loads(await answer.read())["manifests"]], answer


async def test_a_list_of_several_pages_ends(pair: Pair) -> None:
    """The Link leads to the cache, and what only the upstream understands in it comes back to the upstream."""
    pair.upstream.guard = _api
    async with aiohttp.ClientSession() as session:
        first, answer = await _listed(session, pair.url(SUBJECT.digest))
        following = answer.links["next"]["url"]
        assert str(following).startswith(pair.cache.url)
        second, answer = await _listed(session, str(following))
        assert "next" not in answer.links
    assert (first, second) == ([SIGNATURE.digest], [SBOM.digest])


async def test_a_filter_is_the_upstreams(pair: Pair) -> None:
    """The artifact type arrives, and that it was applied is told; an unknown subject has an empty list."""
    pair.upstream.guard = _api
    async with aiohttp.ClientSession() as session:
        query = "?artifactType=application%2Fvnd.test.sbom"
        digests, answer = await _listed(session, pair.url(SUBJECT.digest, query))
        assert digests == [SBOM.digest]
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
        assert (await _listed(session, pair.url(digest_of(b"nobody's"))))[0] == []


async def test_a_list_is_never_kept(pair: Pair) -> None:
    """A signature that is new at the upstream is seen at once: each question is the upstream's to answer."""
    grown = _index(SIGNATURE, SBOM)
    turns = [Turn(body=body, headers=(("Content-Type", OCI_INDEX),)) for body in (_index(SIGNATURE), grown)]
    pair.upstream.script(f"{REFERRERS}{SUBJECT.digest}", *turns)
    async with aiohttp.ClientSession() as session:
        assert (await _listed(session, pair.url(SUBJECT.digest)))[0] == [SIGNATURE.digest]
        assert (await _listed(session, pair.url(SUBJECT.digest)))[0] == [SIGNATURE.digest, SBOM.digest]


async def test_without_that_api_the_tag_in_its_place(tmp_path: Path, pair: Pair) -> None:
    """An upstream of before 1.1 says 404, so does the cache; the client's sha256-… tag is pulled as any other."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(pair.url(SUBJECT.digest)) as answer,
    ):
        assert answer.status == 404
        assert (await answer.json())["errors"]
    reference = f"{pair.cache.host}/{REPOSITORY}:{SUBJECT.digest.replace(':', '-')}"
    for turn in ("cold", "warm"):
        assert await clients.crane_digest(reference, tmp_path / turn) == SIGNATURE.digest
        await clients.crane_pull(reference, tmp_path / turn)
    blobs = [line for line in pair.upstream.lines if line.startswith("GET") and "/blobs/" in line]
    assert sorted(blobs) == sorted(f"GET /v2/{REPOSITORY}/blobs/{digest}" for digest in SIGNATURE.all_blobs())
