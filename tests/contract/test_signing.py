"""A driver with signed URLs keeps the storage contract, and so does the portable store over it."""

from collections.abc import AsyncIterator

import pytest

from msrcache.storage.driver import Driver
from msrcache.storage.store import Store
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics
from tests.contract.clauses import DriverContract
from tests.contract.harness import MemoryHarness
from tests.stage.bucket import Bucket, Signing, bucket


class BucketHarness(MemoryHarness):
    """A store in memory that is served over HTTP."""

    presigns = True

    def __init__(self, service: Bucket) -> None:
        self.contents = service.contents
        self.service = service

    def driver(self) -> Driver:
        """As Harness."""
        return Store(Signing(self.service), metrics=Metrics(), clock=SystemClock())


class TestSigning(DriverContract):
    """Stores over one bucket."""

    @pytest.fixture
    async def harness(self) -> AsyncIterator[BucketHarness]:
        """A bucket of its own."""
        async with bucket() as service:
            yield BucketHarness(service)
