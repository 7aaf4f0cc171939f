"""Staging and publishing in one file system: what a crash, a lost reply or another replica may do to it."""

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage import staging as module
from msrcache.storage.staging import Staging, copy, persist_folder


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """Below a root that is not there yet."""
    return Staging(tmp_path / "root")


def names(staging: Staging) -> list[str]:
    """What lies in the staging folder."""
    return sorted(path.name for path in staging.folder.iterdir()) if staging.folder.is_dir() else []


def put(staging: Staging, key: str, data: bytes) -> None:
    """As the driver does."""
    with staging.staged() as staged:
        staging.write(staged, data)
        staging.replace(staged.path, staging.root / key)


def create(staging: Staging, key: str, data: bytes) -> bool:
    """As the driver does."""
    with staging.staged() as staged:
        staging.write(staged, data)
        return staging.create(staged, staging.root / key)


class Kernel:
    """Notes the calls that make things durable, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        fsync, replace = os.fsync, Path.replace

        def note_fsync(fd: int) -> None:
            fsync(fd)
            self.calls.append(f"fsync {Path(f'/proc/self/fd/{fd}').readlink().name}")

        def note_replace(path: Path, target: Path) -> Path:
            self.calls.append("rename")
            return replace(path, target)

        monkeypatch.setattr(os, "fsync", note_fsync)
        monkeypatch.setattr(Path, "replace", note_replace)


def test_an_object_is_durable_before_it_is_seen(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file first, then the rename, then its folder and every folder that was made for it."""
    put(staging, "there", b"1")
    kernel = Kernel(monkeypatch)
    put(staging, "a/b/c", b"1")
    staged, *rest = kernel.calls
    assert staged.startswith("fsync ")
    assert rest == ["rename", "rename", "fsync b", "fsync a", "fsync root"]
    assert (staging.root / "a/b/c").read_bytes() == b"1"


def test_modes_are_docker_registrys(staging: Staging) -> None:
    """0666 and 0777 less the umask, for spool files too, so that a registry of another account reads them."""
    spool = staging.root.parent / "spool"
    spool.write_bytes(b"1")
    spool.chmod(0o600)
    put(staging, "a/b", b"1")
    with spool.open("rb") as file:
        assert staging.adopt(file.fileno(), spool, staging.root / "a/c")
    umask = os.umask(0)
    os.umask(umask)
    for name, mode in (("a/b", 0o666), ("a/c", 0o666), ("a", 0o777)):
        assert stat.S_IMODE((staging.root / name).stat().st_mode) == mode & ~umask


def test_create_believes_the_count_of_names(staging: Staging) -> None:
    """A link whose reply was lost is a link, whether the error was a time-out or EEXIST of a repeated request."""
    for number, code in enumerate((errno.ETIMEDOUT, errno.EEXIST, errno.EIO)):

        def lose(source: Path, target: Path, code: int = code) -> None:
            os.link(source, target)
            raise OSError(code, "-")

        (staging.root / "a").mkdir(parents=True, exist_ok=True)
        staging.link = lose  # type: ignore[assignment]
        assert create(staging, f"a/{number}", b"mine") is True
        assert (staging.root / f"a/{number}").read_bytes() == b"mine"
    assert names(staging) == []


def test_create_that_failed_is_an_error(staging: Staging) -> None:
    """No link was made: EEXIST means somebody else's, anything else is told."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EMLINK, "-")

    put(staging, "a", b"1")
    assert create(staging, "a", b"2") is False
    staging.link = refuse  # type: ignore[assignment]
    with pytest.raises(OSError, match="Errno 31"):
        create(staging, "b", b"2")
    assert names(staging) == []


def test_a_folder_in_the_place_is_no_object(staging: Staging) -> None:
    """It can neither be created nor replaced nor deleted, and none of it ends in 'was there'."""
    put(staging, "a/b/c", b"1")
    with pytest.raises(IsADirectoryError):
        create(staging, "a/b", b"2")
    with pytest.raises(IsADirectoryError):
        put(staging, "a/b", b"2")
    staging.remove(staging.root / "a/b")
    assert (staging.root / "a/b/c").read_bytes() == b"1"


def test_a_file_where_a_folder_should_be(staging: Staging) -> None:
    """Nothing can stand below an object: an error, not 'was there' and not an endless repetition."""
    put(staging, "a/b", b"1")
    for write in (put, create):
        with pytest.raises(NotADirectoryError):
            write(staging, "a/b/c", b"2")
    staging.remove(staging.root / "a/b/c")
    assert names(staging) == []


def test_folders_that_others_remove_are_made_again(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it works; never for ever."""
    real, removals = Path.replace, iter(range(3))

    def replace(path: Path, target: Path) -> Path:
        if target.parent.is_dir() and next(removals, None) is not None:
            target.parent.rmdir()
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    put(staging, "a/b", b"1")
    assert (staging.root / "a/b").read_bytes() == b"1"
    removals = iter(range(1000))
    with pytest.raises(FileNotFoundError):
        put(staging, "b/c", b"1")
    assert names(staging) == []


