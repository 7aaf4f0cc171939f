"""The spool: bounded, locked, and never a way to change what the store has."""

import asyncio
import fcntl
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.cache import spool as module
from msrcache.cache.spool import LEFTOVER_AGE, Leftover, Spool, SpooledFile, SpoolFull
from msrcache.oci.digest import Digest
from msrcache.oci.registry import FileSpan

DATA = b"0123456789" * 100
DIGEST = Digest.of(DATA)


@asynccontextmanager
async def _spool(path: Path, *, size: int = 0) -> AsyncIterator[Spool]:
    spool = Spool(path, size=size)
    await spool.start()
    try:
        yield spool
    finally:
        await spool.close()


async def _kept(spool: Spool, data: bytes = DATA) -> Path:
    """A file that a fill gave back as worth continuing."""
    file = await spool.open(DIGEST)
    os.pwrite(file.fd, data, 0)
    file.written, file.keep = len(data), True
    await spool.release(file)
    return file.path


def _dead(folder: Path, digest: Digest = DIGEST, *, number: str = "00000000") -> Path:
    """What a killed process left."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{digest.algorithm}-{digest.hex}.{number}.spool"
    path.write_bytes(DATA)
    return path


async def test_a_file_leaves_with_its_release(tmp_path: Path) -> None:
    """Neither the name, nor the descriptor, nor the reservation outlives the release."""
    async with _spool(tmp_path) as spool:
        file = await spool.open(DIGEST)
        await spool.reserve(file, 1000)
        assert spool.used == 1000
        await spool.release(file)
        assert spool.used == 0
        assert not list(tmp_path.iterdir())
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file.fd)


async def test_reservations_are_bounded(tmp_path: Path) -> None:
    """What is reserved together never passes the size; what is given back may be reserved again."""
    async with _spool(tmp_path, size=1000) as spool:
        first, second = await spool.open(DIGEST), await spool.open(Digest.of(b"other"))
        await spool.reserve(first, 700)
        with pytest.raises(SpoolFull, match="300 left"):
            await spool.reserve(second, 301)
        await spool.release(first)
        await spool.reserve(second, 1000)
        await spool.release(second)
        assert spool.used == 0


async def test_an_unbounded_spool_leaves_the_disk_room(tmp_path: Path) -> None:
    """Without a size the free space bounds it, before a byte is written."""
    async with _spool(tmp_path) as spool:
        file = await spool.open(DIGEST)
        with pytest.raises(SpoolFull, match="free"):
            await spool.reserve(file, 1 << 60)
        await spool.release(file)
        assert spool.used == 0


async def test_unwritten_reservations_count_once(tmp_path: Path) -> None:
    """What a fill has reserved is set aside until it is written or given back, however the fill ends."""
    async with _spool(tmp_path) as spool:
        file = await spool.open(DIGEST)
        await spool.reserve(file, 1000)
        spool.wrote(400)
        file.written = 400
        assert spool._unwritten == 600
        await spool.release(file)
        assert spool._unwritten == 0


async def test_a_kept_file_is_continued_from_what_was_right(tmp_path: Path) -> None:
    """The next open of the digest gets the bytes, less one, so that there is always one to ask for."""
    async with _spool(tmp_path) as spool:
        path = await _kept(spool)
        file = await spool.open(DIGEST)
        assert file.path == path
        assert file.length == len(DATA) - 1
        assert os.pread(file.fd, 2000, 0) == DATA[:-1]
        await spool.release(file)


async def test_bytes_beyond_what_was_right_are_cut_off(tmp_path: Path) -> None:
    """A kept file is continued from what its fill vouched for, not from its length."""
    async with _spool(tmp_path) as spool:
        file = await spool.open(DIGEST)
        os.pwrite(file.fd, DATA, 0)
        file.written, file.keep = 100, True
        await spool.release(file)
        again = await spool.open(DIGEST)
        assert again.length == 99
        assert os.fstat(again.fd).st_size == 99
        await spool.release(again)


async def test_a_kept_file_that_the_store_linked_is_never_shortened(tmp_path: Path) -> None:
    """The store's object may be the same file: a new one is opened, and the object stays whole."""
    async with _spool(tmp_path / "spool") as spool:
        path = await _kept(spool)
        stored = tmp_path / "data"
        stored.hardlink_to(path)
        file = await spool.open(DIGEST)
        assert file.length == 0
        assert file.path != path
        os.pwrite(file.fd, b"x" * 10, 0)
        assert stored.read_bytes() == DATA
        await spool.release(file)
        assert stored.read_bytes() == DATA


