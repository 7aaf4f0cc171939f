"""Where the OSS driver finds who it is: environment, pod, address, machine; what ends is renewed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from msrcache.storage.errors import Unavailable
from msrcache.storage.oss import Oss
from msrcache.storage.osserrors import CredentialsRefused
from msrcache.storage.ossidentity import EARLY, Identity
from msrcache.storage.ossparameters import parameters
from tests.contract.harness import read
from tests.stage.ossservice import KEY, REGION, SECRET, Service, ossservice
from tests.stage.osssigning import Account
from tests.stage.process import free_port
from tests.stage.scripted import Hold, Scripted, Turn, scripted

BUCKET = "identity"
ROLES = "/latest/meta-data/ram/security-credentials/"
ALL = (
    "OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN", "ALIBABA_CLOUD_ACCESS_KEY_ID",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN", "ALIBABA_CLOUD_ROLE_ARN",
    "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "ALIBABA_CLOUD_OIDC_TOKEN_FILE", "ALIBABA_CLOUD_CREDENTIALS_URI",
)  # fmt: skip


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """With a bucket that has one object, and the account of a role."""
    async with ossservice() as running:
        running.make_bucket(BUCKET)
        made = running.driver(BUCKET)
        await made.put("a/key", b"12345")
        await made.close()
        running.accounts["STS.1"] = Account("secret-1", token="token-1")
        running.accounts["STS.2"] = Account("secret-2", token="token-2")
        yield running


@pytest.fixture
async def machine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scripted]:
    """A metadata service, and an environment that says nothing."""
    for name in ALL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("msrcache.storage.ossidentity.PAUSE", 0.0)
    async with scripted() as server:
        monkeypatch.setattr("msrcache.storage.ossidentity.METADATA", server.url)
        yield server


@pytest.fixture
async def driver(service: Service, machine: Scripted) -> AsyncIterator[Oss]:
    """A driver that was not told who it is."""
    given = service.settings(BUCKET, stsendpoint=machine.url)
    del given["accesskeyid"], given["accesskeysecret"]
    made = Oss(parameters(given))
    yield made
    await made.close()


def credentials(number: int, *, lasts: float = 3600.0, **more: str) -> bytes:
    """As all of Alibaba Cloud's services give them."""
    ends = datetime.fromtimestamp(time.time() + lasts, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    given = {
        "AccessKeyId": f"STS.{number}",
        "AccessKeySecret": f"secret-{number}",
        "SecurityToken": f"token-{number}",
        "Expiration": ends,
    }
    return json.dumps({**given, **more}).encode()


def has_role(machine: Scripted, *answers: bytes, role: str = "cache") -> None:
    """A machine with a role, whose metadata service wants a token."""
    machine.always("/latest/api/token", Turn(body=b"metadata-token"), "PUT")
    machine.always(ROLES, Turn(body=role.encode()))
    machine.script(f"{ROLES}{role}", *(Turn(body=answer) for answer in answers))


async def test_the_role_of_the_machine(machine: Scripted, driver: Oss) -> None:
    """Its name is asked for, its token shown; then nothing more is asked while the credentials last."""
    has_role(machine, credentials(1, Code="Success"))
    for _ in range(3):
        assert await read(driver, "a/key") == b"12345"
    assert machine.lines == ["PUT /latest/api/token", f"GET {ROLES}", f"GET {ROLES}cache"]
    assert machine.ledger[-1].headers["x-aliyun-ecs-metadata-token"] == "metadata-token"


async def test_a_role_by_name(service: Service, machine: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but that role is asked for, whatever the environment says; an old metadata service gives no token."""
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "else")
    machine.script(f"{ROLES}mine", Turn(body=credentials(1)))
    given = service.settings(BUCKET, accesskeyid="", accesskeysecret="", ramrole="mine")
    made = Oss(parameters(given))
    assert await read(made, "a/key") == b"12345"
    await made.close()
    assert machine.lines == ["PUT /latest/api/token", f"GET {ROLES}mine"]


async def test_what_ends_is_renewed_once(machine: Scripted, driver: Oss) -> None:
    """Before it ends, by the first of many requests; the service sees the new ones, and a twin has them too."""
    has_role(machine, credentials(1, lasts=EARLY - 10.0), credentials(2))
    twin = driver.twin()
    assert await read(driver, "a/key") == b"12345"
    assert driver.bucket.client.identity.now.id == "STS.1"
    assert await asyncio.gather(*(read(one, "a/key") for one in (driver, twin) * 20)) == [b"12345"] * 40
    assert driver.bucket.client.identity.now.id == "STS.2"
    assert machine.lines.count(f"GET {ROLES}cache") == 2
    await twin.close()


async def test_what_cannot_be_renewed_serves_until_it_ends(machine: Scripted, driver: Oss) -> None:
    """A metadata service that fails meanwhile is no outage."""
    has_role(machine, credentials(1, lasts=EARLY - 10.0))
    assert await read(driver, "a/key") == b"12345"
    machine.always(f"{ROLES}cache", Turn(status=500, body=b""))
    assert await read(driver, "a/key") == b"12345"


async def test_credentials_that_are_refused_are_looked_for_anew(
    service: Service, machine: Scripted, driver: Oss
) -> None:
    """A role that was changed under us: the next request asks again, without a restart."""
    has_role(machine, credentials(1), credentials(2))
    assert await read(driver, "a/key") == b"12345"
    service.accounts["STS.1"].token = "another"
    with pytest.raises(CredentialsRefused, match="a new one is looked for with the next request"):
        await read(driver, "a/key")
    assert await read(driver, "a/key") == b"12345"
    assert driver.bucket.client.identity.now.id == "STS.2"


async def test_a_late_refusal_of_old_ones_is_no_matter(machine: Scripted, driver: Oss) -> None:
    """A request that was signed before the others were renewed: those stay, and nobody is asked again."""
    has_role(machine, credentials(1, lasts=EARLY - 10.0), credentials(2))
    identity = driver.bucket.client.identity
    old = await identity.current("a/key")
    new = await identity.current("a/key")
    identity.refused(old)
    assert identity.now is new
    assert await read(driver, "a/key") == b"12345"
    assert machine.lines.count(f"GET {ROLES}cache") == 2


async def test_who_left_while_asking_delays_nobody(
    machine: Scripted, driver: Oss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was given up in the middle of the question: the next one asks at once."""
    monkeypatch.setattr("msrcache.storage.ossidentity.PAUSE", 60.0)
    hold = Hold(at=0)
    machine.script("/latest/api/token", Turn(body=b"token", hold=hold), method="PUT")
    left = asyncio.create_task(driver.stat("a/key"))
    await hold.reached.wait()
    left.cancel()
    await asyncio.wait({left})
    hold.go.set()
    has_role(machine, credentials(1))
    assert await read(driver, "a/key") == b"12345"


@pytest.mark.parametrize("prefix", ["OSS", "ALIBABA_CLOUD"])
async def test_keys_of_the_environment(
    machine: Scripted, driver: Oss, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """By the SDK's names and by the general ones; nobody is asked."""
    monkeypatch.setenv(f"{prefix}_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv(f"{prefix}_ACCESS_KEY_SECRET", SECRET)
    assert await read(driver, "a/key") == b"12345"
    assert machine.ledger == []


async def test_a_token_of_the_environment(driver: Oss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary keys come with it."""
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "STS.1")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "secret-1")
    monkeypatch.setenv("OSS_SESSION_TOKEN", "token-1")
    assert await read(driver, "a/key") == b"12345"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the token of a pod that has a role."""
    path = tmp_path / "token"
    path.write_text("oidc-1\n")
    monkeypatch.setenv("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/cache")
    monkeypatch.setenv("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "acs:ram::1:oidc-provider/ack")
    monkeypatch.setenv("ALIBABA_CLOUD_OIDC_TOKEN_FILE", str(path))
    return path


async def test_the_role_of_a_pod(machine: Scripted, driver: Oss, pod: Path) -> None:
    """Its token goes to the token service, as it is in the file then."""
    first = json.loads(credentials(1, lasts=EARLY - 10.0))
    machine.script("/", Turn(body=json.dumps({"Credentials": first}).encode()), method="POST")
    assert await read(driver, "a/key") == b"12345"
    pod.write_text("oidc-2\n")
    second = json.loads(credentials(2))
    machine.script("/", Turn(body=json.dumps({"Credentials": second}).encode()), method="POST")
    assert await read(driver, "a/key") == b"12345"
    assert driver.bucket.client.identity.now.id == "STS.2"
    assert machine.lines == ["POST /"] * 2


async def test_a_pod_that_is_refused_is_told(machine: Scripted, driver: Oss, pod: Path) -> None:
    """With the service's code, without the token; a file that is not there is told too."""
    machine.always("/", Turn(status=400, body=b'{"Code": "AuthenticationFail.NoPermission"}'), "POST")
    with pytest.raises(
        CredentialsRefused, match="refuses the role acs:ram::1:role/cache: AuthenticationFail"
    ):
        await read(driver, "a/key")
    pod.unlink()
    with pytest.raises(Unavailable, match="no credentials") as failed:
        await read(driver, "a/key")
    assert "oidc" not in str(failed.value)


async def test_an_address_that_gives_credentials(
    machine: Scripted, driver: Oss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Alibaba Cloud's other programs ask it."""
    monkeypatch.setenv("ALIBABA_CLOUD_CREDENTIALS_URI", f"{machine.url}/mine")
    machine.script("/mine", Turn(body=credentials(1, Code="Success")))
    assert await read(driver, "a/key") == b"12345"
    assert machine.lines == ["GET /mine"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"no JSON", "the RAM role cache gave no credentials: something else came"),
        (b'{"Code": "Failed"}', "the RAM role cache gave no credentials: Failed"),
        (credentials(1, Expiration="soon"), "whose end cannot be read"),
        (b" " * (65 << 10), "has no end"),
    ],
    ids=["text", "failed", "when", "endless"],
)
async def test_what_is_no_credentials_is_told(
    machine: Scripted, driver: Oss, answer: bytes, said: str
) -> None:
    """In a sentence, and it is bounded."""
    has_role(machine, answer)
    with pytest.raises(CredentialsRefused, match=said):
        await read(driver, "a/key")


async def test_a_machine_without_a_role_is_told_and_heals(machine: Scripted, driver: Oss) -> None:
    """What to give; and when it is given, all works."""
    with pytest.raises(
        CredentialsRefused, match="give accesskeyid and accesskeysecret, or the machine a RAM role"
    ):
        await read(driver, "a/key")
    has_role(machine, credentials(1))
    assert await read(driver, "a/key") == b"12345"


async def test_who_gives_credentials_is_not_pressed(
    machine: Scripted, driver: Oss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred requests while it refuses are one question, and each is told why."""
    monkeypatch.setattr("msrcache.storage.ossidentity.PAUSE", 60.0)
    told = await asyncio.gather(*(driver.stat("a/key") for _ in range(100)), return_exceptions=True)
    assert {type(error) for error in told} == {CredentialsRefused}
    assert machine.lines == ["PUT /latest/api/token", f"GET {ROLES}"]


async def test_nobody_there_is_unavailable(driver: Oss, monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine of Alibaba Cloud's, and no keys: in words, in time."""
    monkeypatch.setattr("msrcache.storage.ossidentity.METADATA", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="no credentials: the service that gives them does not answer"):
        await driver.stat("a/key")


async def test_nothing_of_them_is_shown() -> None:
    """Neither by the identity nor by the credentials."""
    given = {
        "bucket": BUCKET,
        "region": REGION,
        "accesskeyid": "AK-ID",
        "accesskeysecret": "SK",
        "securitytoken": "TK",
    }
    identity = Identity(parameters(given))
    shown = repr(identity) + repr(await identity.current("a/key"))
    assert not any(secret in shown for secret in ("AK-ID", "SK", "TK"))
