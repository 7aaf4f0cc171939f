"""Keystone through OpenStack's library: each way to be known, each refusal in words, renewal, and never on the loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event

import pytest

from msrcache.storage.errors import StorageError, Unavailable, Unusable
from msrcache.storage.swift import Swift
from msrcache.storage.swifterrors import CredentialsRefused
from msrcache.storage.swiftparameters import parameters
from tests.contract.harness import read
from tests.stage import keystone as stage
from tests.stage.keystone import Keystone, keystone
from tests.stage.swiftservices import KEY, USER, RunningSwift

PASSWORD = {"username": stage.USER, "password": stage.PASSWORD}
PEOPLE = {"domain": stage.DOMAIN}
BY_ID = {
    "applicationcredentialid": stage.CREDENTIAL,
    "applicationcredentialsecret": stage.CREDENTIAL_SECRET,
}
BY_NAME = {
    "username": stage.USER,
    "applicationcredentialname": stage.CREDENTIAL_NAME,
    "applicationcredentialsecret": stage.CREDENTIAL_SECRET,
}

pytestmark = pytest.mark.real


@pytest.fixture
async def identity(swift_service: RunningSwift) -> AsyncIterator[Keystone]:
    """One that vouches for the real Swift."""
    async with keystone(f"{swift_service.url}/auth/v1.0", USER, KEY) as service:
        yield service


@asynccontextmanager
async def driver(identity: Keystone, path: str = "/v3", **more: object) -> AsyncIterator[Swift]:
    """A driver that is known to it."""
    given = {"authurl": f"{identity.url}{path}", "container": "keystone", **more}
    made = Swift(parameters(given))
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("/v3", {**PASSWORD, **PEOPLE, "tenant": stage.PROJECT, "tenantdomain": stage.PROJECT_DOMAIN}),
        ("/v3", {**PASSWORD, **PEOPLE, "tenant": stage.PROJECT}),
        ("/v3", {**PASSWORD, "tenant": stage.PROJECT}),
        ("/v3", {**PASSWORD, **PEOPLE, "tenantid": stage.PROJECT_ID}),
        ("/v3", {**PASSWORD, **PEOPLE, "trustid": stage.TRUST}),
        ("/v3", BY_ID),
        ("/v3", {**BY_NAME, **PEOPLE}),
        ("", BY_ID),
        ("/v2.0", {**PASSWORD, "tenant": stage.PROJECT}),
        ("/v2.0", {**PASSWORD, "tenantid": stage.PROJECT_ID}),
        ("", {**PASSWORD, **PEOPLE, "tenant": stage.PROJECT}),
        ("", {**PASSWORD, "tenant": stage.PROJECT}),
        ("/", {**PASSWORD, "tenant": stage.PROJECT, "authversion": 3}),
        ("/v3", {**PASSWORD, "tenant": stage.PROJECT, "region": stage.REGION, "endpointtype": "internal"}),
    ],
    ids=[
        "project-in-its-domain", "project-in-the-users-domain", "project-in-the-default-domain", "project-by-id",
        "trust", "application-credential", "application-credential-by-name", "application-credential-unversioned",
        "version-2", "version-2-by-id", "discovered", "discovered-default-domain", "version-said", "internal",
    ],
)  # fmt: skip
async def test_each_way_to_be_known(identity: Keystone, path: str, given: dict[str, str]) -> None:
    """With the token that came, objects are written and read on the real Swift."""
    async with driver(identity, path, **given) as made:
        await made.put("a/key", b"12345")
        assert await read(made, "a/key") == b"12345"
        grant = made.container.client.tokens.last
        assert grant is not None
        assert ("localhost" in grant.url) == ("endpointtype" in given)
    assert len(identity.bodies) == 1


async def test_an_older_keystone_is_discovered(identity: Keystone) -> None:
    """One that has version 2 only is asked by it."""
    identity.versions = ("v2.0",)
    async with driver(identity, "", **PASSWORD, tenant=stage.PROJECT) as made:
        await made.put("a/key", b"1")
    assert identity.asked[-1] == "POST /v2.0/tokens"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({**PASSWORD, "password": "wrong-secret", "tenant": stage.PROJECT}, "does not know cache with this"),
        ({**PASSWORD, "tenant": "other"}, "or not in this project"),
        ({**BY_ID, "applicationcredentialsecret": "wrong-secret"}, "the application credential cred-1"),
    ],
)
async def test_who_is_not_known_is_told(identity: Keystone, given: dict[str, str], sentence: str) -> None:
    """One sentence without the secret; and Keystone is left alone for some seconds."""
    async with driver(identity, **given) as made:
        for _ in range(3):
            with pytest.raises(CredentialsRefused, match=sentence) as refused:
                await made.stat("a/key")
            assert "wrong-secret" not in str(refused.value)
    assert len(identity.bodies) == 1


async def test_a_catalogue_without_the_store_is_told(identity: Keystone) -> None:
    """Another region, another endpoint, no project at all: what to correct."""
    project = {**PASSWORD, "tenant": stage.PROJECT}
    for given in ({**project, "region": "Mars"}, {**project, "endpointtype": "admin"}, {**PASSWORD}):
        async with driver(identity, **given) as made:
            with pytest.raises(Unusable, match=r"catalogue has no \w+ object-store"):
                await made.stat("a/key")


@pytest.mark.parametrize(("path", "authversion"), [("/nothing/v3", 0), ("/nothing", 0), ("/nothing", 2)])
async def test_what_is_no_keystone_is_told(identity: Keystone, path: str, authversion: int) -> None:
    """Something else stands at authurl."""
    given = {**PASSWORD, "tenant": stage.PROJECT, "authversion": authversion}
    async with driver(identity, path, **given) as made:
        with pytest.raises(Unusable, match="is no authentication of this version"):
            await made.stat("a/key")


async def test_keystone_may_be_away(identity: Keystone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Down or busy is Unavailable, and heals without a restart."""
    monkeypatch.setattr("msrcache.storage.swiftidentity.PAUSE", 0.0)
    given = {**PASSWORD, "tenant": stage.PROJECT}
    async with driver(identity, authversion=3, **given) as made:
        identity.status = 503
        with pytest.raises(Unavailable, match="cannot answer now"):
            await made.put("a/key", b"1")
        identity.status = 0
        await made.put("a/key", b"1")
    nowhere = Keystone(identity.issue, url="http://127.0.0.1:1")
    async with driver(nowhere, **given) as made:
        with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1/v3 does not answer"):
            await made.stat("a/key")


