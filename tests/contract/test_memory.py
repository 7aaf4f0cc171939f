"""The memory driver keeps the storage contract."""

import pytest

from tests.contract.clauses import DriverContract
from tests.contract.harness import MemoryHarness


class TestMemory(DriverContract):
    """Two instances over one Contents."""

    @pytest.fixture
    def harness(self) -> MemoryHarness:
        """A store in memory."""
        return MemoryHarness()
