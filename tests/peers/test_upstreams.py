"""Registries behind Basic and TLS with an account of the cache; what a warm pull costs; an upstream that stops."""

from pathlib import Path

import aiohttp
import pytest

from tests.stage import clients, images
from tests.stage.cacheprocess import cache
from tests.stage.clients import Account, ClientFailedError
from tests.stage.process import until
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, htpasswd, registry
from tests.stage.tokens import TokenServer

ALICE = Account("alice", "s3cret")
BOB = Account("bob", "b0b-pass")


def _pulls(upstream: RunningRegistry) -> list[str]:
    return [line for line in upstream.requests() if not line.endswith(" /v2/")]


async def test_an_account_of_the_cache_behind_basic_and_a_private_ca(
    tmp_path: Path, any_registry: Kind
) -> None:
    """Mode open: anybody pulls by the cache's own account from a registry that only that account may read."""
    image = images.simple_image(2)
    async with registry(any_registry, tmp_path / "registry", basic=True, tls=True) as upstream:
        assert upstream.authority is not None
        bundle = upstream.authority.bundle
        await push(upstream.url, "a/b", image, "1", user=BOB.user, password=BOB.password, bundle=bundle)
        entry = {"url": upstream.url, "username": BOB.user, "password": BOB.password, "ca": [str(bundle)]}
        access = {"access": {"mode": "open"}}
        async with cache(tmp_path / "cache", entry, settings=access) as running:
            reference = f"{running.host}/a/b:1"
            copied = await clients.skopeo_copy(reference, tmp_path / "skopeo")
            assert {digest[7:] for digest in image.all_blobs()} <= {file.name for file in copied.iterdir()}
            assert await clients.crane_digest(reference, tmp_path / "crane") == image.digest
            assert BOB.password not in running.process.said(1_000_000)


async def test_accounts_at_the_cache_and_one_at_the_upstream(
    tmp_path: Path, tokens: TokenServer, any_registry: Kind
) -> None:
    """Mode basic: the cache's htpasswd decides; the upstream sees the service account only."""
    image = images.simple_image(2)
    users = htpasswd(tmp_path / "users", {"carol": "c4rol"})
    async with registry(any_registry, tmp_path / "registry", tokens=tokens) as upstream:
        await push(upstream.url, "alice/app", image, "1", user=ALICE.user, password=ALICE.password)
        entry = {"url": upstream.url, "username": ALICE.user, "password": ALICE.password}
        access = {"access": {"mode": "basic", "htpasswd": {"path": str(users)}}}
        async with cache(tmp_path / "cache", entry, settings=access) as running:
            reference = f"{running.host}/alice/app:1"
            for account in (None, ALICE, Account("carol", "wrong")):
                with pytest.raises(ClientFailedError, match=r"(?i)unauthorized|401"):
                    await clients.crane_digest(reference, tmp_path / "refused", account=account)
            await clients.crane_pull(reference, tmp_path / "carol", account=Account("carol", "c4rol"))
    assert {asked.account for asked in tokens.ledger} == {"alice"}


async def test_a_service_account_fetches_what_the_caller_was_admitted_to(
    tmp_path: Path, tokens: TokenServer, any_registry: Kind
) -> None:
    """Mode upstream with an account: the caller's own token asks, the account's fetches; Bob gets nothing by it."""
    image = images.simple_image(2, seed=41)
    async with registry(any_registry, tmp_path / "registry", tokens=tokens) as upstream:
        await push(upstream.url, "shared/app", image, "1", user=ALICE.user, password=ALICE.password)
        await push(upstream.url, "alice/app", image, "1", user=ALICE.user, password=ALICE.password)
        entry = {"url": upstream.url, "username": ALICE.user, "password": ALICE.password}
        async with cache(tmp_path / "cache", entry) as running:
            reference = f"{running.host}/shared/app:1"
            tokens.ledger.clear()
            copied = await clients.skopeo_copy(reference, tmp_path / "bob", account=BOB)
            assert {digest[7:] for digest in image.all_blobs()} <= {file.name for file in copied.iterdir()}
            assert {asked.account for asked in tokens.ledger} == {BOB.user, ALICE.user}
            for account in (BOB, None, Account(ALICE.user, "wrong")):
                with pytest.raises(ClientFailedError, match=r"(?i)unauthorized|denied|401|403"):
                    await clients.skopeo_copy(
                        f"{running.host}/alice/app:1", tmp_path / "refused", account=account
                    )
            await clients.skopeo_copy(f"{running.host}/alice/app:1", tmp_path / "alice", account=ALICE)
            assert ALICE.password not in running.process.said(1_000_000)


