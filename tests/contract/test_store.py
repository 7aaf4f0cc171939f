"""The portable store keeps the contract of the driver that it stands over."""

from pathlib import Path

import pytest

from msrcache.storage.driver import Driver
from msrcache.storage.store import Store
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics
from tests.contract.clauses import DriverContract
from tests.contract.harness import FolderHarness, MemoryHarness


class StoreInMemory(MemoryHarness):
    """Stores over one memory."""

    def driver(self) -> Driver:
        """As Harness."""
        return Store(super().driver(), metrics=Metrics(), clock=SystemClock())


class StoreInFolder(FolderHarness):
    """Stores over one folder."""

    def driver(self) -> Driver:
        """As Harness."""
        return Store(super().driver(), metrics=Metrics(), clock=SystemClock())


class TestStoreOverMemory(DriverContract):
    """Its contents are streams."""

    @pytest.fixture
    def harness(self) -> StoreInMemory:
        """A store in memory."""
        return StoreInMemory()


class TestStoreOverFilesystem(DriverContract):
    """Its contents are files."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> StoreInFolder:
        """A store in a folder."""
        return StoreInFolder(tmp_path / "registry")
