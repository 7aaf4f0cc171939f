"""Writing large objects to files: linked where it can be, copied where it must be, and nothing left behind."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage import filewriter as module
from msrcache.storage import staging as staging_module
from msrcache.storage.driver import SpoolFile
from msrcache.storage.errors import NoSpace, NotFound, StorageError, Unavailable
from msrcache.storage.filesystem import Filesystem
from msrcache.storage.filewriter import FileWriter
from tests.contract.harness import Spooler, read, write


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Filesystem]:
    """Over a folder that is not there yet."""
    made = Filesystem(tmp_path / "registry", threads=4)
    yield made
    await made.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """On the same file system."""
    folder = tmp_path / "spool"
    folder.mkdir()
    spooler = Spooler(folder)
    yield spooler
    spooler.close()


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """The spans that are copied."""
    spans: list[Span] = []

    def copy(source: int, span: Span, target: int, at: int) -> None:
        spans.append(span)
        staging_module.copy(source, span, target, at)

    monkeypatch.setattr(module, "copy", copy)
    return spans


def apart(monkeypatch: pytest.MonkeyPatch, driver: Filesystem) -> None:
    """As if the store were on another file system than the spool."""
    monkeypatch.setattr(driver._staging, "device", lambda: -1)


def litter(driver: Filesystem) -> int:
    """How many staged files there are."""
    folder = driver._staging.folder
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def open_files() -> set[str]:
    """This process's descriptors."""
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}


async def test_the_spool_file_becomes_the_object(
    driver: Filesystem, spool: Spooler, copies: list[Span]
) -> None:
    """No byte is copied: the object is the same file, and stays when the spool's name goes."""
    file = spool(b"x" * 100_000)
    info = await write(driver, "a/b", file, spans=3)
    assert os.fstat(file.fd).st_ino == (driver.root / "a/b").stat().st_ino
    assert (info.size, copies, litter(driver)) == (100_000, [], 0)
    spool.drop(file)
    assert (driver.root / "a/b").stat().st_nlink == 1


async def test_a_file_with_more_in_it_is_copied(
    driver: Filesystem, spool: Spooler, copies: list[Span]
) -> None:
    """Only a file that holds just what was written may become the object."""
    file = spool(b"x" * 1000)
    async with driver.writer("a") as writer:
        await writer.write(file, Span(0, 999))
        await writer.commit()
    assert copies == [Span(0, 999)]
    assert await read(driver, "a") == b"x" * 999


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP])
async def test_where_a_link_is_refused_it_is_copied(
    driver: Filesystem, spool: Spooler, copies: list[Span], code: int
) -> None:
    """Some file systems take no second name, some look like one and are two."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(code, "-")

    driver._staging.link = refuse  # type: ignore[assignment]
    await write(driver, "a", spool(b"x" * 1000), spans=2)
    assert copies == [Span(0, 1000)]
    assert (await read(driver, "a"), litter(driver)) == (b"x" * 1000, 0)


async def test_across_file_systems_bytes_go_as_they_come(
    driver: Filesystem, spool: Spooler, copies: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each span is copied when it is given, so that the commit has nothing to copy."""
    apart(monkeypatch, driver)
    file = spool(b"x" * 1000)
    async with driver.writer("a") as writer:
        await writer.write(file, Span(0, 600))
        assert copies == [Span(0, 600)]
        await writer.write(file, Span(600, 1000))
        await writer.commit()
    assert copies == [Span(0, 600), Span(600, 1000)]
    assert (await read(driver, "a"), litter(driver)) == (b"x" * 1000, 0)


@pytest.mark.parametrize("linking", [True, False])
async def test_a_growing_file_is_flushed_as_it_grows(
    driver: Filesystem, spool: Spooler, monkeypatch: pytest.MonkeyPatch, *, linking: bool
) -> None:
    """So that a large commit need not flush it all; the file that becomes the object is the one flushed."""
    flushed: list[int] = []
    monkeypatch.setattr(module, "FLUSH", 1000)
    monkeypatch.setattr(os, "fdatasync", lambda fd: flushed.append(os.fstat(fd).st_size))
    if not linking:
        apart(monkeypatch, driver)
    file = spool()
    async with driver.writer("a") as writer:
        for start in range(0, 3000, 500):
            spool.grow(file, b"x" * 500)
            await writer.write(file, Span(start, start + 500))
        await writer.commit()
    assert flushed == [1000, 2000, 3000]


