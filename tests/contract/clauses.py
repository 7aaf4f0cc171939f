"""The clauses of the storage contract: each method is one promise, its docstring the promise in words.

Every clause has two instances of a driver on one store, `here` and `there`: what is done here is seen there. So each
of them proves read-after-write between replicas as well.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from msrcache.storage.driver import Driver
from tests.contract.harness import Harness, Spooler
from tests.contract.probing import ProbingClauses
from tests.contract.reading import ReadingClauses
from tests.contract.writing import WritingClauses


class DriverContract(ReadingClauses, WritingClauses, ProbingClauses):
    """All clauses; a subclass brings the fixture `harness`."""

    @pytest.fixture
    async def here(self, harness: Harness) -> AsyncIterator[Driver]:
        """The driver of one replica."""
        driver = harness.driver()
        yield driver
        await driver.close()

    @pytest.fixture
    async def there(self, harness: Harness) -> AsyncIterator[Driver]:
        """The driver of another."""
        driver = harness.driver()
        yield driver
        await driver.close()

    @pytest.fixture
    def spool(self, tmp_path: Path) -> Iterator[Spooler]:
        """Makes the files that writers are given."""
        folder = tmp_path / "spool"
        folder.mkdir()
        spooler = Spooler(folder)
        yield spooler
        spooler.close()


CLAUSES = sorted(name for name in dir(DriverContract) if name.startswith("test_"))