def test_a_folder_made_anew_by_others_is_taken(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server says ESTALE of what was removed: the same as gone, also for the staging folder itself."""
    real_replace, real_open, stale = Path.replace, os.open, iter(range(2))

    def forget() -> None:
        if next(stale, None) is not None:
            raise OSError(errno.ESTALE, "-")

    def replace(path: Path, target: Path) -> Path:
        forget()
        return real_replace(path, target)

    def open_(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            forget()
        return real_open(path, flags, mode)

    monkeypatch.setattr(Path, "replace", replace)
    put(staging, "a/b", b"1")
    stale = iter(range(2))
    monkeypatch.setattr(os, "open", open_)
    put(staging, "a/c", b"2")
    assert (staging.root / "a/c").read_bytes() == b"2"
    assert names(staging) == []


def test_files_are_closed_before_they_are_removed(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an NFS client renames them and removes them later; a sweep in between is no obstacle."""
    real, order = Path.unlink, list[bool]()

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        links = list(Path("/proc/self/fd").iterdir())
        order.append(path in [link.readlink() for link in links if link.is_symlink()])
        real(path, missing_ok=missing_ok)

    staged = staging.open()
    monkeypatch.setattr(Path, "unlink", unlink)
    assert staging.sweep(0.0) == 0
    order.clear()
    module.discard(staged)
    assert order == [False]
    assert names(staging) == []


def test_empty_folders_go_with_the_last_object(staging: Staging) -> None:
    """Up to the first that holds something; the root stays."""
    put(staging, "a/b/c/d", b"1")
    put(staging, "a/e", b"1")
    staging.remove(staging.root / "a/b/c/d")
    assert [path.name for path in (staging.root / "a").iterdir()] == ["e"]
    staging.remove(staging.root / "a/e")
    assert not (staging.root / "a").exists()
    assert staging.root.is_dir()


def test_a_link_is_not_taken_for_another_file(staging: Staging, tmp_path: Path) -> None:
    """The path may name another file than the descriptor: then nothing is published."""
    spool, other = tmp_path / "spool", tmp_path / "other"
    spool.write_bytes(b"right")
    other.write_bytes(b"wrong")
    staging.device()
    with spool.open("rb") as file:
        assert not staging.adopt(file.fileno(), other, staging.root / "a")
        assert not staging.adopt(file.fileno(), tmp_path / "gone", staging.root / "a")
        assert staging.adopt(file.fileno(), spool, staging.root / "a")
    assert names(staging) == []
    assert (staging.root / "a").read_bytes() == b"right"


def test_adopting_a_file_twice_leaves_no_name_behind(staging: Staging, tmp_path: Path) -> None:
    """rename(2) of two names of one file does nothing."""
    spool = tmp_path / "spool"
    spool.write_bytes(b"1")
    staging.device()
    with spool.open("rb") as file:
        for _ in range(2):
            assert staging.adopt(file.fileno(), spool, staging.root / "a")
    assert names(staging) == []
    assert spool.stat().st_nlink == 2


def test_sweep_knows_the_living_by_their_lock(staging: Staging) -> None:
    """Locked files stay, unlocked ones of the right age go, folders are not ours."""
    living = staging.open()
    (staging.folder / "dead").touch()
    (staging.folder / "young").touch()
    os.utime(staging.folder / "dead", (1, 1))
    (staging.folder / "folder").mkdir()
    assert staging.sweep(60.0) == 1
    assert names(staging) == sorted([living.path.name, "folder", "young"])
    module.discard(living)
    assert staging.sweep(0.0) == 1
    assert names(staging) == ["folder"]


def test_sweep_of_an_untouched_root_makes_nothing(staging: Staging) -> None:
    """Nothing to sweep is nothing to write."""
    assert staging.sweep(0.0) == 0
    assert not staging.root.exists()


def test_a_name_that_is_swept_before_its_lock_is_given_up(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making a file and locking it a sweep may take it: the writer takes another."""
    real, sweeps = fcntl.flock, iter(range(2))

    def flock(fd: int, operation: int) -> None:
        if next(sweeps, None) is not None:
            Path(f"/proc/self/fd/{fd}").readlink().unlink()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    put(staging, "a", b"1")
    assert (staging.root / "a").read_bytes() == b"1"


def test_file_systems_without_locks_go_by_age(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing works, and what is old enough is swept."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "-")

    monkeypatch.setattr(fcntl, "flock", flock)
    put(staging, "a", b"1")
    (staging.folder / "dead").touch()
    os.utime(staging.folder / "dead", (1, 1))
    (staging.folder / "young").touch()
    assert staging.sweep(60.0) == 1
    assert names(staging) == ["young"]


@pytest.mark.parametrize("refusals", [0, 1, 2])
def test_copy_has_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
    """In the kernel by either call, or through memory where both are refused; always the same bytes."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "-")

    for name in ["copy_file_range", "sendfile"][:refusals]:
        monkeypatch.setattr(os, name, refuse)
    data = os.urandom(3_000_000)
    (tmp_path / "source").write_bytes(data)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("w+b") as target:
        copy(source.fileno(), Span(0, 1_000_000), target.fileno(), 0)
        copy(source.fileno(), Span(1_000_000, 3_000_000), target.fileno(), 1_000_000)
        with pytest.raises(OSError, match="the spool file ends at byte 3000000"):
            copy(source.fileno(), Span(2_999_999, 3_000_001), target.fileno(), 0)
    assert (tmp_path / "target").read_bytes()[1:] == data[1:]


def test_copy_tells_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC is no reason to try another way."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "-")

    monkeypatch.setattr(os, "copy_file_range", full)
    (tmp_path / "source").write_bytes(b"1")
    with (tmp_path / "source").open("rb") as source, pytest.raises(OSError, match="Errno 28"):
        copy(source.fileno(), Span(0, 1), source.fileno(), 0)


def test_folders_that_vanish_or_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone needs no flush; a file system that has no such call is believed; a sick disk is told."""
    persist_folder(tmp_path / "gone")
    codes = iter((errno.EINVAL, errno.EIO))

    def fsync(fd: int) -> None:
        raise OSError(next(codes), "-")

    monkeypatch.setattr(os, "fsync", fsync)
    persist_folder(tmp_path)
    with pytest.raises(OSError, match="Errno 5"):
        persist_folder(tmp_path)