async def test_nothing_stays_open(
    driver: Filesystem, spool: Spooler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether committed, left, failed or never used."""
    file = spool(b"x" * 1000)
    await driver.put("warm", b"")
    before = open_files()
    for linking in (True, False):
        if not linking:
            apart(monkeypatch, driver)
        await write(driver, "a", file)
        async with driver.writer("b") as writer:
            await writer.write(file, Span(0, 1000))
        async with driver.writer("c"):
            pass
        with pytest.raises(StorageError):
            await _write_too_much(driver, file)
    assert open_files() == before
    assert litter(driver) == 0


@pytest.mark.parametrize("linking", [True, False])
async def test_a_full_disk_fails_the_write_and_leaves_nothing(
    driver: Filesystem, spool: Spooler, monkeypatch: pytest.MonkeyPatch, *, linking: bool
) -> None:
    """NoSpace, whether the data or only a name has no room; the next write finds the place clean."""
    if not linking:
        apart(monkeypatch, driver)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "-")

    file = spool(b"x" * 1000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NoSpace) as failed:
            await write(driver, "a/b", file)
    assert (failed.value.key, litter(driver)) == ("a/b", 0)
    with pytest.raises(NotFound):
        await driver.stat("a/b")
    await write(driver, "a/b", file)


async def test_a_cancelled_copy_is_waited_for_before_its_files_are_closed(
    driver: Filesystem, spool: Spooler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that still copies would else write into whatever file gets the number next."""
    apart(monkeypatch, driver)
    copying, go, seen = threading.Event(), threading.Event(), list[bool]()

    def copy(source: int, span: Span, target: int, at: int) -> None:
        copying.set()
        go.wait()
        seen.extend(Path(f"/proc/self/fd/{fd}").exists() for fd in (source, target))

    monkeypatch.setattr(module, "copy", copy)
    file = spool(b"x" * 1000)
    task = asyncio.create_task(write(driver, "a", file))
    await asyncio.to_thread(copying.wait)
    task.cancel()
    spool.drop(file)
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [True, True]
    assert litter(driver) == 0


async def test_leaving_a_hung_writer_does_not_hang(
    driver: Filesystem, spool: Spooler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gives up on abort too goes on; the files are given back when the disk wakes up."""
    apart(monkeypatch, driver)
    copying, go = threading.Event(), threading.Event()

    def copy(*_: object) -> None:
        copying.set()
        go.wait()

    monkeypatch.setattr(module, "copy", copy)
    writer = driver.writer("a")
    writing = asyncio.create_task(writer.write(spool(b"1234"), Span(0, 4)))
    await asyncio.to_thread(copying.wait)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.abort(), 0.01)
    assert litter(driver) == 1
    go.set()
    await driver.close()
    assert litter(driver) == 0


async def test_one_file_per_writer(driver: Filesystem, spool: Spooler) -> None:
    """Spans of a second file are refused: the bytes before could not be linked."""
    async with driver.writer("a") as writer:
        await writer.write(spool(b"1234"), Span(0, 4))
        with pytest.raises(StorageError, match="in one file"):
            await writer.write(spool(b"12345678"), Span(4, 8))


async def test_a_descriptor_that_cannot_be_had(
    driver: Filesystem, spool: Spooler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files is an error of the store, in words."""

    def dup(fd: int) -> int:
        raise OSError(errno.EMFILE, "-")

    monkeypatch.setattr(os, "dup", dup)
    with pytest.raises(Unavailable, match="ulimit -n"):
        await write(driver, "a", spool(b"1"))


async def test_it_tells_its_state(driver: Filesystem, spool: Spooler) -> None:
    """For whoever looks at what runs."""
    writer: FileWriter = driver.writer("a")
    await writer.write(spool(b"1234"), Span(0, 4))
    assert repr(writer) == "<FileWriter linking 4 bytes to a>"
    await writer.abort()


async def _write_too_much(driver: Filesystem, file: SpoolFile) -> None:
    async with driver.writer("d") as writer:
        await writer.write(file, Span(0, 1001))
        await writer.commit()
