"""The stage itself: every real client pulls from every real registry, without a cache between them."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.stage import clients, images
from tests.stage.clients import Account, ClientFailedError
from tests.stage.engines import Containerd, Docker
from tests.stage.process import NotReadyError, running
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, registry
from tests.stage.tokens import USERS, TokenServer

pytestmark = pytest.mark.real
ALICE = Account("alice", USERS["alice"])
BOB = Account("bob", USERS["bob"])


def blobs_in(folder: Path) -> set[str]:
    """The digests of the files that skopeo wrote, by their bytes."""
    return {"sha256:" + hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.mark.parametrize("flavour", ["oci", "docker"])
async def test_every_client_pulls(
    tmp_path: Path, open_registry: RunningRegistry, docker: Docker, containerd: Containerd, flavour: str
) -> None:
    """What was pushed is what skopeo, crane, buildah, docker and containerd get, in both formats."""
    image = images.simple_image(3, flavour=flavour)
    await push(open_registry.url, "lib/simple", image, "1")
    reference = f"{open_registry.host}/lib/simple:1"

    copied = await clients.skopeo_copy(reference, tmp_path / "skopeo")
    assert set(image.all_blobs()) <= blobs_in(copied)
    assert (await clients.skopeo_inspect(reference, tmp_path / "skopeo"))["Digest"] == image.digest

    layout = await clients.crane_pull(reference, tmp_path / "crane")
    assert blobs_in(layout / "blobs/sha256") >= {*image.all_blobs(), image.digest}
    assert await clients.crane_manifest(reference, tmp_path / "crane") == image.manifest.bytes().decode()
    assert await clients.crane_digest(reference, tmp_path / "crane") == image.digest

    assert await clients.buildah_pull(reference, tmp_path / "buildah") == image.blobs[0].digest[7:]

    assert await docker.pull(reference) == image.digest
    assert await docker.layers(reference) == [layer.diff_id for layer in image.layers]
    await docker.forget(reference)

    name = "registry.example.test/lib/simple:1"
    await containerd.pull(name, hosts={"registry.example.test": open_registry.url})
    assert {*image.all_blobs(), image.digest} <= set(await containerd.blobs())
    await containerd.forget(name)
    assert "GET /v2/lib/simple/manifests/1" in open_registry.requests()


async def test_tokens_decide(tmp_path: Path, tokens: TokenServer, any_registry: Kind) -> None:
    """Behind tokens: an account reads its own, nobody else's; anybody reads what is public."""
    image = images.simple_image(1)
    async with registry(any_registry, tmp_path / "registry", tokens=tokens) as upstream:
        await push(upstream.url, "alice/app", image, "1", user=ALICE.user, password=ALICE.password)
        await push(upstream.url, "public/app", image, "1", user=BOB.user, password=BOB.password)
        own, public = f"{upstream.host}/alice/app:1", f"{upstream.host}/public/app:1"

        assert await clients.crane_digest(own, tmp_path / "alice", account=ALICE) == image.digest
        assert await clients.crane_digest(public, tmp_path / "nobody") == image.digest
        for account in (BOB, None, Account("alice", "wrong")):
            with pytest.raises(ClientFailedError, match=r"UNAUTHORIZED|DENIED|401|403"):
                await clients.crane_digest(own, tmp_path / "refused", account=account)
        await clients.skopeo_copy(own, tmp_path / "skopeo", account=ALICE)
    assert {asked.account for asked in tokens.ledger} == {"alice", "bob", ""}


async def test_engines_log_in_with_tokens(
    tmp_path: Path, tokens: TokenServer, docker: Docker, containerd: Containerd
) -> None:
    """docker and containerd find the token server by the challenge and pull a private image."""
    image = images.simple_image(2, seed=7)
    async with registry(Kind.V2, tmp_path / "registry", tokens=tokens) as upstream:
        await push(upstream.url, "alice/app", image, "1", user=ALICE.user, password=ALICE.password)
        reference = f"{upstream.host}/alice/app:1"
        assert await docker.pull(reference, account=ALICE) == image.digest
        await docker.forget(reference)
        await containerd.pull(reference, hosts={upstream.host: upstream.url}, account=ALICE)
        await containerd.forget(reference)


async def test_basic_and_tls(tmp_path: Path, any_registry: Kind) -> None:
    """A registry with htpasswd behind a private CA: only with the CA and the password."""
    image = images.simple_image(1)
    async with registry(any_registry, tmp_path / "registry", basic=True, tls=True) as upstream:
        assert upstream.authority is not None
        bundle = upstream.authority.bundle
        await push(upstream.url, "a/b", image, "1", user="bob", password=BOB.password, bundle=bundle)
        trusted = tmp_path / "certs"
        trusted.mkdir()
        (trusted / "ca.crt").write_bytes(bundle.read_bytes())
        reference = f"{upstream.host}/a/b:1"
        said = await clients.skopeo_inspect(reference, tmp_path / "s", account=BOB, ca_folder=trusted)
        assert said["Digest"] == image.digest
        with pytest.raises(ClientFailedError, match="certificate"):
            await clients.skopeo_inspect(reference, tmp_path / "s", account=BOB, ca_folder=tmp_path)


async def test_a_registry_takes_all_kinds_of_content(tmp_path: Path, any_registry: Kind) -> None:
    """Index, schema 2 list, zstd layer, shared empty layer, many layers, an artifact, a sparse layer."""
    subject = images.simple_image(1)
    big = images.big_layer(tmp_path / "big", 40 * 1024 * 1024)
    empty = images.empty_layer()
    pushed = {
        "index": images.platforms(),
        "list": images.platforms(flavour="docker"),
        "zstd": images.image([images.zstd_layer(1000)]),
        "empty": images.image([empty, images.tar_layer({"a": b"a"}), empty]),
        "many": images.simple_image(40, size=10),
        "big": images.image([big]),
        "artifact": images.artifact(subject),
    }
    async with registry(any_registry, tmp_path / "registry") as upstream:
        await push(upstream.url, "all/kinds", subject, "subject")
        for tag, image in pushed.items():
            await push(upstream.url, "all/kinds", image, tag)
            reference = f"{upstream.host}/all/kinds:{tag}"
            assert json.loads(await clients.crane_manifest(reference, tmp_path)) == json.loads(
                image.manifest.bytes()
            )
        whole = await clients.skopeo_copy(f"{upstream.host}/all/kinds:index", tmp_path, every_platform=True)
        assert set(pushed["index"].all_blobs()) <= blobs_in(whole)


async def test_a_program_that_ends_at_once_tells_why(tmp_path: Path) -> None:
    """The error of a server that cannot start holds what it said."""

    async def never() -> bool:
        return False

    argv = ["sh", "-c", "echo no such configuration; exit 3"]
    with pytest.raises(NotReadyError, match=r"ended with 3 at once(?s:.)*no such configuration"):
        async with running("failing", argv, ready=never, log=tmp_path / "log"):
            pass
