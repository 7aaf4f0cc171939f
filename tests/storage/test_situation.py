"""What is told of the folder that a store stands in."""

import os
from pathlib import Path

from msrcache.storage.filesystem import Filesystem
from msrcache.storage.mounts import parse
from msrcache.storage.situation import EXPORT, situation, told
from tests.storage.test_mounts import ROOT, nfs


def test_a_local_folder_needs_no_word(tmp_path: Path) -> None:
    """No mount of a file server, nothing to tell, and nothing is written."""
    assert told(parse(ROOT)[0], owner=None) == ()
    assert told(None, owner=None) == ()
    assert list(situation(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


async def test_the_driver_tells_it(tmp_path: Path) -> None:
    """Through the protocol, from the disk's threads."""
    driver = Filesystem(tmp_path)
    assert list(await driver.situation()) == []
    await driver.close()


def test_a_mount_is_described_with_what_its_options_cost() -> None:
    """The default mount remembers absence; what the server's export should say cannot be read from here."""
    sentences = told(nfs("hard,"), owner=None)
    assert "lookupcache=positive" in sentences[0]
    assert sentences[1] == (
        "filer.example.com:/export/cache is mounted at /mnt/cache as nfs4 (rw, vers=4.2, proto=tcp, hard, timeo=600,"
        " local_lock=none)"
    )
    assert sentences[-1] == EXPORT
    assert "lookupcache=positive)" not in sentences[1]
    assert told(nfs("hard,lookupcache=positive,"), owner=None)[0].startswith("filer.example.com")


def test_root_squash_shows_by_whose_the_files_are() -> None:
    """Root's own: it is off, and anybody's root may change everything; somebody else's: it is on."""
    assert any("root_squash is off" in sentence for sentence in told(nfs(), owner=0))
    assert any("uid 65534" in sentence for sentence in told(nfs(), owner=65534))


def test_whose_files_are_is_looked_at_and_taken_away(tmp_path: Path) -> None:
    """One file, gone at once; a folder that cannot be written tells nothing."""
    from msrcache.storage.situation import _owner_of_ours

    expected = 0 if os.geteuid() == 0 else None
    assert _owner_of_ours(tmp_path) == expected
    assert _owner_of_ours(tmp_path / "absent") is None
    assert list(tmp_path.iterdir()) == []
