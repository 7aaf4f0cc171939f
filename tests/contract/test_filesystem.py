"""The filesystem driver keeps the storage contract, however it brings a spool file into the store."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.clauses import DriverContract
from tests.contract.harness import FolderHarness, Spooler

MEMORY = Path("/dev/shm")


class TestFilesystem(DriverContract):
    """Store and spool on one file system: the spool file is linked."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> FolderHarness:
        """A store in a folder that is not there yet."""
        return FolderHarness(tmp_path / "registry")


@pytest.mark.skipif(not MEMORY.is_dir(), reason="no second file system at /dev/shm")
class TestFilesystemApart(DriverContract):
    """The spool on another file system: its bytes are copied as they come."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> FolderHarness:
        """A store in a folder that is not there yet."""
        return FolderHarness(tmp_path / "registry")

    @pytest.fixture
    def spool(self) -> Iterator[Spooler]:
        """Files in memory."""
        folder = Path(tempfile.mkdtemp(dir=MEMORY))
        spooler = Spooler(folder)
        yield spooler
        spooler.close()
        shutil.rmtree(folder)
