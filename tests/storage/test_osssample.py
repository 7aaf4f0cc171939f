"""The sample for OSS and its policy: what the files of config/ say is what the driver does and needs."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from msrcache.config.load import load
from msrcache.oci.ranges import Span
from msrcache.storage.drivers import open_driver
from msrcache.storage.errors import Denied, NotFound
from msrcache.storage.oss import Oss
from msrcache.storage.ossparameters import MIB, OssParameters, parameters
from tests.contract.harness import Spooler, keys, pattern, read, write
from tests.stage.clients import ran
from tests.stage.ossservice import Service, ossservice
from tests.stage.osssigning import Account
from tests.stage.tools import PROJECT

SAMPLE = PROJECT / "config" / "oss.yml"
POLICY = PROJECT / "config" / "oss-policy.json"
BUCKET = "registry-cache"
USER, SECRET = "cache-user", "cache-secret"
PART = 5 * MIB


async def test_the_sample_is_a_configuration() -> None:
    """`msrcache check-config` finds nothing wrong, and the driver takes it."""
    said = await ran(sys.executable, "-m", "msrcache", "check-config", SAMPLE, "--strict")
    assert "bucket: registry-cache" in said.out
    driver = open_driver(load(SAMPLE, {}).config.storage)
    assert isinstance(driver, Oss)
    await driver.close()


def test_the_sample_has_every_parameter_with_its_default() -> None:
    """What is set in the file is what holds without it; what has no default is shown as a comment."""
    text = SAMPLE.read_text()
    given = load(SAMPLE, {}).config.storage.parameters
    found = parameters(given)
    for field in fields(OssParameters):
        assert f"{field.name}:" in text, field.name
        if field.name in given and field.name not in ("bucket", "region"):
            assert getattr(found, field.name) == field.default, field.name


def test_the_page_has_every_parameter() -> None:
    """docs/storage.md says of each what it does."""
    page = (PROJECT / "docs" / "storage.md").read_text().partition("\n## OSS")[2]
    for field in fields(OssParameters):
        assert f"`{field.name}`" in page, field.name


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """With a bucket, and a user who may nothing."""
    async with ossservice() as running:
        running.make_bucket(BUCKET)
        running.accounts[USER] = Account(SECRET, allowed=set())
        yield running


@pytest.fixture
async def driver(service: Service) -> AsyncIterator[Oss]:
    """Of that user."""
    made = service.driver(BUCKET, accesskeyid=USER, accesskeysecret=SECRET, chunksize=PART)
    yield made
    await made.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes spool files."""
    spooler = Spooler(tmp_path)
    yield spooler
    spooler.close()


def allow(service: Service, *, but: str = "") -> None:
    """Give the user what the policy says, less one action."""
    statements = json.loads(POLICY.read_text())["Statement"]
    service.accounts[USER].allowed = {action for one in statements for action in one["Action"]} - {but}


async def everything(service: Service, driver: Oss, spool: Spooler) -> None:
    """All that the driver ever asks."""
    await driver.put("a/1", b"1")
    assert await driver.create("a/2", b"2")
    assert await read(driver, "a/1") == b"1"
    await write(driver, "a/3", spool(pattern(PART + 1)))
    assert await keys(driver.list("a")) == ["a/1", "a/2", "a/3"]
    service.buckets[BUCKET].uploads.clear()
    await driver.bucket.ask("InitiateMultipartUpload", "a/dead")
    assert await driver.sweep(0.0) == 1
    await driver.delete("a/1")
    await driver.delete("a/2", "a/3")
    with pytest.raises(NotFound):
        await driver.stat("a/1")


async def test_the_policy_suffices(service: Service, driver: Oss, spool: Spooler) -> None:
    """With what it allows and nothing more, all calls of the driver work."""
    allow(service)
    await everything(service, driver, spool)


async def abort(driver: Oss, spool: Spooler) -> None:
    """Leave a writer that has sent a part, as a fill that fails; a refused abort is what abort() tells."""
    writer = driver.writer("a/parts")
    await writer.write(spool(pattern(PART + 1)), Span(0, PART + 1))
    await writer.abort()


LACKING: dict[str, Callable[[Oss, Spooler], Awaitable[object]]] = {
    "oss:PutObject": lambda driver, _: driver.put("a/1", b"1"),
    "oss:GetObject": lambda driver, _: driver.stat("a/0"),
    "oss:DeleteObject": lambda driver, _: driver.delete("a/0", "a/1"),
    "oss:ListObjects": lambda driver, _: keys(driver.list("a")),
    "oss:ListMultipartUploads": lambda driver, _: driver.sweep(0.0),
    "oss:ListParts": lambda driver, _: driver.sweep(0.0),
    "oss:AbortMultipartUpload": abort,
}


@pytest.mark.parametrize("action", LACKING)
async def test_each_action_of_the_policy_is_needed(
    service: Service, driver: Oss, spool: Spooler, action: str
) -> None:
    """Without it a call is denied, in a sentence that names the action; nothing of the policy is too much."""
    allow(service)
    await driver.put("a/0", b"0")
    await driver.bucket.ask("InitiateMultipartUpload", "a/dead")
    allow(service, but=action)
    with pytest.raises(Denied, match=f"on bucket {BUCKET} is denied; allow {action}"):
        await LACKING[action](driver, spool)


def test_every_action_of_the_policy_was_tried() -> None:
    """The list above is the policy's."""
    statements = json.loads(POLICY.read_text())["Statement"]
    assert {action for one in statements for action in one["Action"]} == set(LACKING)
