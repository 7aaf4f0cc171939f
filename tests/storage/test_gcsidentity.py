"""Who we are towards Google Cloud: tokens found, shared and renewed off the loop, URLs signed, refusals in words."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pkgutil import resolve_name
from threading import current_thread, main_thread
from typing import Any

import aiohttp
import pytest
from google.auth import iam
from google.cloud.storage import _signing

from msrcache.storage.errors import Unavailable
from msrcache.storage.gcserrors import CredentialsRefused
from msrcache.storage.gcsidentity import Identity, Wanted
from msrcache.storage.gcsparameters import EMULATOR, parameters
from tests.stage.certificates import authority
from tests.stage.gcsfront import Front, front, refusal
from tests.stage.googleaccount import EMAIL, SUBJECT, Account, denied

VECTORS = json.loads((Path(__file__).parent / "gcsvectors.json").read_text())
HTTPS = "https://storage.googleapis.com"


@pytest.fixture
async def google() -> AsyncIterator[Front]:
    """Google's services, without any objects."""
    async with front("http://127.0.0.1:1") as server:
        yield server


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No identity of the machine's own; what failed is tried again at once."""
    for name in (EMULATOR, "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr("google.auth.compute_engine._metadata._NO_GCE_CHECK", True)
    monkeypatch.setattr("msrcache.storage.gcsidentity.PAUSE", 0.0)


@pytest.fixture
async def identity() -> AsyncIterator[Callable[..., Identity]]:
    """Makes them."""
    made: list[Identity] = []

    def make(**given: object) -> Identity:
        made.append(Identity(parameters({"bucket": "cache", "endpoint": HTTPS, **given})))
        return made[-1]

    yield make
    for one in made:
        await one.close()
        await one.close()


Make = Callable[..., Identity]


def key_of(google: Front, **other: object) -> dict[str, object]:
    """The account's key, as a map."""
    return {**google.account.info(f"{google.url}/token"), **other}


async def test_nothing_is_looked_for_before_it_is_needed(identity: Make) -> None:
    """Without a request no file is read and nobody is asked."""
    assert "not looked for" in repr(identity(keyfile="/not/there.json"))


async def test_one_token_however_many_wait(google: Front, identity: Make) -> None:
    """A hundred requests at once are one question to the token service, in a thread; later ones none."""
    who = identity(credentials=key_of(google))
    assert set(await asyncio.gather(*(who.token("a/key") for _ in range(100)))) == {"token-1"}
    assert await who.token("a/key") == "token-1"
    assert google.ledger == ["token"]


async def test_the_loop_is_left_alone(google: Front, identity: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library, which blocks, is never called on the loop: neither for tokens nor for signatures."""
    threads: set[str] = set()

    def noted(method: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            threads.add("loop" if current_thread() is main_thread() else "thread")
            return method(*args, **more)

        return call

    for path in (
        "msrcache.storage.gcsidentity.Impatient.__call__",
        "google.auth.crypt.RSASigner.sign",
        "google.cloud.storage._signing.generate_signed_url_v4",
    ):
        monkeypatch.setattr(path, noted(resolve_name(path)))
    who = identity(credentials=key_of(google))
    assert await who.url("a/key", Wanted(name="a/key", ttl=60, endpoint=HTTPS))
    assert threads == {"thread"}


async def test_a_token_that_ends_soon_is_used_while_it_is_renewed(google: Front, identity: Make) -> None:
    """Nobody waits for a renewal as long as there is a token, nor fails when the token service is away."""
    google.tokens.lifetime = 200
    who = identity(credentials=key_of(google))
    assert await who.token("a/key") == "token-1"
    google.turn = lambda _: refusal(503, "backendError", "away")
    assert await who.token("a/key") == "token-1"
    google.turn = lambda _: None
    google.tokens.lifetime = 3600
    async with asyncio.timeout(30):
        while await who.token("a/key") == "token-1":
            await asyncio.sleep(0)


async def test_a_token_that_was_refused_is_not_used_again(google: Front, identity: Make) -> None:
    """The next request has another; a refusal of an older one changes nothing."""
    who = identity(credentials=key_of(google))
    token = await who.token("a/key")
    who.refused(token)
    assert await who.token("a/key") == "token-2"
    who.refused(token)
    assert await who.token("a/key") == "token-2"


async def test_a_key_file_heals_without_a_restart(google: Front, identity: Make, tmp_path: Path) -> None:
    """Not there, no document, of another kind, another account's key, then the right one."""
    path = tmp_path / "key.json"
    who = identity(keyfile=str(path))
    stranger = Account().info(f"{google.url}/token")
    for text, words in (
        (None, "keyfile or credentials cannot be used .ENOENT: No such file"),
        ("{", "keyfile or credentials cannot be used"),
        ("[]", "of type nothing; it should be service_account or external_account"),
        (json.dumps({"type": "authorized_user"}), "of type authorized_user"),
        (json.dumps({"type": "service_account"}), "keyfile or credentials cannot be used"),
        (json.dumps(stranger), "the key is not the account's, or no longer"),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(CredentialsRefused, match=words) as refused:
            await who.token("a/key")
        assert "PRIVATE" not in str(refused.value)
    path.write_text(json.dumps(key_of(google)))
    assert await who.token("a/key") == "token-1"


async def test_a_clock_that_is_wrong_is_told(
    google: Front, identity: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token service refuses what was signed two hours ago."""
    past = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=2)
    monkeypatch.setattr("google.auth._helpers.utcnow", lambda: past)
    with pytest.raises(CredentialsRefused, match="this machine's clock is wrong"):
        await identity(credentials=key_of(google)).token("a/key")


@pytest.mark.parametrize(
    ("error", "description", "words"),
    [
        ("invalid_grant", "Invalid grant: account not found", "the service account is not there any more"),
        ("invalid_grant", "Bad request", "the token service refuses the credentials"),
        ("unauthorized_client", "Client is unauthorized", "no token was given for the credentials"),
    ],
)
async def test_what_a_token_service_says_is_told(
    google: Front, identity: Make, error: str, description: str, words: str
) -> None:
    """One sentence with its own words, and nothing of the key."""
    google.turn = lambda _: denied(error, description)
    with pytest.raises(CredentialsRefused, match=words) as refused:
        await identity(credentials=key_of(google)).token("a/key")
    assert description in str(refused.value)
    assert "PRIVATE" not in str(refused.value)


async def test_a_token_service_that_is_away_is_unavailable(google: Front, identity: Make) -> None:
    """That is an outage, no wrong configuration."""
    who = identity(credentials=key_of(google, token_uri="http://127.0.0.1:1/token"))
    with pytest.raises(Unavailable, match="the token service or metadata server does not answer"):
        await who.token("a/key")


async def test_a_token_service_with_a_private_authority(identity: Make, tmp_path: Path) -> None:
    """Trusted where the authority is named, beside the system's; without, it is never spoken to."""
    certificates = authority(tmp_path / "ca")
    pair = certificates.issue("tokens")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    async with front("http://127.0.0.1:1", context) as google:
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await identity(credentials=key_of(google), skipverify=True).token("a/key")
        who = identity(credentials=key_of(google), ca=str(certificates.bundle))
        assert await who.token("a/key") == "token-1"
        assert google.ledger == ["token"]


async def test_failures_are_not_repeated_at_once(
    google: Front, identity: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks within the pause is told the same without asking the token service."""
    monkeypatch.setattr("msrcache.storage.gcsidentity.PAUSE", 3600.0)
    google.turn = lambda _: denied("invalid_grant", "no")
    who = identity(credentials=key_of(google))
    for _ in range(5):
        with pytest.raises(CredentialsRefused):
            await who.token("a/key")
    assert google.ledger == ["token"]


async def test_no_identity_at_all_is_told(identity: Make) -> None:
    """With what to do about it."""
    with pytest.raises(CredentialsRefused, match="no credentials: give keyfile or credentials"):
        await identity().token("a/key")


async def test_an_emulator_is_told_nothing(identity: Make) -> None:
    """No token is looked for where anybody could read it, and no URL is signed."""
    who = identity(endpoint="http://127.0.0.1:1")
    assert await who.token("a/key") is None
    assert await who.url("a/key", Wanted(name="a/key", ttl=60, endpoint="http://127.0.0.1:1")) is None


async def test_the_key_of_the_environment(
    google: Front, identity: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """GOOGLE_APPLICATION_CREDENTIALS, as Google's programs read it."""
    path = tmp_path / "key.json"
    path.write_text(json.dumps(key_of(google)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert await identity().token("a/key") == "token-1"


@pytest.fixture
def on_a_machine_of_google(google: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata server answers, and the account may sign for itself."""
    host = google.url.removeprefix("http://")
    monkeypatch.setenv("GCE_METADATA_IP", host)
    monkeypatch.setenv("NO_GCE_CHECK", "false")
    monkeypatch.setattr("google.auth.compute_engine._metadata._NO_GCE_CHECK", False)
    monkeypatch.setattr("google.auth.compute_engine._metadata._GCE_METADATA_HOST", host)
    endpoint = google.url + "/v1/projects/-/serviceAccounts/{}:signBlob"
    monkeypatch.setattr("google.auth.iam._IAM_SIGN_ENDPOINT", endpoint)


@pytest.mark.usefixtures("on_a_machine_of_google")
async def test_the_machines_own_account(google: Front, identity: Make) -> None:
    """A token from the metadata server; URLs are signed by the account's signBlob, and the service takes them."""
    who = identity()
    assert await who.token("a/key") == "token-1"
    url = await who.url("a/key", Wanted(name="a/key", ttl=60, endpoint=google.url))
    assert url is not None
    assert EMAIL.replace("@", "%40") in url
    assert google.ledger == ["token", "sign"]
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status != 403  # past the signature; there are no objects


@pytest.mark.usefixtures("on_a_machine_of_google")
async def test_an_account_that_may_not_sign_is_asked_once(google: Front, identity: Make) -> None:
    """There is no URL then, so hits are streamed; it is asked again after some minutes only."""
    google.turn = lambda line: refusal(403, "forbidden", "no") if line == "sign" else None
    who = identity()
    for _ in range(3):
        assert await who.url("a/key", Wanted(name="a/key", ttl=60, endpoint=google.url)) is None
    assert google.ledger.count("sign") == 1


@pytest.mark.usefixtures("on_a_machine_of_google")
async def test_an_outage_of_signing_is_no_refusal(
    google: Front, identity: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again sooner than an account that may not, and then signs."""
    working = iam._IAM_SIGN_ENDPOINT
    monkeypatch.setattr(iam, "_IAM_SIGN_ENDPOINT", "http://127.0.0.1:1/{}:signBlob")
    monkeypatch.setattr("msrcache.storage.gcsidentity.SIGNING_AWAY", 0.0)
    who, wanted = identity(), Wanted(name="a/key", ttl=60, endpoint=google.url)
    assert await who.url("a/key", wanted) is None
    monkeypatch.setattr(iam, "_IAM_SIGN_ENDPOINT", working)
    assert await who.url("a/key", wanted) is not None


def federated(google: Front, folder: Path, **more: object) -> dict[str, object]:
    """A workload whose token is in a file."""
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{google.url}/token",
        "credential_source": {"file": str(folder / "subject")},
        **more,
    }


async def test_a_federated_identity_signs_as_the_account_that_it_impersonates(
    google: Front, identity: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its token is exchanged twice; the URL is signed by the account's signBlob."""
    accounts = f"{google.url}/v1/projects/-/serviceAccounts/"
    monkeypatch.setattr("google.auth.iam._IAM_SIGN_ENDPOINT", accounts + "{}:signBlob")
    (tmp_path / "subject").write_text(SUBJECT)
    impersonation = {"service_account_impersonation_url": f"{accounts}{EMAIL}:generateAccessToken"}
    who = identity(credentials=federated(google, tmp_path, **impersonation))
    assert await who.token("a/key") == "token-2"
    url = await who.url("a/key", Wanted(name="a/key", ttl=60, endpoint=google.url))
    assert url is not None
    assert EMAIL.replace("@", "%40") in url
    assert google.ledger == ["token", "impersonate", "sign"]


async def test_workload_identity_federation(google: Front, identity: Make, tmp_path: Path) -> None:
    """The workload's own token is read from its file, each time anew, and exchanged; without an account of Google's
    nobody signs URLs.
    """
    (tmp_path / "subject").write_text("expired")
    who = identity(credentials=federated(google, tmp_path))
    with pytest.raises(CredentialsRefused, match="the token service refuses the credentials"):
        await who.token("a/key")
    (tmp_path / "subject").write_text(SUBJECT)
    assert await who.token("a/key") == "token-1"
    assert await who.url("a/key", Wanted(name="a/key", ttl=60, endpoint=HTTPS)) is None


@pytest.mark.parametrize("vector", VECTORS["signed"], ids=lambda vector: str(vector["time"]))
async def test_urls_are_those_of_the_library(
    google: Front, identity: Make, monkeypatch: pytest.MonkeyPatch, vector: dict[str, Any]
) -> None:
    """Byte for byte what was recorded from it, for a fixed key and time: nothing but the host is signed beside the
    query, so that Range needs no header of its own.
    """
    time = vector["time"]
    monkeypatch.setattr(_signing, "get_v4_now_dtstamps", lambda: (time, time[:8]))
    given = key_of(google, private_key=VECTORS["private_key"], client_email=VECTORS["client_email"])
    google.turn = lambda _: None
    who = identity(credentials=given, bucket=VECTORS["bucket"])
    monkeypatch.setattr(who, "token", _nothing)
    who._credentials = _unasked(given)
    url = await who.url("a/key", Wanted(name=vector["name"], ttl=vector["ttl"], endpoint=vector["endpoint"]))
    assert url is not None
    assert url == vector["url"]
    assert "X-Goog-SignedHeaders=host&" in url


async def _nothing(key: str) -> None:
    """No token is needed to sign."""
    del key


def _unasked(given: dict[str, object]) -> Any:
    from google.oauth2 import service_account

    return service_account.Credentials.from_service_account_info(given)
