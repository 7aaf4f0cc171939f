"""The filesystem driver where the contract has no word: descriptors, odd files, read-only and full disks."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.driver import REPLACED, FileContent
from msrcache.storage.errors import Denied, NoSpace, NotFound, ReadOnly, StorageError, Unavailable
from msrcache.storage.filesystem import DEFAULT_ROOT, Filesystem, make
from msrcache.storage.parameters import ParameterError


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Filesystem]:
    """Over a folder that is not there yet."""
    made = Filesystem(tmp_path / "registry", threads=4)
    yield made
    await made.close()


def descriptors(root: Path) -> int:
    """How many files below the root this process has open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += str(link.readlink()).startswith(str(root))
        except FileNotFoundError:
            continue
    return count


async def test_parameters() -> None:
    """Docker Registry's defaults; fewer than 25 threads become 25."""
    default, other = make({}), make({"rootdirectory": "/somewhere", "maxthreads": "200"})
    assert (str(default.root), str(other.root)) == (DEFAULT_ROOT, "/somewhere")
    for driver in (default, other):
        await driver.close()


async def test_objects_are_files_at_their_keys(driver: Filesystem) -> None:
    """Byte for byte what Docker Registry would have put there."""
    await driver.put("docker/registry/v2/repositories/a/_layers/sha256/ab/link", b"sha256:ab")
    path = driver.root / "docker/registry/v2/repositories/a/_layers/sha256/ab/link"
    assert path.read_bytes() == b"sha256:ab"
    assert (await driver.stat("docker/registry/v2/repositories/a/_layers/sha256/ab/link")).size == 9


async def test_what_docker_registry_left_is_read(driver: Filesystem) -> None:
    """Files of others, without our staging; stray temporary files are objects like any other."""
    folder = driver.root / "docker/registry/v2/blobs/sha256/ab/abcd"
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(b"layer")
    (folder / "data.0f.tmp").write_bytes(b"lay")
    (driver.root / "scheduler-state.json").write_bytes(b"{}")
    async with driver.open("docker/registry/v2/blobs/sha256/ab/abcd/data", Span(1, 3)) as content:
        assert os.pread(content.fd, content.span.size, content.span.start) == b"ay"
    found = [key async for key, _ in driver.list("")]
    assert sorted(key.rpartition("/")[2] for key in found) == ["data", "data.0f.tmp", "scheduler-state.json"]


async def test_our_own_folders_hold_no_objects(driver: Filesystem) -> None:
    """Staged and spooled files are not listed; other records of ours are."""
    await driver.put("msrcache/leases/sha256/ab/0", b"{}")
    for name in ("msrcache/staging/x", "msrcache/spool/y"):
        (driver.root / name).parent.mkdir(exist_ok=True)
        (driver.root / name).touch()
    assert [key async for key, _ in driver.list("")] == ["msrcache/leases/sha256/ab/0"]
    assert [key async for key, _ in driver.list("msrcache")] == ["msrcache/leases/sha256/ab/0"]


async def test_odd_files_are_no_objects(driver: Filesystem) -> None:
    """Folders, FIFOs and dangling links are NotFound and hang nothing."""
    driver.root.mkdir()
    (driver.root / "folder").mkdir()
    os.mkfifo(driver.root / "fifo")
    (driver.root / "dangling").symlink_to("nowhere")
    for key in ("folder", "fifo", "dangling"):
        with pytest.raises(NotFound):
            await driver.stat(key)
        with pytest.raises(NotFound):
            async with driver.open(key):
                pytest.fail("it was opened")
    assert [key async for key, _ in driver.list("")] == []
    assert descriptors(driver.root) == 0


async def test_no_descriptor_outlives_its_context(driver: Filesystem) -> None:
    """Neither after reading, nor a refused span, nor an error of the reader's own."""
    await driver.put("a", b"1234")
    async with driver.open("a"):
        assert descriptors(driver.root) == 1
    with pytest.raises(StorageError):
        await driver.open("a", Span(4, 5)).__aenter__()
    with pytest.raises(ZeroDivisionError):
        await _fail_within(driver)
    await driver.close()
    assert descriptors(driver.root) == 0


