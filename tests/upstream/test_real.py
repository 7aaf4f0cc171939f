"""Real registries as upstreams: open, Basic, tokens of our own token server, and TLS with a private CA."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.oci.digest import Digest
from msrcache.oci.errors import BlobUnknown, ManifestUnknown, RangeInvalid, Unauthorized
from msrcache.oci.names import Repository, Tag
from msrcache.oci.pulls import BlobPull, Catalog, ManifestPull, Ping, TagsList
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import SERVICE, Credential, Right
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.balance import Balanced
from msrcache.upstream.client import Upstream
from msrcache.upstream.settings import UpstreamSettings
from tests.stage.images import Image, simple_image
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, registry
from tests.stage.tokens import TokenServer
from tests.upstream.played import CallersOwn, read

pytestmark = pytest.mark.real

APP = Repository.parse("alice/app")
ALICE = {"username": "alice", "password": "s3cret"}


@asynccontextmanager
async def client(running: RunningRegistry, **settings: object) -> AsyncIterator[Balanced]:
    """What assembly builds: one upstream, balanced."""
    ca = (running.authority.bundle,) if running.authority else ()
    given = UpstreamSettings(url=running.url, ca=ca, **settings)  # type: ignore[arg-type]
    metrics, clock = Metrics(), SystemClock()
    balanced = Balanced([Upstream(given, metrics=metrics, clock=clock)], metrics=metrics, clock=clock)
    try:
        yield balanced
    finally:
        await balanced.close()


async def pulled_whole(upstream: Balanced, image: Image, right: Right = SERVICE) -> None:
    """The image by its tag, every blob whole, and a range of one."""
    pull = ManifestPull(repository=APP, reference=Tag.parse("1.0"), right=right)
    manifest = await upstream.manifest(pull)
    assert str(manifest.descriptor.digest) == image.digest
    assert (await upstream.resolve(pull)).descriptor == manifest.descriptor
    for digest, content in image.all_blobs().items():
        blob_pull = BlobPull(repository=APP, digest=Digest.parse(digest), right=right)
        async with upstream.blob(blob_pull) as blob:
            assert await read(blob) == content.bytes()
        assert (await upstream.resolve(blob_pull)).descriptor.size == content.size


@pytest.mark.parametrize("tls", [False, True])
async def test_basic(any_registry: Kind, tmp_path: Path, *, tls: bool) -> None:
    """The service account by Basic, plain and behind a private CA; a caller's own header too."""
    image = simple_image()
    async with registry(any_registry, tmp_path, basic=True, tls=tls) as running:
        bundle = running.authority.bundle if running.authority else None
        await push(running.url, "alice/app", image, "1.0", user="alice", password="s3cret", bundle=bundle)
        async with client(running, **ALICE) as upstream:
            await pulled_whole(upstream, image)
            await pulled_whole(upstream, image, CallersOwn(Credential("Basic YWxpY2U6czNjcmV0")))
            with pytest.raises(Unauthorized) as caught:
                await upstream.relay(Ping(right=CallersOwn()))
    assert caught.value.challenges == ('Basic realm="test registry"',)


async def test_tokens(any_registry: Kind, tokens: TokenServer, tmp_path: Path) -> None:
    """The token flow: one token for each repository and purpose, however many requests."""
    image = simple_image()
    async with registry(any_registry, tmp_path, tokens=tokens) as running:
        await push(running.url, "alice/app", image, "1.0", user="alice", password="s3cret")
        tokens.ledger.clear()
        async with client(running, **ALICE) as upstream:
            await pulled_whole(upstream, image)
            assert [asked.scopes for asked in tokens.ledger] == [("repository:alice/app:pull",)]
            assert b"1.0" in (await upstream.relay(TagsList(repository=APP))).body
            assert b"alice/app" in (await upstream.relay(Catalog())).body
            assert (await upstream.relay(Ping())).status == 200
        async with client(running) as nobody:
            with pytest.raises(Unauthorized) as caught:
                await nobody.manifest(ManifestPull(repository=APP, reference=Tag.parse("1.0")))
    assert f'realm="{tokens.realm}"' in caught.value.challenges[0]


async def test_ranges_and_refusals(open_registry: RunningRegistry) -> None:
    """A real registry's 206, 416 and 404."""
    image = simple_image()
    await push(open_registry.url, "alice/app", image, "1.0")
    digest, content = next(iter(image.all_blobs().items()))
    parsed = Digest.parse(digest)
    async with client(open_registry) as upstream:
        pull = BlobPull(repository=APP, digest=parsed, range=RangeRequest(3, 9))
        async with upstream.blob(pull) as blob:
            assert await read(blob) == content.bytes()[3:10]
        with pytest.raises(RangeInvalid):
            async with upstream.blob(
                BlobPull(repository=APP, digest=parsed, range=RangeRequest(1 << 40, None))
            ):
                pass
        with pytest.raises(BlobUnknown):
            await upstream.resolve(BlobPull(repository=APP, digest=Digest.of(b"absent")))
        with pytest.raises(ManifestUnknown):
            await upstream.manifest(ManifestPull(repository=APP, reference=Tag.parse("absent")))
