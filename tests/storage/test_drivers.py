"""Drivers by name: one module each, imported only when configured."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from msrcache.config.storage import DRIVERS as NAMES
from msrcache.config.storage import StorageSection
from msrcache.storage.drivers import DRIVERS, another, open_driver, preload
from msrcache.storage.filesystem import Filesystem
from msrcache.storage.memory import Memory
from msrcache.storage.parameters import ParameterError


@dataclass(frozen=True)
class Section:
    """As config.yml's `storage:`."""

    driver: str
    parameters: dict[str, object] = field(default_factory=dict)


def test_every_configurable_driver_has_its_module() -> None:
    """The configuration and the table know the same names."""
    assert set(DRIVERS) == set(NAMES)


async def test_the_default_section_opens_a_folder() -> None:
    """Without a word in the file it is Docker Registry's default folder."""
    driver = open_driver(StorageSection())
    assert isinstance(driver, Filesystem)
    assert driver.root == Path("/var/lib/registry")
    await driver.close()


async def test_drivers_open_by_name(tmp_path: Path) -> None:
    """And ask nobody: the folder need not be there."""
    folder = open_driver(Section("filesystem", {"rootdirectory": str(tmp_path / "none"), "maxthreads": "3"}))
    memory = open_driver(Section("inmemory"))
    assert isinstance(folder, Filesystem)
    assert isinstance(memory, Memory)
    assert not (tmp_path / "none").exists()
    for driver in (folder, memory):
        await driver.close()


async def test_another_is_a_second_instance_on_the_same_store(tmp_path: Path) -> None:
    """Of its own making where the driver can (what is in memory), else by its parameters; what one writes both see."""
    for section in (Section("filesystem", {"rootdirectory": str(tmp_path)}), Section("inmemory")):
        here = open_driver(section)
        there = another(here, section)
        assert there is not here
        await here.put("k", b"12")
        assert (await there.stat("k")).size == 2
        for driver in (here, there):
            await driver.close()


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (Section("ftp"), "no such driver; there are azure, filesystem"),
        (Section("filesystem", {"rootdirectory": "relative"}), "rootdirectory should be an absolute path"),
        (Section("filesystem", {"maxthreads": "x"}), "maxthreads should be a whole number"),
        (Section("filesystem", {"rootdir": "/a"}), "did you mean rootdirectory"),
        (Section("inmemory", {"size": "1"}), "storage.inmemory has no parameter size; there are: none"),
    ],
)
def test_wrong_sections_are_refused_in_words(section: Section, words: str) -> None:
    """One sentence that says what would be right."""
    with pytest.raises(ParameterError) as refused:
        open_driver(section)
    assert words in str(refused.value)


def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence holds the line to run, for the alias s3aws too."""

    def import_module(name: str) -> ModuleType:
        del name
        raise ModuleNotFoundError("No module named 'aiobotocore'", name="aiobotocore")

    monkeypatch.setattr("msrcache.storage.drivers.import_module", import_module)
    with pytest.raises(
        ParameterError, match=r"storage\.s3aws needs .* aiobotocore: pip install 'msrcache\[s3\]'"
    ):
        open_driver(Section("s3aws"))


def test_a_driver_that_is_not_written_yet_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback, and no advice to install what would not help."""
    monkeypatch.setitem(DRIVERS, "s3", "msrcache.storage.nothing")
    with pytest.raises(ParameterError, match=r"storage\.s3: this version has no such driver"):
        open_driver(Section("s3"))


def test_no_sdk_is_imported_unasked() -> None:
    """Opening a folder imports no package of a cloud."""
    code = (
        "import sys; from types import SimpleNamespace as S; from msrcache.storage.drivers import open_driver;"
        "open_driver(S(driver='filesystem', parameters={}));"
        "print([n for n in sys.modules if n.split('.')[0] in ('aiobotocore', 'azure', 'google', 'keystoneauth1')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_drivers_can_be_brought_in_before_a_fork() -> None:
    """Their code, and their SDKs', starts no thread: a fork would copy the locks of one without it."""
    program = (
        "import os\n"
        "from msrcache.config.storage import StorageSection\n"
        "from msrcache.storage.drivers import preload\n"
        f"for name in {list(DRIVERS)}:\n"
        "    preload(StorageSection(driver=name))\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "1\n", done.stderr


def test_what_cannot_be_brought_in_is_left_to_who_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence with the missing package comes from there."""
    monkeypatch.setitem(sys.modules, "msrcache.storage.s3", None)
    preload(Section("s3"))
