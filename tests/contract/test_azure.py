"""The Azure driver keeps the storage contract, on Azurite, with and without Docker Registry 2.8's leading slash."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.azureclient import PAGE
from msrcache.storage.azurecontainer import Container
from msrcache.storage.azureparameters import SMALLEST_PART, parameters
from msrcache.storage.azureupload import AzureUpload
from msrcache.storage.driver import Driver
from msrcache.storage.errors import NotFound
from msrcache.storage.spooled import Part, Reading
from tests.contract.clauses import DriverContract
from tests.contract.harness import Harness, keys
from tests.contract.writing import KEY
from tests.stage.azureservice import RunningAzure


class AzureHarness:
    """A container of its own on a running service."""

    part = SMALLEST_PART
    presigns = True
    page = PAGE

    def __init__(self, service: RunningAzure, folder: Path, *, both: bool = False, **more: Any) -> None:
        self._service = service
        self._container = service.make_container()
        self._folder = folder
        self._both = both
        self._more = more

    def driver(self) -> Driver:
        """As Harness."""
        driver = self._service.driver(self._container, chunksize=self.part, **self._more)
        if self._both:
            driver.container.names.both = True  # as found out when the other spelling is there
        return driver

    async def leave_dead_writer(self, key: str) -> None:
        """Blocks that nobody commits."""
        given = self._service.settings(self._container, **self._more)
        container, folder = Container(parameters(given)), self._folder
        file = os.open(folder / "dead", os.O_RDWR | os.O_CREAT)
        os.write(file, b"12345678")
        with ThreadPoolExecutor(1) as pool:
            await AzureUpload(container, key).send(1, Part(Span(0, 8), file, Reading(pool)))
        os.close(file)
        await container.client.close()

    async def leftovers(self) -> int:
        """As Harness: names with blocks and no blob."""
        return len(self._service.uncommitted(self._container))


class OnAzurite(DriverContract):
    """All clauses; what Azure does about dead writers in its own words."""

    async def test_sweep_removes_what_the_dead_left(
        self, here: Driver, there: Driver, harness: Harness
    ) -> None:
        """Azure does it itself after a week: until then nothing of it is seen, and it hinders no writer."""
        await here.put(KEY, b"1")
        await harness.leave_dead_writer("a/dead")
        assert await harness.leftovers() == 1
        assert await there.sweep(0.0) == 0
        with pytest.raises(NotFound):
            await there.stat("a/dead")
        await there.put("a/dead", b"2")
        assert await harness.leftovers() == 0
        assert await keys(here.list("")) == sorted(["a/dead", KEY])


@pytest.mark.real
class TestAzurite(OnAzurite):
    """Names as Docker Registry 3 spells them, below a folder."""

    @pytest.fixture
    def harness(self, azure_service: RunningAzure, tmp_path: Path) -> AzureHarness:
        """An empty container."""
        return AzureHarness(azure_service, tmp_path, rootdirectory="/some/folder/")


@pytest.mark.real
@pytest.mark.slow
class TestLeadingSlash(OnAzurite):
    """Names as Docker Registry 2.8 spells them, beside some of version 3: every key is looked for by both."""

    @pytest.fixture
    def harness(self, azure_service: RunningAzure, tmp_path: Path) -> AzureHarness:
        """An empty container whose drivers look for both spellings."""
        return AzureHarness(azure_service, tmp_path, both=True, adopt="leadingslash")
