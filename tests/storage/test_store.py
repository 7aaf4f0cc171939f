"""The portable store where the contract has no word: keys, lost replies, read-only stores, deadlines, metrics."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage import storewriter
from msrcache.storage.calls import Deadlines, Retries, TimedOut
from msrcache.storage.errors import Denied, KeyInvalid, NotFound, ReadOnly, Stale, StorageError, Unavailable
from msrcache.storage.filesystem import Filesystem
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.store import RECHECK, Store, StoreSettings
from msrcache.telemetry.metrics import Metrics
from tests.contract.harness import Spooler, read, write
from tests.stage.clock import FakeClock

HANGS = {
    "stat": Deadlines(ask=0.01),
    "open": Deadlines(ask=0.01),
    "list": Deadlines(ask=0.01),
    "read": Deadlines(stall=0.01),
    "write": Deadlines(stall=0.01),
    "put": Deadlines(change=0.01),
    "create": Deadlines(change=0.01),
    "delete": Deadlines(change=0.01),
    "writer": Deadlines(change=0.01),
    "commit": Deadlines(commit=0.01),
    "sweep": Deadlines(sweep=0.01),
}
"""By operation: the deadline that ends it is short, the others are not."""


class Script:
    """Faults by plan: what to raise at the next calls of an operation, before or after they take effect."""

    def __init__(self) -> None:
        self.plans: dict[tuple[str, str], list[BaseException]] = {}
        self.hanging: set[str] = set()
        self.seen: list[str] = []

    def fail(self, when: str, operation: str, *errors: BaseException) -> None:
        """Raise these, one a call."""
        self.plans.setdefault((when, operation), []).extend(errors)

    async def before(self, operation: str, key: str) -> None:
        """As Faults."""
        self.seen.append(operation)
        await self._act("before", operation)

    async def after(self, operation: str, key: str) -> None:
        """As Faults."""
        await self._act("after", operation)

    async def _act(self, when: str, operation: str) -> None:
        if operation in self.hanging and when == "before":
            await asyncio.Event().wait()
        if errors := self.plans.get((when, operation)):
            raise errors.pop(0)


class Bench:
    """A store over memory, with everything at hand."""

    def __init__(self, *, deadlines: Deadlines | None = None, writable: bool = True) -> None:
        self.faults = Script()
        self.contents = Contents()
        self.metrics = Metrics()
        self.clock = FakeClock()
        self.store = Store(
            Memory(self.contents, faults=self.faults),
            metrics=self.metrics,
            clock=self.clock,
            settings=StoreSettings(
                deadlines=deadlines or Deadlines(), retries=Retries(base=0.0), writable=writable
            ),
        )

    def writable(self) -> bool:
        """What the store says now."""
        return self.store.writable

    def bytes_moved(self, direction: str) -> float:
        """As the metric says."""
        name = "msrcache_storage_bytes_total"
        return self.metrics.registry.get_sample_value(name, {"direction": direction}) or 0.0


@pytest.fixture
def bench() -> Bench:
    """A new one for each test."""
    return Bench()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes the files that writers are given."""
    spooler = Spooler(tmp_path)
    yield spooler
    spooler.close()


def lost() -> Unavailable:
    """A reply that did not come."""
    return Unavailable("inmemory", "k")


async def test_no_driver_sees_what_is_no_key(bench: Bench) -> None:
    """Every method that takes a key refuses first."""
    store, wrong = bench.store, "a/../b"
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: store.stat(wrong),
        lambda: store.get(wrong, 1),
        lambda: read(store, wrong),
        lambda: store.put(wrong, b""),
        lambda: store.create(wrong, b""),
        lambda: store.delete("a", wrong),
        lambda: store.presign(wrong, 1.0),
        lambda: anext(store.list(wrong)),
    )
    for call in calls:
        with pytest.raises(KeyInvalid):
            await call()
    with pytest.raises(KeyInvalid):
        store.writer(wrong)
    assert bench.faults.seen == []


async def test_listings_hold_keys_only(bench: Bench) -> None:
    """What others put there under names that are no keys is left out; the prefix may end in a slash."""
    for key in ("a/b", "a/lost+found", "a/c d", "e/f"):
        bench.contents.store(key, b"")
    assert [key async for key, _ in bench.store.list("a/")] == ["a/b"]


async def test_reads_and_small_writes_are_tried_again(bench: Bench) -> None:
    """stat, open, put, delete: a stumble costs nothing but time."""
    for operation in ("stat", "open", "put", "delete"):
        bench.faults.fail("before", operation, lost(), Stale("inmemory", "k"))
    await bench.store.put("k", b"1")
    assert (await bench.store.stat("k")).size == 1
    assert await bench.store.get("k", 10) == b"1"
    await bench.store.delete("k")
    assert bench.contents.objects == {}
    for operation in ("stat", "open", "put", "delete"):
        assert bench.faults.seen.count(operation) == 3


