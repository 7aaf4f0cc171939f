"""The OSS driver keeps the storage contract, on our stand-in for OSS, which is our reading of it."""

from collections.abc import AsyncIterator

import pytest

from msrcache.storage.driver import Driver
from msrcache.storage.ossbucket import Bucket
from msrcache.storage.ossparameters import SMALLEST_PART, parameters
from msrcache.storage.ossupload import OssUpload
from tests.contract.clauses import DriverContract
from tests.stage.ossservice import Service, ossservice

BUCKET = "contract"


PAGE = 100
"""Objects in one answer of the stand-in."""


class OssHarness:
    """A bucket of its own on a running stand-in."""

    part = SMALLEST_PART
    presigns = True
    page = PAGE

    def __init__(self, service: Service) -> None:
        self._service = service

    def driver(self) -> Driver:
        """As Harness."""
        return self._service.driver(BUCKET, chunksize=self.part, rootdirectory="/some/folder/")

    async def leave_dead_writer(self, key: str) -> None:
        """An upload that nobody completes."""
        bucket = Bucket(parameters(self._service.settings(BUCKET, rootdirectory="some/folder")))
        await OssUpload(bucket, key).begin()
        await bucket.client.close()

    async def leftovers(self) -> int:
        """As Harness: uploads that are open."""
        return len(self._service.uploads(BUCKET))


class TestStandIn(DriverContract):
    """On the stand-in; listings in pages of a hundred."""

    @pytest.fixture
    async def harness(self) -> AsyncIterator[OssHarness]:
        """An empty bucket."""
        async with ossservice() as service:
            service.make_bucket(BUCKET)
            service.page = PAGE
            yield OssHarness(service)
