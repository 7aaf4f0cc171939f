"""The sample for Azure: what config/azure.yml says is what the driver takes and does."""

import sys
from dataclasses import MISSING, fields

from msrcache.config.load import load
from msrcache.storage.azure import Azure
from msrcache.storage.azureparameters import ADOPT, IDENTITIES, AzureParameters, parameters
from msrcache.storage.drivers import open_driver
from tests.stage.clients import ran
from tests.stage.tools import PROJECT

SAMPLE = PROJECT / "config" / "azure.yml"
TAKEN_APART = {"account": "accountname", "url": "serviceurl", "identity": "credentials"}


async def test_the_sample_is_a_configuration() -> None:
    """`msrcache check-config` finds nothing wrong, and the driver takes it."""
    said = await ran(sys.executable, "-m", "msrcache", "check-config", SAMPLE, "--strict")
    assert "container: registry-cache" in said.out
    driver = open_driver(load(SAMPLE, {}).config.storage)
    assert isinstance(driver, Azure)
    await driver.close()


def test_the_sample_has_every_parameter_with_its_default() -> None:
    """What is set in the file is what holds without it; what has no default is shown as a comment."""
    text = SAMPLE.read_text()
    given = load(SAMPLE, {}).config.storage.parameters
    found = parameters(given)
    for field in fields(AzureParameters):
        name = TAKEN_APART.get(field.name, field.name)
        assert f"{name}:" in text, name
        if name in given and field.default is not MISSING:
            assert getattr(found, field.name) == field.default, name
    for name in ("accountkey", "sastoken", "connectionstring", "realm", "clientid", "tenantid", "secret"):
        assert f"{name}:" in text, name
    for word in (*IDENTITIES, *ADOPT):
        assert word in text


def test_the_page_has_every_parameter() -> None:
    """docs/storage.md says of each what it does."""
    page = (PROJECT / "docs" / "storage.md").read_text().partition("## Azure")[2]
    for field in fields(AzureParameters):
        assert f"`{TAKEN_APART.get(field.name, field.name)}`" in page, field.name
