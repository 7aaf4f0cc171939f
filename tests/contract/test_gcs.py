"""The driver of Google Cloud Storage keeps the storage contract, on fake-gcs-server and what is strict before it."""

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from msrcache.storage.driver import Driver
from msrcache.storage.gcs import Gcs
from msrcache.storage.gcsparameters import ALIGNED
from msrcache.storage.gcsupload import GcsUpload
from tests.contract.clauses import DriverContract
from tests.contract.harness import Harness, keys
from tests.stage.gcsservices import Emulator, RunningGcs, emulator, strict

_numbers = itertools.count(1)


PAGE = 100
"""Objects that the driver asks for at once here."""


class GcsHarness:
    """A bucket of its own on a running service."""

    part = 4 * ALIGNED
    presigns = True
    page = PAGE

    def __init__(self, service: RunningGcs, bucket: str) -> None:
        self._service = service
        self._bucket = bucket

    def driver(self) -> Driver:
        """As Harness."""
        return self._service.driver(self._bucket, chunksize=self.part, rootdirectory="/some/folder/")

    async def leave_dead_writer(self, key: str) -> None:
        """An upload that nobody completes."""
        driver = self.driver()
        assert isinstance(driver, Gcs)
        await GcsUpload(driver.bucket, key).begin()
        await driver.close()

    async def leftovers(self) -> int:
        """As Harness: uploads that are open."""
        return len(self._service.front.open_sessions)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fake_gcs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Emulator]:
    """One emulator for all clauses."""
    async with emulator(tmp_path_factory.mktemp("fakegcs")) as service:
        yield service


@pytest.mark.real
class TestFakeGcs(DriverContract):
    """On fake-gcs-server."""

    @pytest.fixture
    async def harness(self, fake_gcs: Emulator, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GcsHarness]:
        """An empty bucket."""
        monkeypatch.setattr("msrcache.storage.gcsbucket.PAGE", str(PAGE))
        async with strict(fake_gcs) as service:
            bucket = f"contract-{next(_numbers)}"
            await service.make_bucket(bucket)
            yield GcsHarness(service, bucket)

    async def test_sweep_removes_what_the_dead_left(
        self, here: Driver, there: Driver, harness: Harness
    ) -> None:
        """What a killed writer left is seen by nobody, cannot be listed, and is dropped by the service in a week:
        there is nothing to sweep, and objects stay.
        """
        await here.put("a/key", b"1")
        await harness.leave_dead_writer("a/dead")
        assert await there.sweep(0.0) == 0
        assert await keys(here.list("")) == ["a/key"]
