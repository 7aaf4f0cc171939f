"""One fleet of nodes for all tests of NFS; it boots with the first that asks."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.harness import Spooler
from tests.stage.nodes.fleet import Fleet, fleet
from tests.stage.nodes.machine import need_nodes


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A file server and two clients."""
    need_nodes()
    folder: Path = tmp_path_factory.mktemp("nodes")
    async with fleet(folder) as running:
        yield running


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes the files that writers are given."""
    spooler = Spooler(tmp_path)
    yield spooler
    spooler.close()