async def test_a_dead_process_leaves_something_to_continue(tmp_path: Path) -> None:
    """At the start unlocked files are found by the digest in their name."""
    path = _dead(tmp_path)
    async with _spool(tmp_path) as spool:
        file = await spool.open(DIGEST)
        assert (file.path, file.length) == (path, len(DATA) - 1)
        await spool.release(file)
        assert not path.exists()


async def test_a_dead_process_leaves_no_way_into_the_store(tmp_path: Path) -> None:
    """A leftover that is the store's object too loses its spool name only."""
    path = _dead(tmp_path / "spool")
    stored = tmp_path / "data"
    stored.hardlink_to(path)
    async with _spool(tmp_path / "spool") as spool:
        assert not path.exists()
        file = await spool.open(DIGEST)
        assert file.length == 0
        await spool.release(file)
    assert stored.read_bytes() == DATA


async def test_old_empty_and_second_leftovers_are_dropped(tmp_path: Path) -> None:
    """What is not worth continuing goes at the start; what is not ours stays."""
    old, empty = _dead(tmp_path, Digest.of(b"old")), _dead(tmp_path, Digest.of(b"empty"))
    long_ago = time.time() - LEFTOVER_AGE - 60
    os.utime(old, (long_ago, long_ago))
    empty.write_bytes(b"")
    _dead(tmp_path, number="00000000")
    _dead(tmp_path, number="11111111")
    (tmp_path / "notes.spool").write_bytes(b"not ours")
    async with _spool(tmp_path):
        names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert "notes.spool" in names
    assert not old.exists()
    assert not empty.exists()


async def test_a_living_process_keeps_its_file(tmp_path: Path) -> None:
    """A second process over the same folder neither continues nor removes a file that is locked."""
    async with _spool(tmp_path) as spool:
        file = await spool.open(DIGEST)
        os.pwrite(file.fd, DATA, 0)
        async with _spool(tmp_path) as other:
            second = await other.open(DIGEST)
            assert second.path != file.path
            assert second.length == 0
            await other.release(second)
        assert os.pread(file.fd, 2000, 0) == DATA
        assert file.path.exists()
        await spool.release(file)


async def test_a_leftover_taken_by_another_process_is_not_shared(tmp_path: Path) -> None:
    """Both took stock of it, one has locked it: the other opens a new file."""
    _dead(tmp_path)
    async with _spool(tmp_path) as first, _spool(tmp_path) as second:
        mine = await first.open(DIGEST)
        theirs = await second.open(DIGEST)
        assert mine.length == len(DATA) - 1
        assert theirs.length == 0
        assert mine.path != theirs.path
        await first.release(mine)
        await second.release(theirs)


