"""A private image and each client alone: refused without, with a wrong and with another's login, cold and warm."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
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

pytestmark = pytest.mark.real

ALICE = Account("alice", "s3cret")
REFUSED = {"nobody": None, "wrong": Account("alice", "wrong"), "another": Account("bob", "b0b-pass")}
SEEDS = itertools.count(900)

Pull = Callable[[str, Path, Account | None], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Private:
    """Alice's image behind the cache, never pulled so far."""

    upstream: RunningRegistry
    cache: RunningCache
    image: Image

    @property
    def reference(self) -> str:
        """Through the cache."""
        return f"{self.cache.host}/alice/app:1"

    def fetched(self) -> list[str]:
        """Blobs that left the upstream."""
        return [line for line in self.upstream.requests() if line.startswith("GET") and "/blobs/" in line]

    async def tried(self, pull: Pull, folder: Path) -> None:
        """Everybody but Alice is refused, cold; then she pulls; then everybody else is refused, warm."""
        for turn in ("cold", "warm"):
            before = self.fetched()
            for name, account in REFUSED.items():
                with pytest.raises(
                    ClientFailedError, match=r"(?i)unauthorized|denied|401|403|authentication"
                ):
                    await pull(self.reference, folder / turn / name, account)
            assert self.fetched() == before, "who is refused costs the upstream no byte"
            await pull(self.reference, folder / turn / "alice", ALICE)
        expected = sorted(f"GET /v2/alice/app/blobs/{digest}" for digest in self.image.all_blobs())
        assert sorted(self.fetched()) == expected, "once, for Alice's first pull"
        said = self.cache.process.said(1_000_000)
        assert ALICE.password not in said
        assert "Traceback" not in said


@pytest.fixture
async def private(tmp_path: Path, tokens: TokenServer) -> AsyncIterator[Private]:
    """Debian's docker-registry behind our token server; nothing that an engine of this run may have by now."""
    image = images.simple_image(2, seed=next(SEEDS))
    async with registry(Kind.V2, tmp_path / "registry", tokens=tokens) as upstream:
        await push(upstream.url, "alice/app", image, "1", user=ALICE.user, password=ALICE.password)
        settings = {"access": {"failures": {"perminute": 0}}}
        async with cache(tmp_path / "cache", {"url": upstream.url}, settings=settings) as running:
            yield Private(upstream, running, image)


async def _skopeo(reference: str, folder: Path, account: Account | None) -> None:
    await clients.skopeo_copy(reference, folder, account=account)


async def _crane(reference: str, folder: Path, account: Account | None) -> None:
    await clients.crane_pull(reference, folder, account=account)


async def _buildah(reference: str, folder: Path, account: Account | None) -> None:
    await clients.buildah_pull(reference, folder, account=account)


@pytest.mark.parametrize("pull", [_skopeo, _crane, _buildah], ids=["skopeo", "crane", "buildah"])
async def test_a_client_without_a_daemon(tmp_path: Path, private: Private, pull: Pull) -> None:
    """skopeo, crane and buildah."""
    await private.tried(pull, tmp_path / "client")


async def test_docker(tmp_path: Path, private: Private, docker: Docker) -> None:
    """docker login decides what docker pull gets."""

    async def pull(reference: str, _: Path, account: Account | None) -> None:
        try:
            assert await docker.pull(reference, account=account) == private.image.digest
            assert await docker.layers(reference) == [layer.diff_id for layer in private.image.layers]
        finally:
            await docker.forget(reference)

    await private.tried(pull, tmp_path)


async def test_containerd(tmp_path: Path, private: Private, containerd: Containerd) -> None:
    """ctr with --user, or without."""

    async def pull(reference: str, _: Path, account: Account | None) -> None:
        await containerd.pull(reference, hosts={private.cache.host: private.cache.url}, account=account)
        assert {*private.image.all_blobs(), private.image.digest} <= set(await containerd.blobs())
        await containerd.forget(reference)

    await private.tried(pull, tmp_path)
