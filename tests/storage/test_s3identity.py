"""Where the S3 driver finds who it is: environment, files, web identity, container, instance; all are renewed."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from msrcache.storage.s3 import S3
from msrcache.storage.s3errors import CredentialsRefused
from msrcache.storage.s3parameters import parameters
from tests.contract.harness import read
from tests.stage.s3services import KEY, REGION, SECRET, RunningS3, versitygw
from tests.stage.scripted import Scripted, Turn, scripted

BUCKET = "identity"

pytestmark = pytest.mark.real


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningS3]:
    """versitygw with a bucket that has one object."""
    async with versitygw(tmp_path / "s3") as running:
        running.make_bucket(BUCKET)
        running.client.put_object(Bucket=BUCKET, Key="a/key", Body=b"12345")
        yield running


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    """What gives out credentials."""
    async with scripted() as server:
        yield server


@asynccontextmanager
async def driver(url: str) -> AsyncIterator[S3]:
    """A driver that was not told who it is."""
    made = S3(parameters({"bucket": BUCKET, "regionendpoint": url, "region": REGION}))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without credentials, and the path of a shared file that is not there yet."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("msrcache.storage.s3client.CHAIN_PAUSE", 0.0)
    return path


def profile(secret: str) -> str:
    """A shared file."""
    return f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n"


async def test_credentials_of_the_environment(
    service: RunningS3, identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every S3 client reads them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with driver(service.url) as made:
        assert await read(made, "a/key") == b"12345"
    assert not identity.exists()


async def test_credentials_heal_without_a_restart(service: RunningS3, identity: Path) -> None:
    """None, then wrong ones, then the right ones in the shared file: the next call finds them."""
    async with driver(service.url) as made:
        with pytest.raises(CredentialsRefused, match="no credentials: give accesskey"):
            await read(made, "a/key")
        identity.write_text(profile("rotated-away"))
        with pytest.raises(CredentialsRefused):
            await read(made, "a/key")
        identity.write_text(profile(SECRET))
        assert await read(made, "a/key") == b"12345"
        assert (await made.stat("a/key")).size == 5


async def test_credentials_that_expire_are_renewed(
    service: RunningS3, identity: Path, tmp_path: Path
) -> None:
    """Those of a helper program with an expiry: it is asked again before they end."""
    ends = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    given = {"Version": 1, "AccessKeyId": KEY, "SecretAccessKey": SECRET, "Expiration": ends}
    helper = tmp_path / "helper.py"
    helper.write_text(
        f"open({str(tmp_path / 'asked')!r}, 'a').write('.')\nprint({json.dumps(json.dumps(given))})\n"
    )
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} {helper}\n")
    async with driver(service.url) as made:
        for _ in range(3):
            assert await read(made, "a/key") == b"12345"
    assert len((tmp_path / "asked").read_text()) >= 3
    assert not identity.exists()


@pytest.fixture
async def recorder() -> AsyncIterator[Scripted]:
    """Instead of versitygw, which knows no session tokens: a service that takes any request and remembers it."""
    async with scripted() as server:
        server.always(f"/{BUCKET}/a/key", Turn(body=b"12345"))
        yield server


def signed_with(recorder: Scripted) -> set[tuple[str, str]]:
    """The access keys and tokens that its requests came with."""
    return {
        (
            request.authorization.partition("Credential=")[2].partition("/")[0],
            request.headers.get("x-amz-security-token", ""),
        )
        for request in recorder.ledger
    }


def soon() -> str:
    """An expiry so near that new credentials are looked for with each request."""
    return (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")


def answer(**given: object) -> Turn:
    """A document of a metadata service."""
    keys = {
        "AccessKeyId": KEY,
        "SecretAccessKey": SECRET,
        "Token": "token",
        "Expiration": soon(),
        "Code": "Success",
    }
    return Turn(body=json.dumps({**keys, **given}).encode(), headers=(("Content-Type", "application/json"),))


async def test_credentials_of_a_container(
    recorder: Scripted, identity: Path, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECS, EKS Pod Identity: the endpoint that the environment names is asked, and again before they end."""
    script.always("/credentials", answer())
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{script.url}/credentials")
    async with driver(recorder.url) as made:
        for _ in range(2):
            assert await read(made, "a/key") == b"12345"
    assert len(script.lines) >= 2
    assert signed_with(recorder) == {(KEY, "token")}
    assert not identity.exists()


async def test_credentials_of_an_instance(
    recorder: Scripted, identity: Path, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EC2: a token, the role's name, its credentials."""
    roles = "/latest/meta-data/iam/security-credentials"
    script.always("/latest/api/token", Turn(body=b"metadata-token"), "PUT")
    script.always(f"{roles}/", Turn(body=b"cache-role"))
    script.always(f"{roles}/cache-role", answer())
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", script.url)
    async with driver(recorder.url) as made:
        assert await read(made, "a/key") == b"12345"
    assert f"GET {roles}/cache-role" in script.lines
    assert signed_with(recorder) == {(KEY, "token")}
    assert not identity.exists()


async def test_credentials_of_a_web_identity(
    recorder: Scripted, identity: Path, script: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """EKS: the token of the file goes to the token service, which gives the role's credentials."""
    (tmp_path / "token").write_text("a-kubernetes-token")
    document = (
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
        f"<AccessKeyId>{KEY}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>t</SessionToken>"
        f"<Expiration>{soon()}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>"
    )
    script.always("/", Turn(body=document.encode(), headers=(("Content-Type", "text/xml"),)), "POST")
    for name, value in (
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/cache"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token")),
        ("AWS_ENDPOINT_URL_STS", script.url),
        ("AWS_REGION", REGION),
        ("AWS_DEFAULT_REGION", REGION),
    ):
        monkeypatch.setenv(name, value)
    async with driver(recorder.url) as made:
        assert await read(made, "a/key") == b"12345"
    assert script.lines[0] == "POST /"
    assert signed_with(recorder) == {(KEY, "t")}
    assert not identity.exists()
