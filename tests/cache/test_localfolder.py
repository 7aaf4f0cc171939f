"""The hot tier's folder: whole files only, shared by no two processes, known again after a restart."""

import multiprocessing
import os
from pathlib import Path

import pytest

from msrcache.cache import localfolder
from msrcache.cache.localfolder import Found, LocalFolder
from msrcache.oci.digest import Digest

DATA = b"0123456789" * 1000
DIGEST = Digest.of(DATA)
NAME = f"sha256-{DIGEST.hex}"


def _claimed(path: Path) -> LocalFolder:
    folder = LocalFolder(path)
    folder.claim()
    return folder


def _filled(folder: LocalFolder, data: bytes = DATA) -> Digest:
    growing = folder.begin("sha256")
    growing.append([data[:10], data[10:]])
    folder.publish(growing, growing.hasher.digest())
    growing.discard()
    return Digest.of(data)


def test_a_blob_appears_whole(tmp_path: Path) -> None:
    """Nothing is found under its name before it is published, and afterwards all of it."""
    folder = _claimed(tmp_path)
    growing = folder.begin("sha256")
    growing.append([DATA])
    with pytest.raises(FileNotFoundError):
        folder.open(DIGEST)
    stamp = folder.publish(growing, DIGEST)
    growing.discard()
    opened = folder.open(DIGEST)
    assert os.pread(opened.fd, len(DATA) + 1, 0) == DATA
    assert (opened.stamp, opened.stamp.size) == (stamp, len(DATA))
    folder.remove(DIGEST)
    assert os.pread(opened.fd, 10, 0) == DATA[:10]
    opened.close()
    assert {file.name for file in (tmp_path / "0").iterdir()} == {"lock"}


def test_what_was_left_is_found_in_order_of_use(tmp_path: Path) -> None:
    """After a restart: whole blobs, longest unused first; halves and strangers' files are removed or ignored."""
    folder = _claimed(tmp_path)
    digests = [_filled(folder, data) for data in (b"a", b"bb", b"ccc")]
    for number, digest in enumerate(digests):
        os.utime(tmp_path / "0" / f"sha256-{digest.hex}", (1000 + number, 1000))
    folder.open(digests[0]).close()
    (tmp_path / "0/half.incoming").write_bytes(b"x")
    (tmp_path / "0/sha256-nonsense").write_bytes(b"x")
    folder.release()
    found = LocalFolder(tmp_path).claim()
    assert found == [Found(digests[1], 2), Found(digests[2], 3), Found(digests[0], 1)]
    assert not (tmp_path / "0/half.incoming").exists()


def test_only_right_bytes_are_verified(tmp_path: Path) -> None:
    """A bit that fell over, a file that was cut or is another: all are found out."""
    folder = _claimed(tmp_path)
    _filled(folder)
    file = tmp_path / "0" / NAME
    verified = folder.verified(DIGEST)
    assert verified == folder.open(DIGEST).stamp
    for wrong in (DATA[:-1], DATA[:-1] + b"!", b"", DATA + b"0"):
        file.write_bytes(wrong)
        assert folder.verified(DIGEST) is None
        assert folder.open(DIGEST).stamp != verified


def _claims(path: Path, told: "multiprocessing.Queue[str]", go: "multiprocessing.synchronize.Event") -> None:
    folder = _claimed(path)
    told.put(folder.own.name if folder.own else "")
    go.wait(30)


def test_no_two_processes_have_one_subfolder(tmp_path: Path) -> None:
    """Each takes a free one; what a process left behind is the next one's."""
    context = multiprocessing.get_context("spawn")
    told, go = context.Queue(), context.Event()
    processes = [context.Process(target=_claims, args=(tmp_path, told, go)) for _ in range(3)]
    for process in processes:
        process.start()
    assert {told.get(timeout=30) for _ in processes} == {"0", "1", "2"}
    here = _claimed(tmp_path)
    assert here.own == tmp_path / "3"
    go.set()
    for process in processes:
        process.join(30)
    assert _claimed(tmp_path).own == tmp_path / "0"


def test_what_nobody_uses_is_swept(tmp_path: Path) -> None:
    """There were more processes once: their files go, the living keep theirs."""
    gone, living, own = LocalFolder(tmp_path), LocalFolder(tmp_path), LocalFolder(tmp_path)
    for folder in (gone, living, own):
        folder.claim()
        _filled(folder)
    gone.release()
    assert own.sweep() == 1
    assert not (tmp_path / "0" / NAME).exists()
    assert (tmp_path / "1" / NAME).exists()
    assert (tmp_path / "2" / NAME).exists()


def test_too_many_processes_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No subfolder is free: an error, never a shared one."""
    monkeypatch.setattr(localfolder, "SUBFOLDERS", 1)
    kept = _claimed(tmp_path)
    with pytest.raises(OSError, match="used by other processes"):
        LocalFolder(tmp_path).claim()
    assert kept.own is not None


def test_a_vanished_folder_is_not_ours(tmp_path: Path) -> None:
    """The disk was unmounted, or somebody emptied it: found out, and claimed anew."""
    folder = _claimed(tmp_path / "tier")
    assert folder.ours()
    (tmp_path / "tier").rename(tmp_path / "away")
    assert not folder.ours()
    folder.claim()
    assert folder.ours()
    assert not LocalFolder(tmp_path).ours()


@pytest.mark.parametrize("named", [True, False], ids=["linked", "copied"])
def test_a_spool_file_is_adopted(tmp_path: Path, *, named: bool) -> None:
    """By a second name where it still has its first; else its bytes are copied. Another file of that name is not."""
    folder, spooled = _claimed(tmp_path / "tier"), tmp_path / "x.spool"
    spooled.write_bytes(DATA)
    fd = os.open(spooled, os.O_RDONLY)
    if not named:
        spooled.unlink()
        spooled.write_bytes(b"another file by now")
    stamp = folder.adopt(DIGEST, fd, spooled, len(DATA))
    opened = folder.open(DIGEST)
    assert (opened.stamp, os.pread(opened.fd, len(DATA) + 1, 0)) == (stamp, DATA)
    assert (opened.stamp.inode == os.fstat(fd).st_ino) == named
    assert {file.name for file in (tmp_path / "tier/0").iterdir()} == {"lock", NAME}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A name that leads elsewhere is no blob."""
    folder = _claimed(tmp_path)
    (tmp_path / "elsewhere").write_bytes(DATA)
    (tmp_path / "0" / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        folder.open(DIGEST)
    folder.release()
    assert folder.claim() == []


def test_a_tier_that_closes_stops_hashing(tmp_path: Path) -> None:
    """A long verification holds nobody's exit up."""
    folder = _claimed(tmp_path)
    _filled(folder)
    folder.stop()
    with pytest.raises(OSError, match="closed"):
        folder.verified(DIGEST)
