"""The sample for NFS: what config/nfs.yml says is what the driver does, and its mount is the one that is advised."""

import sys

from msrcache.config.load import load
from msrcache.storage.drivers import open_driver
from msrcache.storage.filesystem import DEFAULT_ROOT, DEFAULT_THREADS
from msrcache.storage.mounts import parse, remarks
from tests.stage.clients import ran
from tests.stage.tools import PROJECT

SAMPLE = PROJECT / "config" / "nfs.yml"


async def test_the_sample_is_a_configuration() -> None:
    """`msrcache check-config` finds nothing wrong, and the driver takes it."""
    said = await ran(sys.executable, "-m", "msrcache", "check-config", SAMPLE, "--strict")
    assert "rootdirectory: /var/lib/registry" in said.out
    driver = open_driver(load(SAMPLE, {}).config.storage)
    assert driver.name == "filesystem"
    await driver.close()


def test_the_sample_has_every_parameter_with_its_default() -> None:
    """What is set is what holds without it; the spool is not below the mount."""
    config = load(SAMPLE, {}).config
    given = {name: str(value) for name, value in config.storage.parameters.items()}
    assert given == {"rootdirectory": DEFAULT_ROOT, "maxthreads": str(DEFAULT_THREADS), "nfs": "auto"}
    assert not config.spool_path.is_relative_to(DEFAULT_ROOT)


def test_the_advised_mount_leaves_nothing_to_remark() -> None:
    """The options of the sample's fstab line, as the kernel would show them."""
    text = SAMPLE.read_text()
    options = next(line for line in text.splitlines() if "lookupcache=" in line).split()[1]
    shown = options.replace("positive", "pos").replace(",_netdev", "") + ",local_lock=none"
    mount = parse(f"1 2 0:1 / /m rw,noatime - nfs4 filer:/x rw,{shown}")[0]
    assert mount.nfs
    assert remarks(mount) == []
