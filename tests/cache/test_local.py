"""The hot tier: what comes in, what is served from it, and that its disk never matters to a pull."""

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from msrcache.cache import local as module
from msrcache.cache.local import RECHECK, LocalTier
from msrcache.cache.localfolder import Growing, LocalFolder
from msrcache.oci.digest import Digest
from msrcache.oci.registry import Chunk
from msrcache.storage.driver import SpoolFile
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import Local, tier
from tests.stage.clock import FakeClock

ONE, TWO, THREE = b"1" * 1000, b"2" * 1000, b"3" * 1000


@dataclass(slots=True)
class Stage:
    """A tier for three blobs of 1000 bytes."""

    tier: LocalTier
    folder: Path
    clock: FakeClock
    metrics: Metrics

    async def streamed(self, data: bytes, *, digest: Digest | None = None, until: int | None = None) -> bytes:
        """Read a blob from the store, as one use, until so many bytes; returns when the tier has done its part."""
        digest = digest or Digest.of(data)
        self.tier.note_use(digest)
        got = b""
        body = self.tier.teed(digest, len(data), _chunks(data))
        async for chunk in body:
            assert isinstance(chunk, bytes)
            got += chunk
            if until is not None and len(got) >= until:
                break
        await body.aclose()
        await self.settled()
        return got

    async def settled(self) -> None:
        """Returns when nothing but the sweep is under way."""
        while len(self.tier._tasks) > 1 or self.tier._disk._jobs or self.tier._disk._tidying:
            await asyncio.sleep(0)

    async def read(self, data: bytes) -> bytes | None:
        """What the tier serves of a blob."""
        async with AsyncExitStack() as stack:
            opened = await self.tier.open(Digest.of(data), stack)
            return None if opened is None else os.pread(opened.fd, opened.stamp.size, 0)

    def count(self, name: str, label: str) -> float:
        """A counter of the tier."""
        return getattr(self.metrics, f"local_{name}_total").labels(label)._value.get()  # type: ignore[no-any-return]

    def files(self) -> set[str]:
        """The names in its folder but for the lock."""
        return {file.name for file in (self.folder / "0").iterdir()} - {"lock"}


async def _chunks(data: bytes) -> AsyncGenerator[Chunk, None]:
    for start in range(0, len(data), 300):
        yield data[start : start + 300]


@asynccontextmanager
async def _stage(path: Path, *, eager: bool = True, size: int = 3000) -> AsyncIterator[Stage]:
    clock, metrics = FakeClock(), Metrics()
    made = await tier(path / "tier", Local(size=size, eager=eager), clock=clock, metrics=metrics)
    try:
        yield Stage(made, path / "tier", clock, metrics)
        assert made._queue.held == 0
    finally:
        await made.close()


def _failing(error: int, *, times: int = 1_000_000) -> Callable[..., object]:
    left = iter(range(times))

    def fail(*_: object) -> object:
        if next(left, None) is not None:
            raise OSError(error, os.strerror(error))
        raise AssertionError("asked too often")

    return fail


async def test_a_blob_comes_in_with_its_second_reader(tmp_path: Path) -> None:
    """What is pulled once only takes no place; the second stream is kept, the third hit is local."""
    async with _stage(tmp_path, eager=False) as stage:
        for expected in (None, ONE):
            assert await stage.streamed(ONE) == ONE
            assert await stage.read(ONE) == expected
        assert stage.count("admissions", "kept") == 1
        assert stage.tier.used == len(ONE)


async def test_at_once_where_the_operator_wants_it(tmp_path: Path) -> None:
    """admit: first."""
    async with _stage(tmp_path) as stage:
        assert await stage.streamed(ONE) == ONE
        assert await stage.read(ONE) == ONE
        assert stage.files() == {f"sha256-{Digest.of(ONE).hex}"}


async def test_the_longest_unused_leaves(tmp_path: Path) -> None:
    """The bound holds; a hit counts as a use; a reader keeps what it has open."""
    async with _stage(tmp_path) as stage, AsyncExitStack() as stack:
        for data in (ONE, TWO, THREE):
            await stage.streamed(data)
        assert await stage.read(ONE) == ONE
        reading = await stage.tier.open(Digest.of(TWO), stack)
        assert await stage.read(THREE) == THREE
        assert await stage.read(ONE) == ONE
        await stage.streamed(b"4" * 1500)
        assert [await stage.read(data) for data in (ONE, TWO, THREE)] == [ONE, None, None]
        assert (stage.tier.used, len(stage.files())) == (2500, 2)
        assert reading is not None
        assert os.pread(reading.fd, 1000, 0) == TWO
        assert stage.metrics.local_evictions_total._value.get() == 2


async def test_who_left_begins_anew(tmp_path: Path) -> None:
    """A blob that was evicted comes in again by its second use, not by its first."""
    async with _stage(tmp_path, eager=False, size=1000) as stage:
        for data in (ONE, ONE, TWO, TWO):
            await stage.streamed(data)
        assert await stage.read(ONE) is None
        await stage.streamed(ONE)
        assert [await stage.read(data) for data in (ONE, TWO)] == [None, TWO]


