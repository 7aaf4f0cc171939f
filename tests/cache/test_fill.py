"""Fills: every ending leaves right bytes or none, in the store and with the readers."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from msrcache.cache import pump
from msrcache.cache.endings import Ending, ending_of, tail_end
from msrcache.cache.kitchen import FillSettings
from msrcache.cache.pump import WriteFailed
from msrcache.cache.spool import SpoolFull
from msrcache.cache.tail import Spilled
from msrcache.oci.descriptor import Descriptor
from msrcache.oci.digest import Digest, Hasher
from msrcache.oci.errors import (
    BlobUnknown,
    ContentMismatch,
    Denied,
    Unauthorized,
    UpstreamUnavailable,
)
from msrcache.oci.pulls import BlobPull
from msrcache.oci.ranges import RangeRequest, Span
from msrcache.oci.registry import Blob, Chunk, Outcome
from tests.cache.kitchen import Cache, blob_pull, cache
from tests.stage.upstream import BLOB_TYPE, FakeUpstream

DATA = random.Random(3).randbytes(300_000)
WRONG = b"\0" * len(DATA)
AT_ONCE = FillSettings(verify_timeout=0)


@dataclass(slots=True)
class SlowToClose(FakeUpstream):
    """All bytes are given; then closing the answer waits for `let_close`."""

    closing_reached: asyncio.Event = field(default_factory=asyncio.Event)
    let_close: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        """As Registry.blob."""
        async with FakeUpstream.blob(self, pull) as blob:
            yield blob
            self.closing_reached.set()
            await self.let_close.wait()


@dataclass(slots=True)
class Endless(FakeUpstream):
    """Announces a size and never stops sending."""

    sent: int = 0

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        """As Registry.blob."""
        self.ledger.append(pull)
        size = len(self.blobs[pull.repository, pull.digest])
        yield Blob(
            Descriptor(BLOB_TYPE, pull.digest, size), Span.whole(size), Outcome.PASS, self._more(pull.digest)
        )

    async def _more(self, digest: Digest) -> AsyncIterator[Chunk]:
        del digest
        while True:
            self.sent += self.chunk
            yield b"\0" * self.chunk


def _leave_behind(folder: Path, data: bytes, digest: Digest) -> Path:
    """What a process that was killed leaves: a file that nobody has locked."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest.algorithm}-{digest.hex}.00000000.spool"
    path.write_bytes(data)
    return path


def _clean(kept: Cache) -> bool:
    return kept.spool.used == 0 and not list(kept.spool.path.iterdir()) and not kept.memory.contents.staged


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, Ending.COMPLETE),
        (Unauthorized(), Ending.REFUSED),
        (Denied(), Ending.REFUSED),
        (BlobUnknown(), Ending.ABSENT),
        (UpstreamUnavailable(), Ending.FAILED),
        (asyncio.CancelledError(), Ending.LEFT),
        (SpoolFull("full"), Ending.CUT),
        (ContentMismatch(Digest.of(b"a"), Digest.of(b"b"), 1), Ending.CUT),
    ],
)
def test_an_error_has_its_ending(error: BaseException | None, ending: Ending) -> None:
    """The metric's label says whose doing it was."""
    assert ending_of(error) is ending


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (WriteFailed("disk"), True),
        (SpoolFull("full"), True),
        (OSError(5, "EIO"), True),
        (Denied("expired"), True),
        (asyncio.CancelledError(), True),
        (ContentMismatch(Digest.of(b"a"), Digest.of(b"b"), 1), False),
        (UpstreamUnavailable("gone"), False),
        (ValueError("a bug"), False),
    ],
)
def test_readers_go_on_where_it_can_help(error: BaseException, goes_on: bool) -> None:  # noqa: FBT001
    """What only the fill suffers from lets its readers go on; what they would meet again cuts them."""
    assert isinstance(tail_end(error, written=3, hasher=Hasher()), Spilled) is goes_on


