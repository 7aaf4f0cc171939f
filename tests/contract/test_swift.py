"""The Swift driver keeps the storage contract, on a real OpenStack Swift; its create is not exclusive and says so."""

import pytest

from msrcache.storage.driver import Driver
from msrcache.storage.swiftcontainer import Container
from msrcache.storage.swiftparameters import SMALLEST_PART, parameters
from msrcache.storage.swiftupload import leftovers
from tests.contract.clauses import DriverContract
from tests.stage.swiftservices import RunningSwift

PREFIX = "some/prefix"


PAGE = 100
"""Objects that the driver asks for at once here: a thousand are a long time for servers in Python."""


class SwiftHarness:
    """A container of its own on a running service."""

    part = SMALLEST_PART
    presigns = True
    page = PAGE

    def __init__(self, service: RunningSwift, container: str) -> None:
        self._service = service
        self._container = container

    def driver(self) -> Driver:
        """As Harness."""
        return self._service.driver(self._container, chunksize=self.part, prefix=PREFIX, secretkey="signs")

    async def leave_dead_writer(self, key: str) -> None:
        """A segment that no manifest will ever name."""
        container = self._opened()
        name = f"{container.segments}{key}/0123456789abcdef/00001"
        status, _, _ = await self._service.ask("PUT", f"/{self._container}/{name}", data=b"1")
        assert status == 201
        await container.client.close()

    async def leftovers(self) -> int:
        """As Harness: uploads that have segments and no manifest."""
        container = self._opened()
        found = [upload async for upload in leftovers(container)]
        objects = await self._service.names(self._container, container.files)
        await container.client.close()
        return len([upload for upload in found if container.place(upload.key) not in objects])

    def _opened(self) -> Container:
        return Container(parameters(self._service.settings(self._container, prefix=PREFIX)))


@pytest.mark.real
@pytest.mark.timeout(600)  # small objects, each three times, by servers in Python
class TestSwift(DriverContract):
    """On Swift with three copies of everything."""

    @pytest.fixture
    async def harness(self, swift_service: RunningSwift, monkeypatch: pytest.MonkeyPatch) -> SwiftHarness:
        """An empty container."""
        monkeypatch.setattr("msrcache.storage.swiftcontainer.PAGE", PAGE)
        # The key stands there from the start: one that the driver puts itself signs nothing for a minute.
        key = {"X-Container-Meta-Temp-URL-Key": "signs"}
        return SwiftHarness(swift_service, await swift_service.make_container(**key))
