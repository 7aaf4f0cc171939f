"""Real clients pull from real registries through the cache, cold and warm, with logins and without."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stage import clients, images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.clients import Account, ClientFailedError
from tests.stage.engines import Containerd, Docker
from tests.stage.images import Image
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, registry
from tests.stage.tokens import TokenServer

ALICE = Account("alice", "s3cret")
BOB = Account("bob", "b0b-pass")


@dataclass(frozen=True, slots=True)
class Pair:
    """A registry behind tokens and the cache before it; the image is alice/app:1 and public/app:1."""

    upstream: RunningRegistry
    cache: RunningCache
    image: Image

    def reference(self, repository: str) -> str:
        """Of the image, through the cache."""
        return f"{self.cache.host}/{repository}:1"


@pytest.fixture
async def pair(tmp_path: Path, tokens: TokenServer, any_registry: Kind) -> AsyncIterator[Pair]:
    """Both registries in turn, each behind the token server."""
    image = images.simple_image(3, seed=any_registry is Kind.V3)
    async with registry(any_registry, tmp_path / "registry", tokens=tokens) as upstream:
        await push(upstream.url, "alice/app", image, "1", user=ALICE.user, password=ALICE.password)
        await push(upstream.url, "public/app", image, "1", user=BOB.user, password=BOB.password)
        async with cache(tmp_path / "cache", {"url": upstream.url}) as running:
            yield Pair(upstream, running, image)


def _files(folder: Path) -> set[str]:
    return {f"sha256:{file.name}" for file in folder.rglob("*") if len(file.name) == 64}


async def test_every_client_gets_a_public_image(
    tmp_path: Path, pair: Pair, docker: Docker, containerd: Containerd
) -> None:
    """skopeo pulls cold; crane, buildah, docker and containerd warm: no blob leaves the upstream twice."""
    reference, image = pair.reference("public/app"), pair.image
    copied = await clients.skopeo_copy(reference, tmp_path / "cold")
    assert set(image.all_blobs()) <= _files(copied)

    assert set(image.all_blobs()) <= _files(await clients.crane_pull(reference, tmp_path / "crane"))
    assert await clients.buildah_pull(reference, tmp_path / "buildah") == image.blobs[0].digest[7:]
    assert await docker.pull(reference) == image.digest
    assert await docker.layers(reference) == [layer.diff_id for layer in image.layers]
    await docker.forget(reference)
    name = "registry.example.test/public/app:1"
    await containerd.pull(name, hosts={"registry.example.test": pair.cache.url})
    assert {*image.all_blobs(), image.digest} <= set(await containerd.blobs())
    await containerd.forget(name)

    asked = pair.upstream.requests()
    for digest in image.all_blobs():
        assert asked.count(f"GET /v2/public/app/blobs/{digest}") == 1


async def test_logins_decide_cold_and_warm(
    tmp_path: Path, pair: Pair, docker: Docker, containerd: Containerd
) -> None:
    """The owner pulls with every client; another account, nobody and a wrong password never do."""
    reference = pair.reference("alice/app")
    strangers = (BOB, None, Account("alice", "wrong"))
    for account in strangers:
        with pytest.raises(ClientFailedError, match=r"(?i)unauthorized|denied|401|403"):
            await clients.crane_digest(reference, tmp_path / "before", account=account)
    await clients.skopeo_copy(reference, tmp_path / "cold", account=ALICE)
    await clients.crane_pull(reference, tmp_path / "warm", account=ALICE)
    assert await docker.pull(reference, account=ALICE) == pair.image.digest
    await docker.forget(reference)
    await containerd.pull(reference, hosts={pair.cache.host: pair.cache.url}, account=ALICE)
    await containerd.forget(reference)
    for account in strangers:
        with pytest.raises(ClientFailedError, match=r"(?i)unauthorized|denied|401|403"):
            await clients.crane_digest(reference, tmp_path / "after", account=account)