async def test_an_upstream_that_fails_while_closing_orphans_no_publisher(tmp_path: Path) -> None:
    """After verification a failing close waits for the publisher: it never reads a descriptor that was given up."""
    async with cache(tmp_path) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        kept.upstream.closing = UpstreamUnavailable("reset while closing")
        kept.sickness.held = "write"
        async with kept.pulls.blob(blob_pull(digest)) as blob:
            assert await kept.read(blob) == DATA
        await kept.sickness.reached.wait()
        with _decoys(tmp_path):
            kept.sickness.release.set()
            await kept.pulls.settled()
        assert kept.stored(digest) == DATA
        assert await kept.get(blob_pull(digest)) == DATA


@pytest.mark.parametrize("held", ["write", "commit", "open"])
async def test_a_fill_cancelled_while_closing_stores_nothing_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """Cancelled after verification and before the end: the store has all of it or nothing."""
    monkeypatch.setattr(
        "msrcache.cache.fills.PUBLISHED_WITHIN", 1.0
    )  # the upstream does not close: it is waited for
    upstream = SlowToClose()
    async with cache(tmp_path, upstream=upstream) as kept:
        digest = upstream.publish("team/a", DATA)
        async with kept.pulls.blob(blob_pull(digest)) as blob:
            kept.sickness.held = held
            assert await kept.read(blob) == DATA
        await upstream.closing_reached.wait()
        await kept.sickness.reached.wait()
        closing = asyncio.create_task(kept.pulls.fills.close())
        with _decoys(tmp_path):
            kept.sickness.release.set()
            await closing
        assert kept.stored(digest) in (None, DATA)
        assert not kept.memory.contents.staged
        assert kept.spool.used == 0
        upstream.let_close.set()
        kept.sickness.held = ""
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert kept.stored(digest) == DATA


class _decoys:  # noqa: N801  read as a word of the test
    """Files of wrong bytes that take the descriptors which are free now, and those that become free meanwhile."""

    def __init__(self, path: Path) -> None:
        self._file = path / "decoy"
        self._file.write_bytes(WRONG)
        self._open: list[int] = []

    def __enter__(self) -> None:
        asyncio.get_running_loop().call_soon(self._take)
        self._take()

    def _take(self) -> None:
        self._open.append(os.open(self._file, os.O_RDONLY))

    def __exit__(self, *_: object) -> None:
        for fd in self._open:
            os.close(fd)


async def test_a_leftover_is_continued(tmp_path: Path) -> None:
    """Of what a killed process left only the rest is asked for, after its bytes were hashed."""
    digest = Digest.of(DATA)
    _leave_behind(tmp_path / "spool", DATA[:200_000], digest)
    async with cache(tmp_path) as kept:
        kept.upstream.publish("team/a", DATA)
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert [pull.range for pull in kept.upstream.fetched()] == [RangeRequest(199_999, None)]
        assert kept.stored(digest) == DATA
        assert _clean(kept)


async def test_a_whole_leftover_is_continued(tmp_path: Path) -> None:
    """A leftover that lacks nothing still has one byte to ask for, and ends well."""
    digest = Digest.of(DATA)
    _leave_behind(tmp_path / "spool", DATA, digest)
    async with cache(tmp_path) as kept:
        kept.upstream.publish("team/a", DATA)
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert kept.stored(digest) == DATA


async def test_a_wrong_leftover_is_dropped(tmp_path: Path) -> None:
    """Wrong bytes in a leftover cut the reader and are dropped; the next fill is right."""
    digest = Digest.of(DATA)
    _leave_behind(tmp_path / "spool", WRONG[:200_000], digest)
    async with cache(tmp_path) as kept:
        kept.upstream.publish("team/a", DATA)
        with pytest.raises(ContentMismatch):
            await kept.get(blob_pull(digest))
        await kept.pulls.settled()
        assert kept.stored(digest) is None
        assert _clean(kept)
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert kept.upstream.fetched()[-1].range is None
        assert kept.stored(digest) == DATA


