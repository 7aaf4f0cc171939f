"""The sample for Google Cloud Storage and its role: what the files of config/ say is what the driver does and needs."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml

from msrcache.config.load import load
from msrcache.oci.ranges import Span
from msrcache.storage.drivers import open_driver
from msrcache.storage.errors import Denied, NotFound
from msrcache.storage.gcs import Gcs
from msrcache.storage.gcsparameters import ALIGNED, EMULATOR, GcsParameters, parameters
from tests.contract.harness import Spooler, keys, pattern, read, write
from tests.stage.clients import ran
from tests.stage.gcsservices import RunningGcs, fakegcs
from tests.stage.tools import PROJECT

SAMPLE = PROJECT / "config" / "gcs.yml"
ROLE = PROJECT / "config" / "gcs-role.yml"
BUCKET = "registry-cache"
PART = 4 * ALIGNED


async def test_the_sample_is_a_configuration() -> None:
    """`msrcache check-config` finds nothing wrong, and the driver takes it."""
    said = await ran(sys.executable, "-m", "msrcache", "check-config", SAMPLE, "--strict")
    assert "bucket: registry-cache" in said.out
    driver = open_driver(load(SAMPLE, {}).config.storage)
    assert isinstance(driver, Gcs)
    await driver.close()


def test_the_sample_has_every_parameter_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set in the file is what holds without it; what has no default is shown as a comment."""
    monkeypatch.delenv(EMULATOR, raising=False)
    text = SAMPLE.read_text()
    given = load(SAMPLE, {}).config.storage.parameters
    found = parameters(given)
    for field in fields(GcsParameters):
        assert f"{field.name}:" in text, field.name
        if field.name in given and field.default is not MISSING:
            assert getattr(found, field.name) == field.default, field.name


def test_the_page_has_every_parameter() -> None:
    """docs/storage.md says of each what it does."""
    page = (
        (PROJECT / "docs" / "storage.md")
        .read_text()
        .partition("## Google Cloud Storage")[2]
        .partition("\n## ")[0]
    )
    for field in fields(GcsParameters):
        assert f"`{field.name}`" in page, field.name


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningGcs]:
    """The service with a bucket, and an account that may nothing."""
    async with fakegcs(tmp_path / "gcs") as running:
        await running.make_bucket(BUCKET)
        running.front.allowed = set()
        yield running


@pytest.fixture
async def driver(service: RunningGcs) -> AsyncIterator[Gcs]:
    """The account's."""
    made = service.driver(BUCKET, chunksize=PART)
    yield made
    await made.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes spool files."""
    folder = tmp_path / "spool"
    folder.mkdir()
    spooler = Spooler(folder)
    yield spooler
    spooler.close()


def role() -> set[str]:
    """What it allows."""
    return set(yaml.safe_load(ROLE.read_text())["includedPermissions"])


async def everything(driver: Gcs, spool: Spooler) -> None:
    """Each call that a cache makes."""
    await driver.put("a/1", b"1")
    await driver.put("a/1", b"2")
    assert await driver.create("a/2", b"2")
    assert (await driver.stat("a/1")).size == 1
    assert await read(driver, "a/2") == b"2"
    await driver.put("a/3", b"wrong")
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


@pytest.mark.real
async def test_the_role_suffices(service: RunningGcs, driver: Gcs, spool: Spooler) -> None:
    """With what it allows, and nothing else, every call of the driver works; without it none does."""
    with pytest.raises(Denied):
        await driver.put("a/1", b"1")
    service.front.allowed = role()
    await everything(driver, spool)


CALLS: dict[str, Callable[[Gcs], Awaitable[object]]] = {
    "storage.objects.create": lambda driver: driver.put("a/new", b"1"),
    "storage.objects.get": lambda driver: read(driver, "a/1"),
    "storage.objects.delete": lambda driver: driver.put("a/1", b"another"),
    "storage.objects.list": lambda driver: keys(driver.list("a")),
}


def test_every_permission_of_the_role_is_tried() -> None:
    """None is there that nobody needs."""
    assert role() == set(CALLS)


@pytest.mark.real
@pytest.mark.parametrize("permission", CALLS)
async def test_what_is_missing_is_named(service: RunningGcs, driver: Gcs, permission: str) -> None:
    """Without one of its permissions a call is denied, and the sentence says which to allow."""
    service.front.allowed = role()
    await driver.put("a/1", b"1")
    service.front.allowed = role() - {permission}
    with pytest.raises(Denied, match=f"on bucket {BUCKET} is denied; allow {permission}"):
        await CALLS[permission](driver)
    service.front.allowed = role()
    await CALLS[permission](driver)
