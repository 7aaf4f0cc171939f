"""The store, the spool and the disk misbehave: a pull never fails for it, and nothing partial is ever visible."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import blob_key
from msrcache.oci.digest import Digest
from msrcache.storage.errors import NoSpace, ReadOnly, StorageError, Unavailable
from msrcache.storage.memory import Contents, Memory
from tests.scenarios.plays import cache, left_behind, pull, pulling, settled, stored
from tests.stage.images import noise
from tests.stage.scripted import Hold, Scripted, Turn, scripted

DATA = noise(250_000, 4)
K = 100_000
OPERATIONS = ("open", "stat", "writer", "write", "commit", "put", "create")


class Sabotage:
    """Fails every call of one operation, before or after it took effect; counts them."""

    def __init__(self, operation: str, error: StorageError, *, late: bool = False) -> None:
        self.operation = operation
        self.error = error
        self.late = late
        self.calls: list[str] = []

    async def before(self, operation: str, key: str) -> None:
        """As Faults."""
        self.calls.append(operation)
        if operation == self.operation and not self.late:
            raise self.error

    async def after(self, operation: str, key: str) -> None:
        """As Faults."""
        if operation == self.operation and self.late:
            raise self.error


class Barrier:
    """A store so slow that its writer waits for the test."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def before(self, operation: str, key: str) -> None:
        """As Faults."""
        if operation == "commit":
            self.reached.set()
            await self.go.wait()

    async def after(self, operation: str, key: str) -> None:
        """As Faults."""


@asynccontextmanager
async def in_memory(
    folder: Path,
    upstream: Scripted,
    faults: Sabotage | Barrier,
    monkeypatch: pytest.MonkeyPatch,
    *,
    more: str = "",
) -> AsyncIterator[tuple[Application, Contents]]:
    """The cache over a memory store with these faults."""
    contents = Contents()
    monkeypatch.setattr("msrcache.assembly.open_driver", lambda section: Memory(contents, faults=faults))
    async with cache(folder, upstream, more=more) as application:
        yield application, contents


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_store_that_fails_costs_no_pull(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    late: bool,  # noqa: FBT001
) -> None:
    """Whichever call of the store fails, before or after its effect: two pulls, twice the right bytes."""
    faults = Sabotage(operation, StorageError("inmemory", "any", None, "sabotaged"), late=late)
    async with (
        scripted() as upstream,
        in_memory(tmp_path, upstream, faults, monkeypatch) as (application, kept),
    ):
        path = upstream.publish_blob(DATA)
        for _ in range(2):
            got = await pull(application, path)
            assert (got.status, got.body) == (200, DATA)
            await settled(application)
        found = kept.objects.get(blob_key(Digest.of(DATA)))
        assert found is None or found.data == DATA
        # a writer whose opening seemed to fail is left to the sweep: nobody has it to abort
        assert kept.staged == {} or (operation, late) == ("writer", True)
        # a link that cannot be written or read costs a question, never bytes
        assert set(upstream.lines) <= {f"GET {path}", f"HEAD {path}"}
        assert upstream.lines[0] == f"GET {path}"


@pytest.mark.parametrize("kind", [NoSpace, ReadOnly, Unavailable])
async def test_a_full_or_read_only_store_stores_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[StorageError]
) -> None:
    """The store refuses to write: pulls go on, nothing partial is there, and the next pull fetches again."""
    faults = Sabotage("writer", kind("inmemory", "any"))
    async with (
        scripted() as upstream,
        in_memory(tmp_path, upstream, faults, monkeypatch) as (application, kept),
    ):
        path = upstream.publish_blob(DATA)
        for _ in range(2):
            assert (await pull(application, path)).body == DATA
            await settled(application)
        assert blob_key(Digest.of(DATA)) not in kept.objects
        assert upstream.lines == [f"GET {path}"] * 2