async def test_a_cancelled_open_leaks_nothing(driver: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that a thread opens for a caller who has gone is closed again."""
    await driver.put("a", b"1234")
    real, opened, go = driver._open, threading.Event(), threading.Event()

    def slow(key: str, span: Span | None) -> FileContent:
        content = real(key, span)
        opened.set()
        go.wait()
        return content

    monkeypatch.setattr(driver, "_open", slow)
    opening = asyncio.create_task(driver.open("a").__aenter__())
    await asyncio.to_thread(opened.wait)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert descriptors(driver.root) == 1
    go.set()
    await driver.close()
    assert descriptors(driver.root) == 0


async def test_a_reader_may_end_after_close(driver: Filesystem) -> None:
    """An answer that is still being sent keeps its file, and gives it back."""
    await driver.put("a", b"1234")
    async with driver.open("a") as content:
        await driver.close()
        assert os.pread(content.fd, 4, 0) == b"1234"
    await driver.close()  # waits for what a thread gives back
    assert descriptors(driver.root) == 0


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EROFS, ReadOnly),
        (errno.EACCES, Denied),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EIO, Unavailable),
    ],
)
async def test_every_write_tells_what_is_wrong_with_the_disk(
    driver: Filesystem, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StorageError]
) -> None:
    """put, create and sweep fail with the right error; what is there is still read."""
    await driver.put("a", b"1234")
    _break_opening_to_write(monkeypatch, code)
    writes: tuple[Callable[[], object], ...] = (
        lambda: driver.put("b", b"1"),
        lambda: driver.create("b", b"1"),
        lambda: driver.sweep(0.0),
    )
    for write in writes:
        with pytest.raises(kind):
            await write()  # type: ignore[misc]
    assert (await driver.stat("a")).size == 4
    assert [key async for key, _ in driver.list("")] == ["a"]


async def test_a_listing_tells_what_it_may_not_see(
    driver: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be read is an error: a listing that silently lacks objects would be a lie."""
    await driver.put("a/b", b"1")

    def scandir(path: object) -> object:
        raise PermissionError(errno.EACCES, "-")

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(Denied):
        [key async for key, _ in driver.list("")]


async def test_long_listings_are_walked_in_steps(driver: Filesystem) -> None:
    """Whether the objects lie in one folder or each in its own, none is lost between two steps."""
    names = {f"wide/{number}" for number in range(1100)} | {f"deep/{number}/x" for number in range(1100)}
    for name in names:
        path = driver.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert {key async for key, _ in driver.list("")} == names


async def test_parameters_of_nfs(tmp_path: Path) -> None:
    """auto finds out, true and false are believed, anything else is refused."""
    for told, nfs in ((None, None), ("auto", None), ("AUTO", None), ("true", True), (False, False)):
        made = make({"rootdirectory": str(tmp_path), "nfs": told})
        assert f"nfs={nfs}>" in repr(made.lookups)
        await made.close()
    with pytest.raises(ParameterError, match=r"storage\.filesystem\.nfs should be true or false"):
        make({"nfs": "maybe"})


async def test_what_an_nfs_client_keeps_of_removed_files_is_no_object(driver: Filesystem) -> None:
    """Its name is .nfs and 24 digits; other hidden files are objects."""
    await driver.put("a/.nfs", b"1")
    (driver.root / "a/.nfs0000000000c0ffee00000001").touch()
    assert [key async for key, _ in driver.list("")] == ["a/.nfs"]


@pytest.mark.parametrize(("size", "nfs", "questions"), [(9, True, 1), (REPLACED + 1, True, 0), (9, False, 0)])
async def test_only_what_may_be_replaced_is_asked_for_anew(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    nfs: bool,  # noqa: FBT001
    questions: int,
) -> None:
    """A hit of a large blob costs the file server nothing more, and a local disk is believed."""
    driver = Filesystem(tmp_path, threads=4, nfs=nfs)
    await driver.put("a", b"." * size)
    asked: list[Path] = []
    monkeypatch.setattr(driver.lookups, "ask_anew", asked.append)
    async with driver.open("a") as content:
        assert content.info.size == size
    assert len(asked) == questions
    await driver.close()


async def test_what_was_replaced_when_it_was_opened_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that the name had is let go, the one that it has is read; one that is gone is gone. No leak."""
    driver = Filesystem(tmp_path, threads=4, nfs=True)
    await driver.put("a", b"old")
    new = tmp_path / "new"
    new.write_bytes(b"newer")
    monkeypatch.setattr(
        driver.lookups, "ask_anew", lambda path: new.replace(path) if new.exists() else path.unlink()
    )
    before = descriptors(tmp_path)
    async with driver.open("a") as content:
        assert os.pread(content.fd, 9, 0) == b"newer"
    with pytest.raises(NotFound):
        await driver.stat("a")
    await driver.close()
    assert descriptors(tmp_path) == before


async def _fail_within(driver: Filesystem) -> None:
    async with driver.open("a") as content:
        assert content.span.size // 0


def _break_opening_to_write(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = os.open

    def fail(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code), str(path))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", fail)