async def test_a_cancelled_caller_waits_for_its_thread(tmp_path: Path) -> None:
    """Nobody gives up a descriptor that a thread is using: run() returns when the thread has."""
    started, go_on = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go_on.wait(10)

    async with _spool(tmp_path) as spool:
        task = asyncio.create_task(spool.run(work))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        await asyncio.wait({task}, timeout=0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancelled_open_leaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor that the thread opened meanwhile is closed and its file removed."""
    opened, go_on, real, files = threading.Event(), threading.Event(), module._open, list[SpooledFile]()

    def slow(folder: Path, digest: Digest, leftover: Leftover | None) -> SpooledFile:
        files.append(real(folder, digest, leftover))
        opened.set()
        go_on.wait(10)
        return files[0]

    monkeypatch.setattr(module, "_open", slow)
    async with _spool(tmp_path) as spool:
        opening = asyncio.create_task(spool.open(DIGEST))
        await asyncio.to_thread(opened.wait, 10)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        go_on.set()
        await _until_empty(tmp_path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(files[0].fd)


async def _until_empty(folder: Path) -> None:
    async with asyncio.timeout(10):
        while list(folder.iterdir()):
            await asyncio.sleep(0)


async def test_reading_a_part(tmp_path: Path) -> None:
    """The bytes of exactly that part; a file that is shorter than was promised is an error, no end."""
    async with _spool(tmp_path) as spool:
        file: SpooledFile = await spool.open(DIGEST)
        os.pwrite(file.fd, DATA, 0)
        pieces = [piece async for piece in spool.read(FileSpan(file.fd, 5, 25))]
        assert b"".join(pieces) == DATA[5:25]
        with pytest.raises(OSError, match="ends at byte 1000"):
            [piece async for piece in spool.read(FileSpan(file.fd, 990, 1010))]
        await spool.release(file)


async def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    """Not by the first pull."""
    (tmp_path / "spool").write_bytes(b"a file")
    spool = Spool(tmp_path / "spool")
    with pytest.raises(OSError, match="spool"):
        await spool.start()
    await spool.close()


async def test_a_file_that_is_opened_for_nobody_while_the_spool_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fill is gone and the spool closes before its thread has opened the file: it is closed and removed all the
    same.
    """
    go, real, opened = threading.Event(), module._open, []

    def slow(folder: Path, digest: Digest, leftover: Leftover | None) -> SpooledFile:
        go.wait(20)
        opened.append(real(folder, digest, leftover))
        return opened[0]

    monkeypatch.setattr(module, "_open", slow)
    spool = Spool(tmp_path)
    await spool.start()
    opening = asyncio.create_task(spool.open(DIGEST))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    closing = asyncio.create_task(spool.close())
    await asyncio.sleep(0)
    spool._pool.shutdown(wait=False)
    go.set()
    await closing
    for _ in range(5):
        await asyncio.sleep(0)
    (file,) = opened
    assert not file.path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.fd)


async def test_of_two_processes_one_continues_a_leftover(tmp_path: Path) -> None:
    """Both found it at their start; whoever is first has it, the other fills anew, whatever the first does with it."""
    left = _dead(tmp_path)
    async with _spool(tmp_path) as one, _spool(tmp_path) as other:
        mine, theirs = await asyncio.gather(one.open(DIGEST), other.open(DIGEST))
        assert sorted((mine.length, theirs.length)) == [0, len(DATA) - 1]
        assert mine.path != theirs.path
        assert left in (mine.path, theirs.path)
        for spool, file in ((one, mine), (other, theirs)):
            await spool.release(file)
        assert not list(tmp_path.iterdir())


async def test_a_process_that_starts_takes_nothing_of_the_living(tmp_path: Path) -> None:
    """A file that has just been made, is old or is a second one of its digest stays while its lock is held."""
    async with _spool(tmp_path) as one:
        files = [await one.open(DIGEST) for _ in range(2)]
        os.utime(files[1].path, (0, 0))
        async with _spool(tmp_path):
            assert all(file.path.exists() for file in files)
        for file in files:
            await one.release(file)


async def test_a_file_that_is_taken_for_a_leftover_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes stock between the making and the locking, and removes the empty file: another is made."""
    real, stocks = fcntl.flock, [1]

    def flock(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and stocks:
            stocks.pop()
            assert module._take_stock(tmp_path) == {}
            assert not list(tmp_path.iterdir())
        real(fd, operation)

    async with _spool(tmp_path) as spool:
        monkeypatch.setattr(fcntl, "flock", flock)
        file = await spool.open(DIGEST)
        assert file.path.exists()
        assert os.fstat(file.fd).st_nlink == 1
        await spool.release(file)


async def test_processes_that_take_stock_at_once_find_the_same(tmp_path: Path) -> None:
    """Who looks holds the lock for a moment, and is no fill that lives: workers start together."""
    path = _dead(tmp_path)
    with path.open("rb+") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert module._take_stock(tmp_path) == {DIGEST: Leftover(path, len(DATA))}
    with path.open("rb+") as filling:
        fcntl.flock(filling, fcntl.LOCK_EX)
        assert module._take_stock(tmp_path) == {}


async def test_what_is_free_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a size, four processes reserve together at most 90 % of what the disk has free."""
    monkeypatch.setattr(module, "_free", lambda _: 1000)
    for _ in range(4):
        spool = Spool(tmp_path, sharers=4)
        await spool.start()
        file = await spool.open(DIGEST)
        with pytest.raises(SpoolFull, match="1000 free for 4 workers"):
            await spool.reserve(file, 226)
        await spool.reserve(file, 225)
        await spool.release(file)
        await spool.close()
