"""The sample for S3 and its policy: what the files of config/ say is what the driver does and needs."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from msrcache.config.load import load
from msrcache.oci.ranges import Span
from msrcache.storage.drivers import open_driver
from msrcache.storage.errors import Denied, NotFound
from msrcache.storage.s3 import S3
from msrcache.storage.s3parameters import MIB, S3Parameters
from tests.contract.harness import Spooler, keys, pattern, read, write
from tests.stage.clients import ran
from tests.stage.s3services import RunningS3, versitygw
from tests.stage.tools import PROJECT

SAMPLE = PROJECT / "config" / "s3.yml"
POLICY = PROJECT / "config" / "s3-policy.json"
BUCKET = "registry-cache"
USER, SECRET = "cacheuser", "cachesecret"
PART = 5 * MIB


async def test_the_sample_is_a_configuration() -> None:
    """`msrcache check-config` finds nothing wrong, and the driver takes it."""
    said = await ran(sys.executable, "-m", "msrcache", "check-config", SAMPLE, "--strict")
    assert "bucket: registry-cache" in said.out
    driver = open_driver(load(SAMPLE, {}).config.storage)
    assert driver.name == "s3"
    await driver.close()


def test_the_sample_has_every_parameter_with_its_default() -> None:
    """What is set in the file is what holds without it; what has no default is shown as a comment."""
    text = SAMPLE.read_text()
    section = load(SAMPLE, {}).config.storage.parameters
    for field in fields(S3Parameters):
        assert f"{field.name}:" in text, field.name
        if field.name in section and field.name not in ("bucket", "region"):
            assert str(section[field.name]).lower() == str(field.default).lower(), field.name


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningS3]:
    """versitygw with accounts, a bucket of root's, and a user who may nothing."""
    async with versitygw(tmp_path / "s3", accounts=True) as running:
        running.make_bucket(BUCKET)
        await running.add_account(USER, SECRET)
        yield running


def allow(service: RunningS3, *, but: str = "") -> None:
    """Give the user what the policy says, less one action."""
    policy: dict[str, Any] = json.loads(POLICY.read_text())
    for statement in policy["Statement"]:
        statement["Principal"] = {"AWS": [USER]}
        statement["Action"] = [action for action in statement["Action"] if action != but]
    policy["Statement"] = [statement for statement in policy["Statement"] if statement["Action"]]
    service.client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))


@pytest.fixture
async def driver(service: RunningS3) -> AsyncIterator[S3]:
    """The user's."""
    made = service.driver(BUCKET, accesskey=USER, secretkey=SECRET, chunksize=PART)
    yield made
    await made.close()


async def everything(driver: S3, spool: Spooler) -> None:
    """Each call that a cache makes."""
    await driver.put("a/1", b"1")
    assert await driver.create("a/2", b"2")
    assert (await driver.stat("a/1")).size == 1
    assert await read(driver, "a/2") == b"2"
    assert (await write(driver, "a/3", spool(pattern(PART + 1)))).size == PART + 1
    assert await keys(driver.list("a")) == ["a/1", "a/2", "a/3"]
    async with driver.writer("a/4") as writer:
        await writer.write(spool(pattern(PART + 1)), Span(0, PART + 1))
        await writer.abort()
    await driver.sweep(0.0)
    await driver.delete("a/1")
    await driver.delete("a/2", "a/3")
    with pytest.raises(NotFound):
        await driver.stat("a/1")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes spool files."""
    folder = tmp_path / "spool"
    folder.mkdir()
    spooler = Spooler(folder)
    yield spooler
    spooler.close()


@pytest.mark.real
async def test_the_policy_suffices(service: RunningS3, driver: S3, spool: Spooler) -> None:
    """With what it allows, and nothing else, every call of the driver works; without it none does."""
    with pytest.raises(Denied):
        await driver.put("a/1", b"1")
    allow(service)
    await everything(driver, spool)


CALLS: dict[str, Callable[[S3], Awaitable[object]]] = {
    "s3:PutObject": lambda driver: driver.put("a/new", b"1"),
    "s3:GetObject": lambda driver: read(driver, "a/1"),
    "s3:DeleteObject": lambda driver: driver.delete("a/1"),
    "s3:ListBucket": lambda driver: keys(driver.list("a")),
    "s3:ListBucketMultipartUploads": lambda driver: driver.sweep(0.0),
    "s3:ListMultipartUploadParts": lambda driver: driver.sweep(0.0),
    "s3:AbortMultipartUpload": lambda driver: driver.sweep(0.0),
}


def test_every_action_of_the_policy_is_tried() -> None:
    """None is there that nobody needs."""
    actions = {action for part in json.loads(POLICY.read_text())["Statement"] for action in part["Action"]}
    assert actions == set(CALLS)


@pytest.mark.real
@pytest.mark.parametrize("action", CALLS)
async def test_what_is_missing_is_named(service: RunningS3, driver: S3, action: str) -> None:
    """Without one of its actions a call is denied, and the sentence says which action to allow."""
    service.client.put_object(Bucket=BUCKET, Key="a/1", Body=b"1")
    service.client.create_multipart_upload(Bucket=BUCKET, Key="a/dead")
    allow(service, but=action)
    with pytest.raises(Denied, match=f"on bucket {BUCKET} is denied; allow {action}"):
        await CALLS[action](driver)
    allow(service)
    await CALLS[action](driver)