async def test_a_slow_store_slows_no_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store takes for ever to commit: the client has its last byte meanwhile, and a second one joins."""
    faults = Barrier()
    async with (
        scripted() as upstream,
        in_memory(tmp_path, upstream, faults, monkeypatch) as (application, kept),
    ):
        path = upstream.publish_blob(DATA)
        assert (await pull(application, path)).body == DATA
        await asyncio.wait_for(faults.reached.wait(), 20)
        assert (await pull(application, path)).body == DATA
        assert blob_key(Digest.of(DATA)) not in kept.objects
        faults.go.set()
        await settled(application)
        assert upstream.lines == [f"GET {path}"]


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("size", [1, 100_000, len(DATA)])
async def test_the_ledger_of_a_fill(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    checksums: bool,  # noqa: FBT001
) -> None:
    """A blob that fits one part costs at most five requests to the store, two of them for the check."""
    faults = Sabotage("nothing", StorageError("inmemory", "any"))
    async with (
        scripted() as upstream,
        in_memory(tmp_path, upstream, faults, monkeypatch) as (application, kept),
    ):
        kept.checksums = checksums
        data = DATA[:size]
        path = upstream.publish_blob(data)
        faults.calls.clear()
        assert (await pull(application, path)).body == data
        await settled(application)
        # a writer of one part sends nothing before its commit, and a body's pieces are of one request
        requests = [call for call in faults.calls if call not in {"writer", "write", "read"}]
        check = ["stat"] if checksums else ["open"] * (1 if size <= 128 << 10 else 2)
        assert requests == ["open", "commit", *check, "put"]


async def test_a_store_that_forgets_is_told_and_nothing_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was confirmed is not there: counted, no link, and every pull has its bytes all the same."""

    class Forgets(Sabotage):
        async def after(self, operation: str, key: str) -> None:
            if operation == "commit":
                del kept.objects[key]

    faults = Forgets("nothing", StorageError("inmemory", "any"))
    more = "  verify: {timeout: 1ms}\n"
    async with (
        scripted() as upstream,
        in_memory(tmp_path, upstream, faults, monkeypatch, more=more) as (application, kept),
    ):
        path = upstream.publish_blob(DATA)
        for _ in range(2):
            assert (await pull(application, path)).body == DATA
            await settled(application)
        metric = "msrcache_readafterwrite_failures_total"
        assert application.metrics.registry.get_sample_value(metric) == 2
        assert kept.objects == {}


async def test_a_full_spool_passes_through(tmp_path: Path) -> None:
    """The spool has no room for the blob: it is passed through whole and right, and not stored."""
    more = "  spool: {size: 100KiB}\n"
    async with scripted() as upstream, cache(tmp_path, upstream, more=more) as application:
        path = upstream.publish_blob(DATA)
        got = await pull(application, path)
        await settled(application)
        assert (got.body, got.whole, got.headers["x-cache"]) == (DATA, True, "pass")
        assert stored(tmp_path, DATA) is None
        assert left_behind(tmp_path) == []


async def test_a_corrupt_body_passed_through_never_ends_well(tmp_path: Path) -> None:
    """Also what is only passed through is hashed: a wrong last byte cuts the connection."""
    more = "  spool: {size: 100KiB}\n"
    async with scripted() as upstream, cache(tmp_path, upstream, more=more) as application:
        path = upstream.publish_blob(DATA)
        upstream.always(path, Turn(body=DATA[:-1] + bytes([DATA[-1] ^ 1])))
        assert not (await pull(application, path)).whole


