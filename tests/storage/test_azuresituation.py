"""What an operator is told of a container's and an account's settings."""

import pytest

from msrcache.storage.azure import Azure
from msrcache.storage.azureparameters import parameters
from msrcache.storage.azuresituation import CUT, Settings, told
from tests.stage.azureservice import RunningAzure

HNS = Settings(account={"account_kind": "StorageV2", "sku_name": "Standard_ZRS", "is_hns_enabled": "true"})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(container={"x-ms-blob-public-access": "blob"}), "is public (blob): whoever knows"),
        (Settings(container={"x-ms-has-immutability-policy": "true"}), "cannot be replaced"),
        (Settings(container={"x-ms-has-legal-hold": "True"}), "cannot be replaced"),
        (HNS, "hierarchical namespace"),
        (Settings(kept_days=7), "for 7 days"),
    ],
)
def test_what_breaks_or_costs_is_told_first(settings: Settings, words: str) -> None:
    """One sentence for each, before what is always so."""
    said = told("cache", settings, both=False)
    assert words in said[0]
    assert said[-1] == CUT
    assert len(said) == 2 + bool(settings.account)


def test_nothing_is_made_up() -> None:
    """Where nothing may be read, or all is well, nothing is said of it."""
    well = Settings(
        container={"x-ms-has-legal-hold": "false", "x-ms-has-immutability-policy": "false"},
        account={"account_kind": "StorageV2", "sku_name": "Standard_ZRS", "is_hns_enabled": "false"},
    )
    assert told("cache", Settings(), both=False) == [CUT]
    assert told("cache", well, both=False) == ["the account is StorageV2, Standard_ZRS", CUT]
    assert "both is served" in told("cache", Settings(), both=True)[0]


@pytest.mark.real
async def test_they_are_read_from_a_real_service(azure_service: RunningAzure) -> None:
    """Public access and the account's kind with the key; with a signature on the container what that shows."""
    container = azure_service.make_container()
    azure_service.client.get_container_client(container).set_container_access_policy({}, public_access="blob")
    driver = azure_service.driver(container)
    first, *_, last = await driver.situation()
    assert f"container {container} is public (blob)" in first
    assert last == CUT
    await driver.close()
    given = {"accountkey": "", "sastoken": azure_service.signature(container, "rcwdl")}
    driver = Azure(parameters(azure_service.settings(container) | given))
    assert (await driver.situation())[-1] == CUT
    await driver.close()
