"""The probe on a real S3 service: everything is kept there, nothing stays, and what is wrong is one sentence."""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from msrcache.storage.probe import Report, Verdict, probe
from msrcache.storage.promises_large import PROMISES
from msrcache.storage.s3 import S3
from msrcache.storage.s3parameters import parameters
from msrcache.storage.watched import Ledger
from msrcache.telemetry.clock import SystemClock
from tests.stage.s3services import RunningS3, versitygw

pytestmark = pytest.mark.real


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningS3]:
    """One versitygw for all tests here."""
    async with versitygw(tmp_path_factory.mktemp("versitygw")) as running:
        yield running


async def probed(here: S3) -> Report:
    """A probe between a driver and its twin."""
    there = here.twin()
    try:
        return await probe(
            here, there, PROMISES, prefix="msrcache/probe/0123", ledger=Ledger(SystemClock(), 10.0)
        )
    finally:
        await there.close()
        await here.close()


async def test_a_real_service_keeps_everything(service: RunningS3) -> None:
    """URLs and the clock too; the bucket is as empty as before, and no upload is open."""
    service.make_bucket("kept")
    report = await probed(service.driver("kept"))
    unkept = {row.promise.name: row.said for row in report.rows if row.verdict is not Verdict.KEPT}
    # versitygw's own race: it removes the folder that another request is about to write to
    assert set(unkept) <= {"neighbours"}, unkept
    assert report.status == len(unkept)
    assert list(report.left) == []
    assert service.objects("kept") == {}
    assert service.uploads("kept") == []
    assert all(permission.allowed for permission in report.permissions)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bucket": "missing"}, "there is no bucket missing; create it"),
        ({"accesskey": "nobody"}, "access key is not known there"),
        ({"secretkey": "wrong"}, "secret key does not belong to the access key"),
    ],
    ids=["no-bucket", "access-key", "secret-key"],
)
async def test_what_is_wrong_is_told_once(
    service: RunningS3, settings: dict[str, object], words: str
) -> None:
    """In the service's own matter, and the rest is not tried."""
    with suppress(service.client.exceptions.BucketAlreadyOwnedByYou):
        service.make_bucket("refusing")
    report = await probed(S3(parameters({**service.settings("refusing"), **settings})))
    assert report.status == 2
    assert words in report.rows[0].said
    assert {row.verdict for row in report.rows} == {Verdict.UNKNOWN}
    assert report.rows[-1].said == "not tried: the store cannot be asked"
