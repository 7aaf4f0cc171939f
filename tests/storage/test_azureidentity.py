"""Who the Azure driver is without a key: managed and workload identity, application; tokens, their renewal, URLs."""

import asyncio
import importlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import current_thread, main_thread

import aiohttp
import pytest
import pytest_asyncio

from msrcache.storage import azurecredentials
from msrcache.storage.azure import Azure, make
from msrcache.storage.azureerrors import CredentialsRefused
from msrcache.storage.azureparameters import parameters
from msrcache.storage.drivers import open_driver
from msrcache.storage.errors import Denied, StorageError, Unavailable
from msrcache.storage.parameters import ParameterError
from tests.contract.harness import read
from tests.stage.azureservice import ACCOUNT, RunningAzure, azurite
from tests.stage.azuretokens import CLIENT, HEADER, SECRET, TENANT, AzureTokens, azure_tokens
from tests.stage.certificates import Authority, authority
from tests.storage.test_drivers import Section

pytestmark = pytest.mark.real

APPLICATION = {"type": "client_secret", "clientid": CLIENT, "tenantid": TENANT, "secret": SECRET}


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who vouches for the service and the token service."""
    return authority(tmp_path_factory.mktemp("ca"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(
    trusted: Authority, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningAzure]:
    """One Azurite by TLS for all tests here: tokens are never shown without."""
    async with azurite(tmp_path_factory.mktemp("azurite"), authority=trusted) as running:
        yield running


@pytest.fixture
def container(service: RunningAzure) -> str:
    """One that has one blob."""
    name = service.make_container()
    service.client.get_blob_client(name, "a/key").upload_blob(b"12345")
    return name


@pytest.fixture
async def tokens(trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AzureTokens]:
    """A token service, and an environment that names it and nothing else."""
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("msrcache.storage.azuresession.PAUSE", 0.0)
    async with azure_tokens(trusted) as running:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", running.url)
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{running.url}/identity")
        monkeypatch.setenv("IDENTITY_HEADER", HEADER)
        yield running


@asynccontextmanager
async def driver(
    service: RunningAzure, trusted: Authority, container: str, **credentials: str
) -> AsyncIterator[Azure]:
    """A driver by an identity."""
    given = {"container": container, "serviceurl": service.url, "accountname": ACCOUNT}
    made = Azure(parameters({**given, "ca": str(trusted.bundle), "credentials": credentials or None}))
    try:
        yield made
    finally:
        await made.close()


async def test_a_managed_identity(
    service: RunningAzure, trusted: Authority, tokens: AzureTokens, container: str
) -> None:
    """The machine's own, and one of a client id; a token is asked for once and kept."""
    async with driver(service, trusted, container, type="managed_identity") as made:
        assert await read(made, "a/key") == b"12345"
        assert await made.create("a/new", b"1")
        await made.delete("a/new", "a/none")
    async with driver(service, trusted, container, type="managed_identity", clientid=CLIENT) as made:
        assert (await made.stat("a/key")).size == 5
    assert tokens.ledger == ["managed system", f"managed {CLIENT}"]


async def test_an_application(
    service: RunningAzure, trusted: Authority, tokens: AzureTokens, container: str
) -> None:
    """By its secret; a wrong one is told without it."""
    async with driver(service, trusted, container, **APPLICATION) as made:
        assert await read(made, "a/key") == b"12345"
    wrong = APPLICATION | {"secret": "TOPSECRET"}
    async with driver(service, trusted, container, **wrong) as made:
        with pytest.raises(CredentialsRefused, match=r"no token for the identity.*AADSTS7000215") as refused:
            await read(made, "a/key")
        assert "TOPSECRET" not in str(refused.value)
    assert tokens.ledger == ["secret", "secret"]


async def test_a_workload(
    service: RunningAzure,
    trusted: Authority,
    tokens: AzureTokens,
    container: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ids and the file with the federated token come from the environment, as Kubernetes sets them."""
    file = tmp_path / "federated"
    file.write_text("first")
    tokens.assertion = "first"
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(file))
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    async with driver(service, trusted, container, type="workload_identity") as made:
        assert await read(made, "a/key") == b"12345"
        assert tokens.ledger == ["assertion first"]


async def test_nothing_said_is_the_usual_chain(
    service: RunningAzure,
    trusted: Authority,
    tokens: AzureTokens,
    container: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The environment's application first, else what the machine is."""
    async with driver(service, trusted, container) as made:
        assert await read(made, "a/key") == b"12345"
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)
    async with driver(service, trusted, container) as made:
        assert await read(made, "a/key") == b"12345"
    assert tokens.ledger == ["managed system", "secret"]


