"""The filesystem driver keeps the storage contract on NFS, with each clause's two instances on two machines."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.clauses import DriverContract
from tests.nfs.harness import NodesHarness, on_nodes
from tests.stage.nodes.fleet import Fleet

pytestmark = pytest.mark.real


class TestDefaultMount(DriverContract):
    """Mounted as mount(8) does without being told anything; the spool on the file server: files are linked."""

    @pytest.fixture
    async def harness(self, nodes: Fleet) -> AsyncIterator[NodesHarness]:
        """A folder that is not there yet."""
        async with on_nodes(nodes, "default", linking=True) as made:
            yield made


class TestPositiveMount(DriverContract):
    """Mounted with lookupcache=positive, as advised; the spool on local disk: bytes are copied."""

    @pytest.fixture
    async def harness(self, nodes: Fleet) -> AsyncIterator[NodesHarness]:
        """A folder that is not there yet."""
        async with on_nodes(nodes, "positive") as made:
            yield made
