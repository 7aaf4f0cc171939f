"""A container of the real Swift, a driver on it, and one behind a network that misbehaves."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from msrcache.storage.swift import Swift
from tests.contract.harness import Spooler
from tests.stage.swiftservices import RunningSwift
from tests.stage.toxics import Toxic, toxic
from tests.storage.swift.ledger import PART


@pytest.fixture
async def container(swift_service: RunningSwift) -> str:
    """An empty one."""
    return await swift_service.make_container()


@pytest.fixture
async def driver(swift_service: RunningSwift, container: str) -> AsyncIterator[Swift]:
    """On that container."""
    made = swift_service.driver(container, chunksize=PART)
    yield made
    await made.close()


@pytest.fixture
async def network(swift_service: RunningSwift, tmp_path: Path) -> AsyncIterator[Toxic]:
    """What lies between the service and a driver that is far."""
    async with toxic(tmp_path / "toxics", swift_service.port) as proxy:
        yield proxy


@pytest.fixture
async def far(swift_service: RunningSwift, container: str, network: Toxic) -> AsyncIterator[Swift]:
    """A driver behind that network."""
    made = swift_service.driver(container, port=network.port, chunksize=PART)
    yield made
    await made.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes spool files."""
    folder = tmp_path / "spool"
    folder.mkdir()
    spooler = Spooler(folder)
    yield spooler
    spooler.close()