async def test_a_create_whose_reply_was_lost_is_ours(bench: Bench) -> None:
    """It took effect, so it is read back and believed."""
    bench.faults.fail("after", "create", lost())
    assert await bench.store.create("k", b"nonce") is True


async def test_a_create_that_never_arrived_is_made_again(bench: Bench) -> None:
    """Read back and missing: once more."""
    bench.faults.fail("before", "create", lost(), lost())
    assert await bench.store.create("k", b"nonce") is True
    assert bench.contents.objects["k"].data == b"nonce"


async def test_a_create_that_lost_to_another_is_not_ours(bench: Bench) -> None:
    """Whatever was lost, the content tells."""
    bench.contents.store("k", b"other")
    bench.faults.fail("before", "create", lost())
    assert await bench.store.create("k", b"nonce") is False
    assert bench.contents.objects["k"].data == b"other"


async def test_a_create_that_cannot_be_read_back_is_settled_by_the_next(bench: Bench) -> None:
    """The first took effect, its reply and the reading back were lost: the second finds ours."""
    bench.faults.fail("after", "create", lost())
    bench.faults.fail("before", "open", lost(), lost(), lost())
    assert await bench.store.create("k", b"nonce") is True


async def test_a_create_that_stays_unsettled_is_an_error(bench: Bench) -> None:
    """Neither True nor False would be honest."""
    bench.faults.fail("before", "create", lost(), lost(), lost())
    with pytest.raises(Unavailable):
        await bench.store.create("k", b"nonce")


async def test_get_is_bounded(bench: Bench) -> None:
    """An object larger than expected is refused before a byte of it is read."""
    bench.contents.store("k", b"12345")
    assert await bench.store.get("k", 5) == b"12345"
    with pytest.raises(StorageError, match="the object has 5 bytes, at most 4 were expected"):
        await bench.store.get("k", 4)
    with pytest.raises(NotFound):
        await bench.store.get("other", 4)


@pytest.mark.parametrize("operation", HANGS)
async def test_a_store_that_hangs_costs_the_deadline(operation: str, spool: Spooler) -> None:
    """Every operation ends with an error that names it, and nothing is left."""
    bench = Bench(deadlines=HANGS[operation])
    bench.contents.store("k", b"1")
    store = bench.store
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "stat": lambda: store.stat("k"),
        "open": lambda: store.get("k", 9),
        "read": lambda: store.get("k", 9),
        "put": lambda: store.put("k", b""),
        "create": lambda: store.create("k", b""),
        "delete": lambda: store.delete("k"),
        "list": lambda: anext(store.list("")),
        "sweep": lambda: store.sweep(0.0),
    }
    bench.faults.hanging = {operation}
    with pytest.raises(TimedOut, match=f"{operation} was not done within 0.01 s"):
        await calls.get(operation, lambda: write(store, "k", spool(b"1234")))()
    assert f"{operation} was not done" in (store.degraded() or "")
    assert bench.contents.staged == {}


async def test_a_read_only_store_is_found_at_start(bench: Bench) -> None:
    """Then each write is refused in words without asking, and reading goes on."""
    bench.contents.store("k", b"1")
    bench.faults.fail(
        "before", "put", Denied("inmemory", "k", OSError(errno.EACCES, "-"), "not this account")
    )
    await bench.store.start()
    assert not bench.writable()
    seen = len(bench.faults.seen)
    for write_something in (
        lambda: bench.store.put("k", b""),
        lambda: bench.store.create("k", b""),
        lambda: bench.store.delete("k"),
        lambda: bench.store.sweep(0.0),
    ):
        with pytest.raises(ReadOnly, match=r"what is there is served.*not this account \(EACCES"):
            await write_something()
    with pytest.raises(ReadOnly):
        bench.store.writer("k")
    assert len(bench.faults.seen) == seen
    assert "not this account" in (bench.store.degraded() or "")
    assert await bench.store.get("k", 1) == b"1"


async def test_a_store_that_can_be_written_again_is(bench: Bench) -> None:
    """After a while one write is let through; if it succeeds all is well, if not all is as before."""
    refusal = Denied("inmemory", "k", None, "not this account")
    bench.faults.fail("before", "put", refusal, refusal)
    await bench.store.start()
    bench.clock.advance(RECHECK)
    assert bench.writable()
    assert bench.store.degraded() is not None
    with pytest.raises(Denied):
        await bench.store.put("k", b"")
    assert not bench.writable()
    bench.clock.advance(RECHECK)
    await bench.store.put("k", b"")
    assert bench.writable()
    assert bench.store.degraded() is None