async def test_a_disk_that_cannot_be_read_is_healed_under_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO under sendfile in the middle of a hit: the rest comes from the upstream, and the client notices nothing."""
    async with scripted() as upstream, cache(tmp_path, upstream) as application:
        path = upstream.publish_blob(DATA)
        assert (await pull(application, path)).body == DATA
        await settled(application)
        real, failed = os.sendfile, asyncio.Event()

        def sendfile(out: int, source: int, offset: int, count: int) -> int:
            if not failed.is_set() and offset >= K:
                failed.set()
                raise OSError(errno.EIO, "Input/output error")
            return real(out, source, offset, min(count, K))

        monkeypatch.setattr(os, "sendfile", sendfile)
        got = await pull(application, path)
        assert (got.body, got.whole) == (DATA, True)
        assert failed.is_set()


class BadSpool:
    """os.sendfile whose reading fails once (EIO), from the given byte on."""

    def __init__(self, at: int) -> None:
        self.failed = False
        self._at = at
        self._real = os.sendfile

    def __call__(self, out: int, source: int, offset: int, count: int) -> int:
        if not self.failed and offset >= self._at:
            self.failed = True
            raise OSError(errno.EIO, "Input/output error")
        return self._real(out, source, offset, min(count, self._at))


@pytest.mark.parametrize("wanted", [{}, {"Range": f"bytes=10-{len(DATA) - 20}"}], ids=["whole", "range"])
async def test_a_spool_that_cannot_be_read_is_gone_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, str]
) -> None:
    """EIO under sendfile while filling: the reader goes on with the upstream; the whole blob is hashed anew."""
    async with scripted() as upstream, cache(tmp_path, upstream) as application:
        path = upstream.publish_blob(DATA)
        hold = Hold(2 * K)
        upstream.script(path, Turn(hold=hold))
        bad = BadSpool(K)
        monkeypatch.setattr(os, "sendfile", bad)
        start, stop = (10, len(DATA) - 19) if wanted else (0, len(DATA))
        got = await pull(application, path, **wanted)
        assert (got.body, got.whole, bad.failed) == (DATA[start:stop], True, True)
        assert upstream.lines[0] == f"GET {path}"
        assert len(upstream.lines) == 2
        assert upstream.lines[1].startswith(f"GET {path} bytes=" if wanted else f"GET {path}")
        hold.go.set()
        await settled(application)
        assert stored(tmp_path, DATA) == DATA


async def test_a_corrupt_body_behind_a_bad_spool_never_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes on with the upstream after EIO is verified too: one wrong byte of it, and the reader is cut."""
    async with scripted() as upstream, cache(tmp_path, upstream) as application:
        path = upstream.publish_blob(DATA)
        hold = Hold(2 * K)
        upstream.script(path, Turn(hold=hold), Turn(body=DATA[:-9] + b"corrupted"))
        monkeypatch.setattr(os, "sendfile", BadSpool(K))
        got = await pull(application, path)
        assert not got.whole
        hold.go.set()
        await settled(application)


SIZE = len(DATA)
FORMS = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-99", 0, 100),
    (f"bytes={K}-", K, SIZE),
    ("bytes=-10", SIZE - 10, SIZE),
    (f"bytes=-{SIZE * 2}", 0, SIZE),
    (f"bytes=5-{SIZE * 2}", 5, SIZE),
    (f"bytes={SIZE - 1}-{SIZE - 1}", SIZE - 1, SIZE),
]


async def test_ranges_of_a_hit_and_of_a_fill(tmp_path: Path) -> None:
    """Every form of Range, on a stored blob and on one that is coming in: 206 with exactly these bytes."""
    async with scripted() as upstream, cache(tmp_path, upstream) as application:
        path = upstream.publish_blob(DATA)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold))
        async with pulling(application, path) as first:
            await first.take(K)
            filling = [asyncio.create_task(pull(application, path, Range=form)) for form, _, _ in FORMS]
            beyond = await pull(application, path, Range=f"bytes={SIZE}-")
            hold.go.set()
            while_filling = await asyncio.gather(*filling)
            await first.rest()
        await settled(application)
        hits = [await pull(application, path, Range=form) for form, _, _ in FORMS]
        for got in (while_filling, hits):
            for answer, (form, start, stop) in zip(got, FORMS, strict=True):
                assert (answer.status, answer.body) == (206, DATA[start:stop]), form
                assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        for refused in (beyond, await pull(application, path, Range=f"bytes={SIZE}-")):
            assert (refused.status, refused.headers["content-range"]) == (416, f"bytes */{SIZE}")
        for odd in ("bytes=9-3", "bytes=0-1,5-9", "lines=1-2", "bytes=a-b"):
            whole = await pull(application, path, Range=odd)
            assert (whole.status, whole.body) == (200, DATA), odd
        assert upstream.lines == [f"GET {path}"]


async def test_a_range_far_ahead_does_not_wait(tmp_path: Path) -> None:
    """A range far beyond the tail is fetched by itself while the fill goes on."""
    big = noise(34 << 20, 5)
    async with scripted() as upstream, cache(tmp_path, upstream) as application:
        path = upstream.publish_blob(big)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold))
        async with pulling(application, path) as first:
            await first.take(K)
            start = len(big) - 100
            ahead = await pull(application, path, Range=f"bytes={start}-")
            assert (ahead.status, ahead.body) == (206, big[start:])
            hold.go.set()
            assert len(await first.rest()) == len(big) - K
        assert upstream.lines[0] == f"GET {path}"
        assert len(upstream.lines) == 2