async def test_tokens_that_end_are_renewed(
    service: RunningAzure, trusted: Authority, tokens: AzureTokens, container: str
) -> None:
    """Without anybody's doing: another one is asked for when the first has ended."""
    tokens.life = 1
    async with driver(service, trusted, container, **APPLICATION) as made, asyncio.timeout(20):
        while len(tokens.ledger) < 3:
            assert await read(made, "a/key") == b"12345"
            await asyncio.sleep(0.1)


async def test_an_identity_heals_without_a_restart(
    service: RunningAzure,
    trusted: Authority,
    tokens: AzureTokens,
    container: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None at all, then a token that the service refuses, then a right one: the next call finds it."""
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    async with driver(service, trusted, container, type="managed_identity") as made:
        with pytest.raises(CredentialsRefused, match="no token for the identity"):
            await read(made, "a/key")
        monkeypatch.setenv("IDENTITY_HEADER", HEADER)
        tokens.audience = "https://vault.azure.net"
        with pytest.raises(CredentialsRefused, match="does not accept the identity's token"):
            await read(made, "a/key")
        tokens.audience = "https://storage.azure.com"
        assert await read(made, "a/key") == b"12345"


async def test_a_token_service_that_is_away_is_told(
    service: RunningAzure,
    trusted: Authority,
    tokens: AzureTokens,
    container: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its host: it is not the store that does not answer."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")
    async with driver(service, trusted, container, **APPLICATION) as made:
        with pytest.raises(StorageError, match=r"token") as failed:
            await read(made, "a/key")
        assert isinstance(failed.value, Unavailable | CredentialsRefused)
    assert tokens.ledger == []


async def test_an_identity_signs_by_a_key_of_the_service(
    service: RunningAzure, trusted: Authority, tokens: AzureTokens, container: str
) -> None:
    """One request for the key, none for each URL; the URL needs no credentials, and ends."""
    del tokens
    trust = ssl.create_default_context(cafile=str(trusted.bundle))
    async with driver(service, trusted, container, type="managed_identity") as made:
        urls = await asyncio.gather(*(made.presign("a/key", 60.0) for _ in range(5)))
        assert all(urls)
        async with aiohttp.ClientSession() as session:
            url = urls[0] or ""
            async with session.get(url, headers={"Range": "bytes=1-2"}, ssl=trust) as answer:
                assert (answer.status, await answer.read()) == (206, b"23")
            async with session.get(url.replace("a/key", "a/kez"), ssl=trust) as answer:
                assert answer.status == 403
    said = service.process.log.read_text()
    assert said.count("comp=userdelegationkey") == 1


async def test_an_identity_that_may_not_sign_has_no_urls(
    service: RunningAzure,
    trusted: Authority,
    tokens: AzureTokens,
    container: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blobs flow through the cache; it is asked for a key once in a while, not for each pull."""
    del tokens
    asked: list[str] = []

    async def denied(key: str, start: object, end: object) -> object:
        asked.append(key)
        raise Denied("azure", key, None, f"no key from {start} to {end}")

    async with driver(service, trusted, container, type="managed_identity") as made:
        monkeypatch.setattr(made.container.client, "delegation_key", denied)
        assert [await made.presign("a/key", 60.0) for _ in range(3)] == [None] * 3
    assert len(asked) == 1


async def test_the_package_for_identities_is_needed_for_identities_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it a key works, and an identity is told the line to run."""
    monkeypatch.setattr(
        azurecredentials, "find_spec", lambda name: None if name == "azure.identity" else name
    )
    given: dict[str, object] = {"container": "blobs", "accountname": ACCOUNT}
    with pytest.raises(
        ParameterError, match=r"needs the package azure-identity: pip install 'msrcache\[azure\]'"
    ):
        open_driver(Section("azure", given))
    made = make(given | {"accountkey": "a2V5"})
    await made.close()


async def test_it_is_imported_in_a_thread(
    service: RunningAzure,
    trusted: Authority,
    tokens: AzureTokens,
    container: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some hundred modules, which would hold up every pull."""
    del tokens
    threads: list[bool] = []
    load = importlib.import_module

    def noted(name: str) -> object:
        threads.append(current_thread() is main_thread())
        return load(name)

    monkeypatch.setattr("msrcache.storage.azurecredentials.import_module", noted)
    async with driver(service, trusted, container, type="managed_identity") as made:
        await made.stat("a/key")
    assert threads == [False]