async def test_a_disk_that_turns_read_only_is_left_alone(bench: Bench) -> None:
    """As when the kernel remounts it after an error; one object that is denied stops no other write."""
    bench.faults.fail("before", "put", Denied("inmemory", "k"))
    with pytest.raises(Denied):
        await bench.store.put("k", b"")
    assert bench.writable()
    bench.faults.fail("before", "put", ReadOnly("inmemory", "k"))
    with pytest.raises(ReadOnly):
        await bench.store.put("k", b"")
    assert not bench.writable()


async def test_what_succeeds_on_any_disk_proves_nothing(bench: Bench, spool: Spooler) -> None:
    """Deleting what is not there, sweeping nothing and letting go of a writer do not make a store writable."""
    bench.faults.fail("before", "put", ReadOnly("inmemory", "k"))
    with pytest.raises(ReadOnly):
        await bench.store.put("k", b"")
    bench.clock.advance(RECHECK)
    await bench.store.delete("missing")
    await bench.store.sweep(0.0)
    async with bench.store.writer("k") as writer:
        await writer.write(spool(b"1"), Span(0, 1))
    assert bench.store.degraded() is not None
    await write(bench.store, "k", spool(b"1"))
    assert bench.store.degraded() is None


async def test_the_operator_may_forbid_writes() -> None:
    """maintenance.readonly: nothing is tried, nothing is wrong."""
    bench = Bench(writable=False)
    await bench.store.start()
    with pytest.raises(ReadOnly, match=r"storage\.maintenance\.readonly is on"):
        await bench.store.put("k", b"")
    assert (bench.writable(), bench.store.degraded(), bench.faults.seen) == (False, None, [])


async def test_a_store_that_is_away_at_start_is_degraded(bench: Bench) -> None:
    """It starts all the same, and may be written when it comes back."""
    bench.faults.fail("before", "put", lost())
    await bench.store.start()
    assert bench.writable()
    assert bench.store.degraded() is not None
    await bench.store.start()
    assert bench.store.degraded() is None
    assert bench.contents.objects == {}


async def test_bytes_are_counted(bench: Bench, spool: Spooler) -> None:
    """Those that went in and those that came out."""
    await bench.store.put("k", b"12345")
    await write(bench.store, "w", spool(b"x" * 1000), spans=3)
    assert bench.bytes_moved("written") == 1005
    await read(bench.store, "w", Span(0, 400))
    assert bench.bytes_moved("read") == 400


async def test_large_spans_are_given_in_pieces(
    bench: Bench, spool: Spooler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the deadline of a write is one of progress, however much has come at once."""
    monkeypatch.setattr(storewriter, "PIECE", 100)
    await write(bench.store, "w", spool(b"x" * 950))
    assert bench.faults.seen.count("write") == 10
    assert bench.contents.objects["w"].data == b"x" * 950


async def test_an_abort_that_fails_is_no_error(bench: Bench, spool: Spooler) -> None:
    """What cannot be dropped now is the sweep's; the error that led here is the one that is told."""
    writer = bench.store.writer("k")

    async def abort() -> None:
        raise lost()

    writer._writer.abort = abort  # type: ignore[method-assign]
    await writer.abort()
    assert "asked now" in (bench.store.degraded() or "")


async def test_files_are_read_wherever_their_pages_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the page cache on the loop; else, or where that cannot be told, or for much, in a thread."""
    store = Store(Filesystem(tmp_path / "s"), metrics=Metrics(), clock=FakeClock())
    await store.put("k", b"small")
    await store.put("large", b"x" * 100_000)
    assert await store.get("k", 10) == b"small"
    assert await store.get("large", 100_000) == b"x" * 100_000

    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "-")

    monkeypatch.setattr(os, "preadv", refuse)
    assert await store.get("k", 10) == b"small"
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    with pytest.raises(Unavailable):
        await store.get("k", 10)
    await store.close()


async def test_exclusiveness_is_the_drivers(bench: Bench) -> None:
    """The probe may clear it through the store."""
    assert bench.store.create_is_exclusive
    bench.store.create_is_exclusive = False
    assert not bench.store.driver.create_is_exclusive


async def test_elsewhere_is_asked_by_another_instance() -> None:
    """Over a driver of its own, with the same deadlines, metrics and breaker; made once, closed with the store."""
    made: list[Memory] = []
    closed: list[Memory] = []

    class Closing(Memory):
        async def close(self) -> None:
            closed.append(self)

    here, there = Closing(), Closing()
    there.contents.store("k", b"12345")

    def twin() -> Memory:
        made.append(there)
        return there

    store = Store(here, metrics=Metrics(), clock=FakeClock(), twin=twin)
    for _ in range(2):
        info, data = await store.elsewhere().piece("k", Span(1, 3))
        assert (info.size, data) == (5, b"23")
    with pytest.raises(NotFound):
        await store.piece("k", Span(0, 1))
    await store.close()
    assert (made, closed) == ([there], [there, here])
    alone = Store(here, metrics=Metrics(), clock=FakeClock())
    assert alone.elsewhere() is alone
