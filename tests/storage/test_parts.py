"""Uploads in parts: what fits one part is one request, parts go at once and bounded, and nothing is left behind."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.calls import Retries
from msrcache.storage.driver import ObjectInfo, SpoolFile
from msrcache.storage.errors import Denied, StorageError, Unavailable
from msrcache.storage.parts import PartsWriter, Plan, Uploads
from msrcache.storage.spooled import PIECE
from tests.contract.harness import Spooler, pattern
from tests.storage.inparts import SIZE, Service, write, writer


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes spool files."""
    spooler = Spooler(tmp_path)
    yield spooler
    spooler.close()


@pytest.fixture
async def uploads() -> AsyncIterator[Uploads]:
    """What the writers share; what fails is tried again at once."""
    made = Uploads("cloud", threads=2, parts=8, retries=Retries(attempts=3, base=0.0))
    yield made
    await made.close()


def open_files() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("size", [0, 1, PIECE, SIZE - 1, SIZE])
async def test_what_fits_one_part_is_one_request(uploads: Uploads, spool: Spooler, size: int) -> None:
    """Up to a part's size, also in many steps: one put, at commit, and no upload."""
    service = Service()
    info = await write(uploads, service, spool(pattern(size)), steps=3)
    assert (service.calls, service.stored, info.size) == (["put"], pattern(size), size)


@pytest.mark.parametrize(("size", "parts"), [(SIZE + 1, 2), (2 * SIZE, 2), (2 * SIZE + 1, 3), (9 * SIZE, 9)])
@pytest.mark.parametrize("steps", [1, 7])
async def test_more_goes_in_parts(
    uploads: Uploads, spool: Spooler, size: int, parts: int, steps: int
) -> None:
    """One begin, each part once, one complete; the bytes are right whatever steps they came in."""
    service = Service()
    assert (await write(uploads, service, spool(pattern(size)), steps=steps)).size == size
    assert service.stored == pattern(size)
    assert service.calls[0] == "begin"
    assert sorted(service.calls[1:-1]) == sorted(f"send {number}" for number in range(1, parts + 1))
    assert service.calls[-1] == "complete"


async def test_parts_go_out_while_bytes_come_in(uploads: Uploads, spool: Spooler) -> None:
    """A part is sent as soon as one byte more than it was given, before the file is whole."""
    sent = asyncio.Event()

    async def at(call: str) -> None:
        if call == "send 1":
            sent.set()

    service, file = Service(at), spool(pattern(SIZE))
    async with writer(uploads, service) as target:
        await target.write(file, Span(0, SIZE))
        assert service.calls == []
        spool.grow(file, b"x")
        await target.write(file, Span(SIZE, SIZE + 1))
        await asyncio.wait_for(sent.wait(), 20)
        await target.commit()
    assert service.stored == pattern(SIZE) + b"x"


async def test_a_slow_service_slows_its_writer(uploads: Uploads, spool: Spooler) -> None:
    """No more than `parallel` parts are under way, and write() waits for its turn."""
    gate = asyncio.Event()

    async def at(call: str) -> None:
        if call.startswith("send"):
            await gate.wait()

    service, file = Service(at), spool(pattern(9 * SIZE))
    async with writer(uploads, service, parallel=2) as target:
        writing = asyncio.create_task(target.write(file, Span(0, 9 * SIZE)))
        while service.under_way < 2:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert (writing.done(), service.calls) == (False, ["begin", "send 1", "send 2"])
        gate.set()
        await writing
        await target.commit()
    assert (service.most, service.stored) == (2, pattern(9 * SIZE))


async def test_all_writers_share_their_turns(spool: Spooler) -> None:
    """However many writers there are, a driver has so many parts under way in all."""
    uploads = Uploads("cloud", parts=3)
    service = [Service(), Service(), Service()]
    most = 0

    async def at(call: str) -> None:
        nonlocal most
        if call.startswith("send"):
            most = max(most, sum(one.under_way for one in service))
            await asyncio.sleep(0)

    for one in service:
        one.at = at
    await asyncio.gather(*(write(uploads, one, spool(pattern(6 * SIZE))) for one in service))
    assert most == 3
    await uploads.close()