async def test_a_leftover_that_cannot_be_read_costs_a_pull_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails in the middle of the hashing: the reader goes on by itself and gets right bytes."""
    digest = Digest.of(DATA)
    _leave_behind(tmp_path / "spool", DATA[:200_000], digest)
    monkeypatch.setattr(pump, "REHASHED", 64 * 1024)
    monkeypatch.setattr(pump, "_hash_file", _failing_at(100_000, pump._hash_file))
    async with cache(tmp_path) as kept:
        kept.upstream.publish("team/a", DATA)
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert kept.stored(digest) is None
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert kept.stored(digest) == DATA


def _failing_at(at: int, real: Callable[[int, Span, Hasher], None]) -> Callable[[int, Span, Hasher], None]:
    def hash_file(fd: int, span: Span, hasher: Hasher) -> None:
        if span.stop > at:
            raise OSError(5, "EIO")
        real(fd, span, hasher)

    return hash_file


async def test_a_body_longer_than_announced_is_cut(tmp_path: Path) -> None:
    """An upstream that never stops sending fills no disk: its body is cut near the announced size."""
    upstream = Endless()
    async with cache(tmp_path, upstream=upstream) as kept:
        digest = upstream.publish("team/a", DATA)
        with pytest.raises(ContentMismatch):
            await kept.get(blob_pull(digest))
        await kept.pulls.settled()
        assert upstream.sent <= len(DATA) + upstream.chunk
        assert kept.stored(digest) is None
        assert _clean(kept)


@pytest.mark.parametrize("operation", ["writer", "write", "commit"])
async def test_a_sick_store_costs_the_client_nothing(tmp_path: Path, operation: str) -> None:
    """A store that does not take the blob is the fleet's loss: the pull ends well, the next one fills again."""
    async with cache(tmp_path) as kept:
        kept.sickness.fails = {operation: ""}
        digest = kept.upstream.publish("team/a", DATA)
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert kept.stored(digest) is None
        assert _clean(kept)
        kept.sickness.fails = {}
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert kept.stored(digest) == DATA


async def test_a_store_that_hides_what_it_took_is_counted(tmp_path: Path) -> None:
    """Not read-after-write consistent: said in a metric, and no link is written."""
    async with cache(tmp_path, settings=AT_ONCE) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        kept.sickness.hides = "/data"
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert kept.metrics.readafterwrite_failures_total._value.get() == 1
        assert not [key for key in kept.memory.contents.objects if key.endswith("/link")]


async def test_a_store_that_cannot_be_asked_after_the_commit_gets_no_link(tmp_path: Path) -> None:
    """It broke no promise that anybody knows of: nothing is counted against it, and nothing is claimed."""
    async with cache(tmp_path, settings=AT_ONCE) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        kept.sickness.fails = {"open": "/data"}
        assert await kept.get(blob_pull(digest)) == DATA
        await kept.pulls.settled()
        assert kept.metrics.readafterwrite_failures_total._value.get() == 0
        assert not [key for key in kept.memory.contents.objects if key.endswith("/link")]


async def test_a_blob_larger_than_the_spool_is_passed_through(tmp_path: Path) -> None:
    """No room: the reader gets right bytes straight from the upstream, and nothing is stored."""
    async with cache(tmp_path, spool_size=1000) as kept:
        digest = kept.upstream.publish("team/a", DATA)
        async with kept.pulls.blob(blob_pull(digest)) as blob:
            assert blob.outcome is Outcome.PASS
            assert await kept.read(blob) == DATA
        await kept.pulls.settled()
        assert kept.stored(digest) is None
        assert _clean(kept)


async def test_a_refusal_of_the_opener_is_its_own(tmp_path: Path) -> None:
    """The upstream's word to the opener reaches the opener, and no file stays."""
    async with cache(tmp_path) as kept:
        digest = Digest.of(DATA)
        with pytest.raises(BlobUnknown):
            await kept.get(blob_pull(digest))
        await kept.pulls.settled()
        assert _clean(kept)
