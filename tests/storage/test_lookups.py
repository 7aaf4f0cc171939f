"""What is doubted of names on a file server, and when the server is asked. On the real kernels: tests/nfs."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from msrcache.storage import lookups as module
from msrcache.storage.lookups import RECHECK, TRIES, Lookups
from msrcache.storage.mounts import Mount

NFS = Mount("/mnt", "0:41", "nfs4", "host:/", {"rw": "", "hard": ""})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that were asked anew for."""
    paths: list[Path] = []
    monkeypatch.setattr(Lookups, "ask_anew", lambda self, path: paths.append(path))
    return paths


def failing(*codes: int) -> Callable[[Path], str]:
    """Fails once with each code, then succeeds."""
    left = list(codes)

    def use(path: Path) -> str:
        if left:
            raise OSError(left.pop(0), "-", str(path))
        return "there"

    return use


def told(code: int, *, nfs: bool, presence: bool = False) -> str:
    """What comes of a name whose first look fails so."""
    try:
        return Lookups(Path("/r"), nfs=nfs).at(Path("/r/a"), failing(code), presence=presence)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def test_a_local_miss_is_believed(asked: list[Path]) -> None:
    """It costs nothing more."""
    assert told(errno.ENOENT, nfs=False) == "ENOENT"
    assert told(errno.ENOENT, nfs=False, presence=True) == "ENOENT"
    assert asked == []


def test_a_miss_on_nfs_is_doubted_once(asked: list[Path]) -> None:
    """One question, then it is believed."""
    assert told(errno.ENOENT, nfs=True) == "there"
    assert asked == [Path("/r/a")]
    with pytest.raises(FileNotFoundError):
        Lookups(Path("/r"), nfs=True).at(Path("/r/a"), failing(errno.ENOENT, errno.ENOENT))
    assert asked == [Path("/r/a")] * 2


def test_presence_is_doubted_before(asked: list[Path]) -> None:
    """One question first, and none after: a miss is then believed."""
    assert Lookups(Path("/r"), nfs=True).at(Path("/r/a"), failing(), presence=True) == "there"
    assert told(errno.ENOENT, nfs=True, presence=True) == "ENOENT"
    assert len(asked) == 2


@pytest.mark.parametrize("nfs", [True, False])
def test_a_forgotten_handle_is_looked_up_anew(asked: list[Path], nfs: bool) -> None:  # noqa: FBT001
    """Whatever is known of the mount: some times, never for ever."""
    lookups = Lookups(Path("/r"), nfs=nfs)
    assert lookups.at(Path("/r/a"), failing(*[errno.ESTALE] * (TRIES - 1))) == "there"
    assert len(asked) == TRIES - 1
    with pytest.raises(OSError, match=str(errno.ESTALE)):
        lookups.at(Path("/r/a"), failing(*[errno.ESTALE] * TRIES))


def test_a_name_that_is_being_replaced_is_looked_at_again(tmp_path: Path, asked: list[Path]) -> None:
    """Beside a file that its client has renamed, a miss may last a moment; a local file system has no such moment."""
    (tmp_path / ".nfs0000000000c0ffee00000001").touch()
    misses = [errno.ENOENT] * 3
    assert Lookups(tmp_path, nfs=True).at(tmp_path / "a", failing(*misses), presence=True) == "there"
    assert len(asked) == 1 + len(misses)
    (tmp_path / "there by now").touch()
    (tmp_path / ".nfs0000000000c0ffee00000001").unlink()
    assert (
        Lookups(tmp_path, nfs=True).at(tmp_path / "there by now", failing(*misses), presence=True) == "there"
    )
    for folder, nfs in ((tmp_path, False), (tmp_path / "other", True)):
        with pytest.raises(FileNotFoundError):
            Lookups(folder, nfs=nfs).at(folder / "a", failing(*misses), presence=True)


def test_a_name_that_stays_absent_is_absent(
    tmp_path: Path, asked: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pauses grow and end: whoever reads a removed file for hours makes its misses no endless wait."""
    pauses: list[float] = []
    monkeypatch.setattr("msrcache.storage.lookups.time.sleep", pauses.append)
    (tmp_path / ".nfs0000000000c0ffee00000001").touch()
    with pytest.raises(FileNotFoundError):
        Lookups(tmp_path, nfs=True).at(tmp_path / "a", failing(*[errno.ENOENT] * 99), presence=True)
    assert pauses == sorted(pauses)
    assert len(pauses) == len(asked) - 1 == TRIES - 1
    assert sum(pauses) < 1


def test_other_errors_are_no_miss(asked: list[Path]) -> None:
    """They are told at once."""
    assert [told(code, nfs=True) for code in (errno.EIO, errno.EACCES, errno.ETIMEDOUT)] == [
        "EIO",
        "EACCES",
        "ETIMEDOUT",
    ]
    assert asked == []


@pytest.mark.parametrize(
    ("lookupcache", "absence", "presence"),
    [("all", True, True), ("pos", False, True), ("none", False, False)],
)
def test_the_mount_says_what_it_remembers(
    monkeypatch: pytest.MonkeyPatch,
    lookupcache: str,
    absence: bool,  # noqa: FBT001
    presence: bool,  # noqa: FBT001
) -> None:
    """Only what it remembers is doubted; being told overrides it."""
    mount = replace(NFS, options={"lookupcache": lookupcache})
    monkeypatch.setattr(module, "mount_of", lambda folder: mount)
    found = Lookups(Path("/mnt/r"))
    assert (found.remembers_absence, found.remembers_presence) == (absence, presence)
    for nfs in (True, False):
        given = Lookups(Path("/mnt/r"), nfs=nfs)
        assert (given.remembers_absence, given.remembers_presence) == (nfs, nfs)


def test_a_mount_that_comes_later_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The options are read at the first need and again after a while, not for every name."""
    now, mounts = [0.0], [None, NFS]
    monkeypatch.setattr(module, "mount_of", lambda folder: mounts.pop(0))
    monkeypatch.setattr("msrcache.storage.lookups.time.monotonic", lambda: now[0])
    lookups = Lookups(Path("/mnt/r"))
    assert not any(lookups.remembers_absence for _ in range(3))
    now[0] += RECHECK
    assert all(lookups.remembers_absence for _ in range(3))
    assert mounts == []


def test_the_deepest_folder_that_is_there_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name whose folder is missing too, the folder above knows; one that was made anew does not count."""
    (tmp_path / "a/b").mkdir(parents=True)
    opened: list[Path] = []
    real = os.open

    def note(path: Path, flags: int) -> int:
        opened.append(path)
        if path.name == "b":
            raise OSError(errno.ESTALE, "-")
        return real(path, flags)

    monkeypatch.setattr(os, "open", note)
    Lookups(tmp_path, nfs=True).ask_anew(tmp_path / "a/b/c/data")
    assert opened == [tmp_path / "a/b/c", tmp_path / "a/b", tmp_path / "a"]


@pytest.mark.parametrize(("code", "raises"), [(errno.EIO, True), (errno.EACCES, False)])
def test_a_server_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, code: int, raises: bool) -> None:  # noqa: FBT001
    """Not being able to ask is an error; a folder that may not be read is above the store."""

    def fail(path: Path, flags: int) -> int:
        raise OSError(code, "-")

    monkeypatch.setattr(os, "open", fail)
    if not raises:
        Lookups(Path("/r"), nfs=True).ask_anew(Path("/r/a"))
        return
    with pytest.raises(OSError, match="Errno 5"):
        Lookups(Path("/r"), nfs=True).ask_anew(Path("/r/a"))
