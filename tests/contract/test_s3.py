"""The S3 driver keeps the storage contract, on versitygw with every run and on MinIO with the slow ones."""

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from msrcache.storage.driver import Driver
from msrcache.storage.s3 import S3
from msrcache.storage.s3bucket import Bucket
from msrcache.storage.s3parameters import SMALLEST_PART, parameters
from msrcache.storage.s3upload import S3Upload
from tests.contract.clauses import DriverContract
from tests.stage.s3services import RunningS3, minio, versitygw

_numbers = itertools.count(1)


class S3Harness:
    """A bucket of its own on a running service."""

    part = SMALLEST_PART
    presigns = True
    page = 1000

    def __init__(self, service: RunningS3, bucket: str) -> None:
        self._service = service
        self._bucket = bucket
        self._first: S3 | None = None

    def driver(self) -> Driver:
        """As Harness: connections of its own each; the SDK's megabytes are read once."""
        if self._first is None:
            root = "/some/folder/"
            self._first = self._service.driver(self._bucket, chunksize=self.part, rootdirectory=root)
            return self._first
        return self._first.twin()

    async def leave_dead_writer(self, key: str) -> None:
        """An upload that nobody completes."""
        bucket = Bucket(parameters(self._service.settings(self._bucket, rootdirectory="some/folder")))
        await S3Upload(bucket, key).begin()
        await bucket.client.close()

    async def leftovers(self) -> int:
        """As Harness: uploads that are open."""
        return len(self._service.uploads(self._bucket))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def versity(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningS3]:
    """One versitygw for all clauses."""
    async with versitygw(tmp_path_factory.mktemp("versitygw")) as service:
        yield service


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def min_io(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningS3]:
    """One MinIO for all clauses."""
    async with minio(tmp_path_factory.mktemp("minio")) as service:
        yield service


@pytest.mark.real
class TestVersitygw(DriverContract):
    """On versitygw over plain files."""

    @pytest.fixture
    def harness(self, versity: RunningS3) -> S3Harness:
        """An empty bucket."""
        bucket = f"contract-{next(_numbers)}"
        versity.make_bucket(bucket)
        return S3Harness(versity, bucket)


@pytest.mark.real
@pytest.mark.slow
class TestMinio(DriverContract):
    """On MinIO, which takes minutes to build."""

    @pytest.fixture
    def harness(self, min_io: RunningS3) -> S3Harness:
        """An empty bucket."""
        bucket = f"contract-{next(_numbers)}"
        min_io.make_bucket(bucket)
        return S3Harness(min_io, bucket)