async def test_the_callers_descriptor_may_go(uploads: Uploads, spool: Spooler) -> None:
    """As soon as write() has returned the file may be closed and unlinked, though parts are still under way."""
    gate = asyncio.Event()

    async def at(call: str) -> None:
        if call.startswith("send"):
            await gate.wait()

    service, file = Service(at), spool(pattern(3 * SIZE))
    async with writer(uploads, service) as target:
        await target.write(file, Span(0, 3 * SIZE))
        spool.drop(file)
        spool(b"another file under the same number" * 10_000)
        gate.set()
        await target.commit()
    assert service.stored == pattern(3 * SIZE)


async def test_a_call_that_was_unavailable_is_made_again(uploads: Uploads, spool: Spooler) -> None:
    """Each call has its own chances, and the part is read anew from its start."""
    failed: set[str] = set()

    async def at(call: str) -> None:
        if call not in failed:
            failed.add(call)
            raise Unavailable("cloud", "a/key", retry_after=0.0)

    service = Service(at)
    await write(uploads, service, spool(pattern(3 * SIZE)))
    assert service.stored == pattern(3 * SIZE)
    assert sorted(service.calls) == sorted(["begin", "send 1", "send 2", "send 3", "complete"] * 2)


async def test_chances_are_bounded(uploads: Uploads, spool: Spooler) -> None:
    """A service that stays away is left after so many attempts, with its own error."""

    async def at(call: str) -> None:
        if call == "put":
            raise Unavailable("cloud", "a/key", None, "away")

    service = Service(at)
    with pytest.raises(Unavailable, match="away"):
        await write(uploads, service, spool(b"1"))
    assert service.calls == ["put"] * 3


async def test_the_first_error_stops_all(uploads: Uploads, spool: Spooler) -> None:
    """Other parts are cancelled, write() and commit() raise that error, and the upload is aborted."""
    never = asyncio.Event()

    async def at(call: str) -> None:
        if call == "send 2":
            raise Denied("cloud", "a/key", None, "no")
        if call.startswith("send"):
            await never.wait()

    service, file = Service(at), spool(pattern(9 * SIZE))
    async with writer(uploads, service, parallel=2) as target:
        with pytest.raises(Denied, match="no"):
            await target.write(file, Span(0, 9 * SIZE))
        with pytest.raises(Denied, match="no"):
            await target.write(file, Span(9 * SIZE, 9 * SIZE))
        with pytest.raises(Denied, match="no"):
            await target.commit()
    assert service.calls[-1] == "abort"
    assert (service.uploads, service.under_way, service.stored) == (set(), 0, None)


async def test_an_upload_that_did_not_begin_is_not_aborted(uploads: Uploads, spool: Spooler) -> None:
    """Its error is told."""

    async def at(call: str) -> None:
        if call == "begin":
            raise Denied("cloud", "a/key", None, "no")

    service = Service(at)
    with pytest.raises(Denied):
        await write(uploads, service, spool(pattern(9 * SIZE)))
    assert service.calls == ["begin"]


async def test_an_abort_that_fails_hides_nothing(uploads: Uploads, spool: Spooler) -> None:
    """Leaving does not raise what the abort met; asked for, abort() does."""

    async def at(call: str) -> None:
        if call == "abort":
            raise Denied("cloud", "a/key", None, "not this")

    service, file = Service(at), spool(pattern(2 * SIZE))
    with pytest.raises(ZeroDivisionError):
        await leave(writer(uploads, service), file, ZeroDivisionError())
    async with writer(uploads, service) as target:
        await target.write(file, Span(0, 2 * SIZE))
        with pytest.raises(Denied, match="not this"):
            await target.abort()


async def leave(target: PartsWriter[int], file: SpoolFile, error: Exception) -> None:
    """Fail while writing."""
    async with target:
        await target.write(file, Span(0, 2 * SIZE))
        raise error