async def test_a_rotated_password_is_found(
    identity: Keystone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in a file, which is read anew: nobody restarts the cache."""
    monkeypatch.setattr("msrcache.storage.swiftidentity.PAUSE", 0.0)
    path = tmp_path / "password"
    given = {"username": stage.USER, "passwordfile": str(path), "tenant": stage.PROJECT}
    async with driver(identity, **given) as made:
        with pytest.raises(CredentialsRefused, match="passwordfile cannot be read"):
            await made.put("a/key", b"1")
        path.write_text("rotated-away\n")
        with pytest.raises(CredentialsRefused, match="does not know"):
            await made.put("a/key", b"1")
        path.write_text(f"{stage.PASSWORD}\n")
        await made.put("a/key", b"1")


async def test_one_renewal_however_many_wait(identity: Keystone) -> None:
    """A hundred calls at once ask for one token; who stops waiting does not stop it."""
    entered, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        entered.set()
        await go.wait()

    identity.before = hold
    async with driver(identity, **PASSWORD, tenant=stage.PROJECT) as made:
        await_first = asyncio.create_task(made.put("a/0", b"0"))
        await asyncio.wait_for(entered.wait(), 10)
        others = [asyncio.create_task(made.put(f"a/{number}", b"1")) for number in range(1, 20)]
        await asyncio.sleep(0)
        await_first.cancel()
        await asyncio.wait({await_first})
        go.set()
        await asyncio.gather(*others)
    assert len(identity.bodies) == 1


async def test_a_hanging_keystone_holds_up_nobody_else(
    identity: Keystone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library waits in a thread of its own: the loop goes on, and so does closing."""
    asked, go = asyncio.Event(), Event()
    loop = asyncio.get_running_loop()

    def hang(*_: object) -> object:
        loop.call_soon_threadsafe(asked.set)
        go.wait(30)
        raise AssertionError

    monkeypatch.setattr("msrcache.storage.swiftkeystone._asked", hang)
    async with driver(identity, **PASSWORD, tenant=stage.PROJECT) as made:
        waiting = asyncio.create_task(made.stat("a/key"))
        await asyncio.wait_for(asked.wait(), 10)
        assert not waiting.done()
        await made.close()
        with pytest.raises((StorageError, asyncio.CancelledError)):
            await waiting
    go.set()
