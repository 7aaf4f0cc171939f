"""The sample for Swift: what config/swift.yml says is what the driver takes and does."""

import sys
from dataclasses import fields

from msrcache.config.load import load
from msrcache.storage.drivers import open_driver
from msrcache.storage.swift import Swift
from msrcache.storage.swiftparameters import ENDPOINTS, SwiftParameters, parameters
from tests.stage.clients import ran
from tests.stage.tools import PROJECT

SAMPLE = PROJECT / "config" / "swift.yml"
OWN = ("authurl", "container", "username", "password", "tenant", "domain")


async def test_the_sample_is_a_configuration() -> None:
    """`msrcache check-config` finds nothing wrong, and the driver takes it."""
    said = await ran(sys.executable, "-m", "msrcache", "check-config", SAMPLE, "--strict")
    assert "container: registry-cache" in said.out
    driver = open_driver(load(SAMPLE, {}).config.storage)
    assert isinstance(driver, Swift)
    await driver.close()


def test_the_sample_has_every_parameter_with_its_default() -> None:
    """What is set in the file is what holds without it; what has no default is shown as a comment."""
    text = SAMPLE.read_text()
    given = load(SAMPLE, {}).config.storage.parameters
    found = parameters(given)
    for field in fields(SwiftParameters):
        assert f"{field.name}:" in text, field.name
        if field.name in given and field.name not in OWN:
            assert getattr(found, field.name) == field.default, field.name
    for word in ENDPOINTS:
        assert word in text


def test_the_page_has_every_parameter() -> None:
    """docs/storage.md says of each what it does."""
    page = (PROJECT / "docs" / "storage.md").read_text().partition("\n## Swift")[2]
    for field in fields(SwiftParameters):
        assert f"`{field.name}`" in page, field.name