@pytest.mark.parametrize("stage", ["begin", "send 1", "send 3", "complete", "abort"])
async def test_cancelled_anywhere_nothing_is_left(uploads: Uploads, spool: Spooler, stage: str) -> None:
    """No upload, no request, no descriptor, no task: whichever call the cancellation meets."""
    reached, before = asyncio.Event(), open_files()
    stuck = asyncio.Event()

    async def at(call: str) -> None:
        if call == stage and not reached.is_set():
            reached.set()
            if stage == "abort":
                await asyncio.sleep(0)
            elif stage == "begin":
                await asyncio.wait_for(stuck.wait(), 20)
            else:
                await asyncio.Event().wait()

    service, file = Service(at), spool(pattern(3 * SIZE))
    writing = asyncio.create_task(
        leave(writer(uploads, service), file, ZeroDivisionError())
        if stage == "abort"
        else write(uploads, service, file)
    )
    await asyncio.wait_for(reached.wait(), 20)
    writing.cancel()
    stuck.set()  # a begin is waited for: only then is there something to abort
    with pytest.raises(asyncio.CancelledError):
        await writing
    await uploads.close()
    assert (service.uploads, service.under_way, service.calls[-1]) == (set(), 0, "abort")
    assert service.stored is None
    spool.drop(file)
    assert open_files() == before
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_cancelled_at_every_step_nothing_is_left(spool: Spooler) -> None:
    """The same after each single step of the loop."""
    before = open_files()
    file = spool(pattern(3 * SIZE))
    for steps in range(60):
        uploads, service = Uploads("cloud"), Service()
        writing = asyncio.create_task(write(uploads, service, file, steps=2))
        for _ in range(steps):
            await asyncio.sleep(0)
        writing.cancel()
        result = (await asyncio.gather(writing, return_exceptions=True))[0]
        await uploads.close()
        assert service.uploads == set()
        assert service.under_way == 0
        assert (service.stored is None) or not isinstance(result, ObjectInfo) or result.size == 3 * SIZE
    spool.drop(file)
    gc.collect()
    assert open_files() == before


async def test_close_does_not_wait_for_ever(
    uploads: Uploads, spool: Spooler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that answers no abort is left behind, without a task or a descriptor."""
    monkeypatch.setattr("msrcache.storage.parts.PATIENCE", 0.01)
    before, reached = open_files(), asyncio.Event()

    async def at(call: str) -> None:
        if call == "abort":
            reached.set()
            await asyncio.Event().wait()

    service, file = Service(at), spool(pattern(3 * SIZE))
    leaving = asyncio.create_task(leave(writer(uploads, service), file, ZeroDivisionError()))
    await asyncio.wait_for(reached.wait(), 20)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await uploads.close()
    spool.drop(file)
    assert open_files() == before
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_bytes_that_are_not_there_are_an_error(uploads: Uploads, spool: Spooler) -> None:
    """A part that ends early is no shorter part, and the error is a StorageError."""
    service, file = Service(), spool(pattern(2 * SIZE))
    with pytest.raises(StorageError, match="EIO"):
        await promise(writer(uploads, service), file, 3 * SIZE)
    assert (service.stored, service.calls[-1]) == (None, "abort")


async def promise(target: PartsWriter[int], file: SpoolFile, size: int) -> None:
    """Write more than there is."""
    async with target:
        await target.write(file, Span(0, size))
        await target.commit()


def test_ten_thousand_parts_hold_any_object() -> None:
    """Parts are as large as configured at first and grow late; 10,000 of the smallest make more than 300 GB."""
    plan = Plan(size=5 << 20)
    assert [plan.size_of(number) for number in (1, 5000, 5001, 6000, 6001)] == [
        5 << 20, 5 << 20, 10 << 20, 10 << 20, 20 << 20,
    ]  # fmt: skip
    assert sum(plan.size_of(number) for number in range(1, 10_001)) > 300 << 30
    assert Plan(size=4 << 30).size_of(10_000) == 5 << 30
