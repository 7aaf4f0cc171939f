"""The probe on Azurite: everything is kept there, nothing stays, and what is wrong is one sentence."""

import pytest

from msrcache.storage.azure import Azure
from msrcache.storage.azureparameters import parameters
from msrcache.storage.probe import Report, Verdict, probe
from msrcache.storage.promises_large import PROMISES
from msrcache.storage.watched import Ledger
from msrcache.telemetry.clock import SystemClock
from tests.stage.azureservice import RunningAzure

pytestmark = pytest.mark.real


async def probed(here: Azure) -> Report:
    """A probe between a driver and its twin."""
    there = here.twin()
    try:
        return await probe(
            here, there, PROMISES, prefix="msrcache/probe/0123", ledger=Ledger(SystemClock(), 10.0)
        )
    finally:
        await there.close()
        await here.close()


async def test_a_real_service_keeps_everything(azure_service: RunningAzure) -> None:
    """URLs and the clock too; the container is as empty as before, and no block is left."""
    container = azure_service.make_container()
    report = await probed(azure_service.driver(container))
    unkept = {row.promise.name: row.said for row in report.rows if row.verdict is not Verdict.KEPT}
    assert unkept == {}
    assert report.status == 0
    assert list(report.left) == []
    assert azure_service.blobs(container) == {}
    assert azure_service.uncommitted(container) == []
    assert all(permission.allowed for permission in report.permissions)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"accountkey": "d3Jvbmc="}, "is none of account testaccount's"),
        ({"accountkey": "", "sastoken": "se=2020-01-01T00:00:00Z&sp=r&sig=x"}, "has expired: give a new one"),
    ],
    ids=["key", "signature"],
)
async def test_what_is_wrong_is_told_once(
    azure_service: RunningAzure, settings: dict[str, object], words: str
) -> None:
    """In the service's own matter, and the rest is not tried."""
    given = {**azure_service.settings(azure_service.make_container()), **settings}
    report = await probed(Azure(parameters(given)))
    assert report.status == 2
    assert words in report.rows[0].said
    assert {row.verdict for row in report.rows} == {Verdict.UNKNOWN}
    assert report.rows[-1].said == "not tried: the store cannot be asked"