async def test_what_cannot_fit_costs_nobody_his_place(tmp_path: Path) -> None:
    """A blob larger than the tier."""
    async with _stage(tmp_path) as stage:
        await stage.streamed(ONE)
        await stage.streamed(b"x" * 3001)
        assert await stage.read(ONE) == ONE
        assert stage.count("admissions", "large") == 1


async def test_half_a_blob_is_none(tmp_path: Path) -> None:
    """The client leaves in the middle: nothing is kept, nothing lies about, and its room is free again."""
    async with _stage(tmp_path) as stage:
        assert await stage.streamed(ONE, until=600) == ONE[:600]
        assert (await stage.read(ONE), stage.files(), stage.tier.used) == (None, set(), 0)
        assert stage.count("admissions", "left") == 1


async def test_a_body_that_nobody_reads_leaves_nothing(tmp_path: Path) -> None:
    """A client that is gone before the first byte: the body is closed without having begun."""
    async with _stage(tmp_path) as stage:
        stage.tier.note_use(Digest.of(ONE))
        await stage.tier.teed(Digest.of(ONE), len(ONE), _chunks(ONE)).aclose()
        await stage.settled()
        assert (stage.tier.used, stage.files()) == (0, set())


async def test_wrong_bytes_are_not_kept(tmp_path: Path) -> None:
    """What the store sends is hashed: a blob that is another, or too short, is told and not kept."""
    async with _stage(tmp_path) as stage:
        await stage.streamed(TWO, digest=Digest.of(ONE))
        assert (await stage.read(ONE), stage.files(), stage.tier.used) == (None, set(), 0)
        assert stage.count("admissions", "corrupt") == 1


async def test_a_slow_disk_slows_no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk hangs in the middle: the client has all its bytes, the tier gives the blob up."""
    go = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_growing: Growing, _chunks: object) -> None:
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(20)

    monkeypatch.setattr(Growing, "append", hang)
    monkeypatch.setattr(module, "QUEUED", 700)
    async with _stage(tmp_path) as stage:
        stage.tier.note_use(Digest.of(ONE))
        body = stage.tier.teed(Digest.of(ONE), len(ONE), _chunks(ONE))
        assert b"".join([chunk async for chunk in body if isinstance(chunk, bytes)]) == ONE
        go.set()
        await stage.settled()
        assert (await stage.read(ONE), stage.tier.used, stage.tier._queue.held) == (None, 0, 0)
        assert stage.count("admissions", "slow") == 1
        assert stage.tier.degraded() is None


async def test_a_fill_brings_its_spool_file(tmp_path: Path) -> None:
    """Linked, no second copy; not where it has not been used often enough."""
    spooled = tmp_path / "x.spool"
    spooled.write_bytes(ONE)
    fd = os.open(spooled, os.O_RDONLY)
    async with _stage(tmp_path, eager=False) as stage:
        stage.tier.note_use(Digest.of(ONE))
        await stage.tier.take(Digest.of(ONE), SpoolFile(fd, spooled), len(ONE))
        assert await stage.read(ONE) is None
        stage.tier.note_use(Digest.of(ONE))
        await stage.tier.take(Digest.of(ONE), SpoolFile(fd, spooled), len(ONE))
        spooled.unlink()
        assert await stage.read(ONE) == ONE
        assert os.fstat(fd).st_ino == (stage.folder / "0" / f"sha256-{Digest.of(ONE).hex}").stat().st_ino
        assert stage.tier.used == len(ONE)
    os.close(fd)


async def test_after_a_restart_it_is_hashed_before_a_byte_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first hit goes to the store while the file is hashed; the next is local. What rotted meanwhile is dropped."""
    async with _stage(tmp_path) as stage:
        for data in (ONE, TWO):
            await stage.streamed(data)
    rotten = tmp_path / "tier/0" / f"sha256-{Digest.of(TWO).hex}"
    rotten.write_bytes(TWO[:-1] + b"!")
    hashed, real = [], LocalFolder.verified

    def verified(folder: LocalFolder, digest: Digest) -> object:
        hashed.append(digest)
        return real(folder, digest)

    monkeypatch.setattr(LocalFolder, "verified", verified)
    async with _stage(tmp_path) as stage:
        assert stage.tier.used == 2000
        for data, expected in ((ONE, ONE), (TWO, None)):
            assert {*await asyncio.gather(stage.read(data), stage.read(data))} == {None}
            await stage.settled()
            assert await stage.read(data) == expected
        assert sorted(hashed, key=str) == sorted((Digest.of(ONE), Digest.of(TWO)), key=str)
        assert (stage.tier.used, rotten.exists()) == (1000, False)
        assert stage.count("failures", "corrupt") == 1