async def test_an_account_that_may_not_read_leaves_it_to_the_caller(
    tmp_path: Path, tokens: TokenServer
) -> None:
    """The service account is refused Alice's repository: her own credential fetches, and the log says so."""
    image = images.simple_image(2, seed=42)
    async with registry(Kind.V2, tmp_path / "registry", tokens=tokens) as upstream:
        await push(upstream.url, "alice/app", image, "1", user=ALICE.user, password=ALICE.password)
        entry = {"url": upstream.url, "username": BOB.user, "password": BOB.password}
        async with cache(tmp_path / "cache", entry) as running:
            await clients.skopeo_copy(f"{running.host}/alice/app:1", tmp_path / "alice", account=ALICE)
            assert "the service account may not read" in running.process.said(1_000_000)


async def test_a_refresh_token_spares_the_password(
    tmp_path: Path, tokens: TokenServer, any_registry: Kind
) -> None:
    """offlinetoken: the password logs in once, later tokens come by the refresh grant; withdrawn, it logs in again."""
    async with registry(any_registry, tmp_path / "registry", tokens=tokens) as upstream:
        for name in ("alice/one", "alice/two", "alice/three"):
            image = images.simple_image(1, seed=43)
            await push(upstream.url, name, image, "1", user=ALICE.user, password=ALICE.password)
        account = {"username": ALICE.user, "password": ALICE.password, "offlinetoken": True}
        settings = {"access": {"mode": "open"}}
        async with cache(tmp_path / "cache", {"url": upstream.url, **account}, settings=settings) as running:

            async def logins(name: str) -> list[tuple[str, str, int]]:
                tokens.ledger.clear()
                await clients.crane_pull(f"{running.host}/alice/{name}:1", tmp_path / name)
                return [(asked.method, asked.grant, asked.status) for asked in tokens.ledger]

            assert await logins("one") == [("GET", "", 200)]
            assert await logins("two") == [("POST", "refresh_token", 200)]
            tokens.withdraw()
            assert await logins("three") == [("POST", "refresh_token", 401), ("GET", "", 200)]


async def test_a_warm_pull_costs_the_upstream_one_head(
    tmp_path: Path, open_registry: RunningRegistry
) -> None:
    """A second pull of a tag asks the upstream for the tag's digest, and for nothing else."""
    image = images.simple_image(3)
    await push(open_registry.url, "lib/app", image, "1")
    async with cache(tmp_path / "cache", {"url": open_registry.url}) as running:
        reference = f"{running.host}/lib/app:1"
        await clients.skopeo_copy(reference, tmp_path / "cold")

        async def logged() -> bool:  # the registry writes its line behind the last byte
            fetched = [line for line in _pulls(open_registry) if line.startswith("GET") and "/blobs/" in line]
            return len(fetched) == len(image.all_blobs())

        await until(logged, what="the registry's log of the cold pull")
        before = len(_pulls(open_registry))
        await clients.skopeo_copy(reference, tmp_path / "warm")
        assert _pulls(open_registry)[before:] == ["HEAD /v2/lib/app/manifests/1"]


async def test_what_an_absent_upstream_leaves(tmp_path: Path, open_registry: RunningRegistry) -> None:
    """Once pulled, a tag and all its bytes are served without the upstream; what was never pulled is a 503."""
    image = images.simple_image(3)
    await push(open_registry.url, "lib/app", image, "1")
    await push(open_registry.url, "lib/app", images.simple_image(1, seed=9), "never")
    async with cache(tmp_path / "cache", {"url": open_registry.url}) as running:
        reference = f"{running.host}/lib/app:1"
        await clients.skopeo_copy(reference, tmp_path / "cold")
        await open_registry.process.stop()
        await clients.skopeo_copy(reference, tmp_path / "warm")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{running.url}/v2/lib/app/manifests/never") as answer,
        ):
            assert answer.status == 503
            assert (await answer.json())["errors"]


async def test_all_kinds_of_content(tmp_path: Path, open_registry: RunningRegistry) -> None:
    """Index, schema 2 list, zstd, empty and 200 layers, an artifact: byte for byte as they were pushed."""
    subject = images.simple_image(1)
    empty = images.empty_layer()
    pushed = {
        "index": images.platforms(),
        "list": images.platforms(flavour="docker"),
        "schema2": images.simple_image(2, flavour="docker", seed=3),
        "zstd": images.image([images.zstd_layer(1000)]),
        "empty": images.image([empty, images.tar_layer({"a": b"a"}), empty]),
        "many": images.simple_image(200, size=10),
        "artifact": images.artifact(subject),
    }
    await push(open_registry.url, "all/kinds", subject, "subject")
    for tag, image in pushed.items():
        await push(open_registry.url, "all/kinds", image, tag)
    async with cache(tmp_path / "cache", {"url": open_registry.url}) as running:
        for tag, image in pushed.items():
            reference = f"{running.host}/all/kinds:{tag}"
            for turn in ("cold", "warm"):
                place = tmp_path / turn / tag
                copied = await clients.skopeo_copy(reference, place, every_platform=True)
                assert (copied / "manifest.json").read_bytes() == image.manifest.bytes()
                names = {file.name for file in copied.iterdir()}
                assert {digest[7:] for digest in image.all_blobs()} <= names