async def test_a_file_that_was_changed_is_not_served(tmp_path: Path) -> None:
    """Somebody writes into the folder: the file is hashed anew, and found out."""
    async with _stage(tmp_path) as stage:
        await stage.streamed(ONE)
        file = tmp_path / "tier/0" / f"sha256-{Digest.of(ONE).hex}"
        file.unlink()
        file.write_bytes(TWO)
        for _ in range(3):
            assert await stage.read(ONE) is None
            await stage.settled()
        assert (stage.tier.used, stage.files()) == (0, set())


async def test_a_smaller_tier_is_trimmed_at_the_start(tmp_path: Path) -> None:
    """The operator changed its size: what was unused for longest leaves."""
    async with _stage(tmp_path) as stage:
        for data in (ONE, TWO, THREE):
            await stage.streamed(data)
        await stage.read(ONE)
    async with _stage(tmp_path, size=1000) as stage:
        await stage.settled()
        assert stage.files() == {f"sha256-{Digest.of(ONE).hex}"}
        assert stage.tier.used == 1000


async def test_a_full_disk_closes_it_to_new_blobs_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC: told, counted, not tried at every pull; what is kept is served. A minute later it is tried again."""
    async with _stage(tmp_path) as stage:
        await stage.streamed(ONE)
        with monkeypatch.context() as patch:
            patch.setattr(Growing, "append", _failing(errno.ENOSPC, times=1))
            for data in (TWO, THREE):
                assert await stage.streamed(data) == data
            assert "the disk is full" in str(stage.tier.degraded())
            assert await stage.read(ONE) == ONE
            assert (stage.count("failures", "write"), stage.count("admissions", "failed")) == (1, 1)
        stage.clock.advance(RECHECK)
        await stage.streamed(TWO)
        assert stage.tier.degraded() is None
        await stage.streamed(TWO)
        assert await stage.read(TWO) == TWO


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.ENOTCONN])
async def test_a_broken_disk_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """A file cannot be opened: that hit and the next go to the store, without asking the disk again for a while."""
    async with _stage(tmp_path) as stage:
        await stage.streamed(ONE)
        with monkeypatch.context() as patch:
            patch.setattr(LocalFolder, "open", _failing(error))
            assert await stage.read(ONE) is None
            assert stage.tier.degraded() is not None
            assert await stage.streamed(TWO) == TWO
            assert await stage.read(ONE) is None
            assert stage.count("failures", "open") == 1
        stage.clock.advance(RECHECK)
        await stage.read(ONE)
        await stage.settled()
        assert await stage.read(ONE) == ONE


async def test_a_hanging_disk_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is short, and then nobody waits."""
    go = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    async with _stage(tmp_path) as stage:
        await stage.streamed(ONE)
        with monkeypatch.context() as patch:
            patch.setattr(
                LocalFolder, "open", lambda *_: asyncio.run_coroutine_threadsafe(go.wait(), loop).result(20)
            )
            for _ in range(3):
                assert await stage.read(ONE) is None
            assert stage.count("failures", "open") == 1
            assert "does not answer" in str(stage.tier.degraded())
        go.set()


async def test_a_folder_that_vanished_is_claimed_again(tmp_path: Path) -> None:
    """Unmounted and back, or removed: hits go to the store, and a minute after the failure it begins anew."""
    async with _stage(tmp_path) as stage:
        await stage.streamed(ONE)
        stage.folder.rename(tmp_path / "away")
        assert await stage.read(ONE) is None
        assert await stage.streamed(TWO) == TWO
        assert stage.tier.degraded() is not None
        stage.clock.advance(RECHECK)
        await stage.streamed(TWO)
        assert stage.tier.degraded() is None
        await stage.streamed(TWO)
        assert await stage.read(TWO) == TWO


async def test_a_tier_that_cannot_be_had_is_away(tmp_path: Path) -> None:
    """A file stands where the folder should: told at the start, and no pull notices."""
    (tmp_path / "tier").write_bytes(b"")
    async with _stage(tmp_path) as stage:
        assert stage.tier.degraded() is not None
        assert await stage.streamed(ONE) == ONE
        assert await stage.read(ONE) is None
        assert stage.count("failures", "claim") == 1


async def test_two_tiers_on_one_folder_do_not_meet(tmp_path: Path) -> None:
    """As two processes: each keeps its own, within its own bound."""
    async with _stage(tmp_path) as stage, _stage(tmp_path) as other:
        await stage.streamed(ONE)
        await other.streamed(ONE)
        stage.tier.lost(Digest.of(ONE))
        await stage.settled()
        assert (await stage.read(ONE), await other.read(ONE)) == (None, ONE)


async def test_uses_are_counted_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest unused is forgotten, and begins anew."""
    monkeypatch.setattr(module, "USES", 2)
    async with _stage(tmp_path, eager=False) as stage:
        for data in (ONE, TWO, THREE):
            stage.tier.note_use(Digest.of(data))
        assert len(stage.tier._uses) == 2
        await stage.streamed(ONE)
        assert await stage.read(ONE) is None
