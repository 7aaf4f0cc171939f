"""The probe bites: what breaks a clause of the contract that it covers, it tells in words; and it leaves nothing."""

import asyncio
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from msrcache.storage.driver import Driver
from msrcache.storage.errors import Denied, StorageError, Unavailable, Unusable
from msrcache.storage.filesystem import Filesystem
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.probe import Report, Row, Verdict, probe
from msrcache.storage.promises import Promise
from msrcache.storage.promises_large import PROMISES
from msrcache.storage.watched import Ledger
from msrcache.telemetry.clock import SystemClock
from tests.contract import sabotage_reading, sabotage_writing
from tests.contract.clauses import CLAUSES
from tests.contract.harness import MemoryHarness
from tests.contract.sabotage import SABOTEURS, Honest, SabotagedHarness
from tests.stage.clock import FakeClock

PREFIX = "msrcache/probe/0123"

NOTICED: dict[str, str] = {
    "test_stat_tells_the_size": "read-after-write",
    "test_stat_of_a_missing_key_is_not_found": "read-after-write",
    "test_stat_sees_a_put_after_a_miss": "read-after-write",
    "test_stat_sees_a_create_after_a_miss": "read-after-write",
    "test_stat_sees_a_commit_after_a_miss": "read-after-write",
    "test_put_is_read_back": "read-after-write",
    "test_create_makes_what_is_absent": "read-after-write",
    "test_open_of_a_missing_key_is_not_found": "read-after-write",
    "test_delete_removes_for_everybody": "delete",
    "test_delete_of_a_missing_key_succeeds": "delete",
    "test_delete_takes_many_keys": "delete",
    "test_delete_spares_what_lies_beside_and_below": "delete",
    "test_create_keeps_the_first_content": "create",
    "test_create_works_again_after_delete": "create",
    "test_creating_and_deleting_neighbours_at_once": "neighbours",
    "test_hundred_concurrent_creates_have_one_winner": "exclusive-create",
    "test_put_replaces": "replace",
    "test_put_is_never_seen_half_written": "replace",
    "test_open_brings_size_and_span": "ranges",
    "test_open_gives_exactly_the_span": "ranges",
    "test_open_clamps_a_span_beyond_the_end": "ranges",
    "test_open_refuses_a_span_that_starts_after_the_end": "ranges",
    "test_an_empty_object_has_no_span": "ranges",
    "test_many_read_one_object_at_once": "ranges",
    "test_open_survives_a_replacement_while_reading": "open",
    "test_open_survives_a_deletion_while_reading": "open",
    "test_a_prefix_of_a_key_is_no_object": "keys",
    "test_keys_may_be_long_and_odd": "keys",
    "test_a_writer_publishes_the_whole_object": "commit",
    "test_object_of_exactly_one_part_and_one_byte_more": "commit",
    "test_a_writer_of_nothing_makes_an_empty_object": "commit",
    "test_two_writers_leave_one_whole_object": "commit",
    "test_a_writer_takes_a_file_that_grows": "commit",
    "test_nothing_is_visible_before_commit": "hidden",
    "test_what_stood_there_stands_until_commit": "hidden",
    "test_leaving_without_commit_leaves_nothing": "abort",
    "test_abort_is_idempotent_even_after_commit": "abort",
    "test_list_finds_what_lies_below": "list",
    "test_list_respects_segment_boundaries": "list",
    "test_list_of_nothing_is_empty": "list",
    "test_presigned_url_serves_a_range_without_credentials": "presign",
}
"""By clause: the promise that has to be told as broken when a driver breaks just it."""

NOT_COVERED: dict[str, str] = {
    "test_check_storage_finds_every_promise_kept": "it is the probe itself",
    "test_open_sees_a_replacement_of_what_is_being_read": "of file systems, proved on NFS; what was put is read",
    "test_list_of_everything": "an operator's bucket is large",
    "test_list_pages_are_invisible": "a thousand objects are not written to an operator's bucket",
    "test_list_bears_what_changes_meanwhile": "the driver's own code, tested here",
    "test_presigned_url_is_for_the_endpoint_asked_for": "the driver's own code; no endpoint is known to ask for",
    "test_errors_carry_driver_and_key": "the driver's own code",
    "test_close_is_idempotent": "the driver's own code",
    "test_a_writer_that_ended_takes_nothing": "the driver's own code",
    "test_spans_follow_each_other": "the driver's own code",
    "test_the_spool_file_may_go_at_commit": "the driver's own code",
    "test_a_file_too_short_is_an_error": "the driver's own code",
    "test_cancelled_write_leaves_nothing": "leftovers are seen by their driver's harness alone",
    "test_sweep_removes_what_the_dead_left": "nothing of the living may be swept on an operator's store",
    "test_sweep_spares_the_young": "nothing of the living may be swept on an operator's store",
    "test_sweep_spares_the_living": "nothing of the living may be swept on an operator's store",
}
"""By clause: why the probe does not look."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that never comes right is not waited for."""
    monkeypatch.setattr("msrcache.storage.promises_large.LISTED", 0.05)


async def probed(here: Driver, there: Driver, promises: Sequence[Promise] = PROMISES) -> Report:
    """A probe of two drivers."""
    return await probe(here, there, promises, prefix=PREFIX, ledger=Ledger(FakeClock(), 5.0))


def broken(report: Report) -> dict[str, str]:
    """The names of what is not kept, and what was said."""
    return {row.promise.name: row.said for row in report.rows if row.troubles}


def row_of(report: Report, name: str) -> Row:
    """One promise."""
    return next(row for row in report.rows if row.promise.name == name)


def test_every_clause_is_covered_or_has_its_reason() -> None:
    """A new clause is looked at: the probe proves it, or says why not."""
    assert sabotage_reading.__doc__
    assert sabotage_writing.__doc__
    assert sorted([*NOTICED, *NOT_COVERED]) == CLAUSES
    assert set(NOTICED.values()) | {"sweep", "clock"} == {promise.name for promise in PROMISES}


@pytest.mark.parametrize("clause", NOTICED)
async def test_the_probe_bites(clause: str) -> None:
    """The sabotaged driver is told by the promise that it breaks, in words, and what follows; nothing is left."""
    harness = SabotagedHarness(SABOTEURS[clause])
    report = await probed(harness.driver(), harness.driver())
    found = broken(report)
    assert NOTICED[clause] in found, found
    assert len(found[NOTICED[clause]].split()) >= 4
    assert row_of(report, NOTICED[clause]).promise.follows
    assert report.status == (2 if row_of(report, NOTICED[clause]).promise.vital else 1) or report.status == 2


async def test_an_honest_driver_keeps_everything() -> None:
    """It was the sabotage that was told; all is kept but what nobody claimed, and nothing is left."""
    harness = SabotagedHarness(Honest)
    report = await probed(harness.driver(), harness.driver())
    assert broken(report) == {}
    assert (report.status, report.left, harness.contents.objects) == (0, (), {})
    unclaimed = {row.promise.name for row in report.rows if row.verdict is Verdict.UNCLAIMED}
    assert unclaimed == {"presign", "clock"}
    assert all(row.seconds is not None for row in report.rows)
    assert all(permission.allowed for permission in report.permissions)


async def test_a_folder_keeps_everything(tmp_path: Path) -> None:
    """Two instances on one local folder: also the clock agrees; no file and no folder of ours stays."""
    here, there = Filesystem(tmp_path / "store"), Filesystem(tmp_path / "store")
    report = await probe(here, there, PROMISES, prefix=PREFIX, ledger=Ledger(SystemClock(), 5.0))
    assert broken(report) == {}
    assert row_of(report, "clock").verdict is Verdict.KEPT
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    for driver in (here, there):
        await driver.close()


@pytest.mark.parametrize(("off", "words"), [(3600, "behind"), (-3600, "ahead of")])
async def test_clocks_that_differ_are_told(tmp_path: Path, off: float, words: str) -> None:
    """By how much, and which is ahead; what this machine took meanwhile is no difference."""
    driver = Filesystem(tmp_path)
    clock = FakeClock(time=time.time() + off)
    clocks = [promise for promise in PROMISES if promise.name == "clock"]
    report = await probe(driver, driver, clocks, prefix=PREFIX, ledger=Ledger(clock, 5.0))
    assert re.search(
        rf"the store's clock is (35[789]\d|36[012]\d) s {words} this machine's", report.rows[0].said
    )
    assert report.status == 1
    await driver.close()


class Faulty:
    """Fails one operation, and may wait at it."""

    def __init__(self, operation: str, error: StorageError | None = None) -> None:
        self.operation = operation
        self.error = error
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def before(self, operation: str, key: str) -> None:
        """As Faults."""
        if operation == self.operation:
            if self.error is not None:
                raise self.error
            self.reached.set()
            await self.go.wait()

    async def after(self, operation: str, key: str) -> None:
        """As Faults."""


@pytest.mark.parametrize("operation", ["stat", "open", "put", "create", "commit", "delete", "list", "sweep"])
async def test_a_missing_permission_is_told_by_its_operation(operation: str) -> None:
    """By name, with the store's own sentence; what can be done without it is still checked."""
    faults, contents = Faulty(operation, Denied("inmemory", "k", None, "allow it")), Contents()
    report = await probed(Memory(contents, faults=faults), Memory(contents, faults=faults))
    told = {permission.operation: permission for permission in report.permissions}
    assert told[operation].allowed is False
    assert "allow it" in told[operation].said
    assert [name for name, one in told.items() if one.allowed is False] == [operation]
    assert Verdict.DENIED in {row.verdict for row in report.rows}
    assert report.status >= 1


@pytest.mark.parametrize("error", [Unavailable("d", "k"), Unusable("d", "k", None, "no bucket")])
async def test_a_store_that_cannot_be_asked_is_not_asked_on(error: StorageError) -> None:
    """Two promises in vain, then the rest is not checked; nothing is claimed to be broken."""
    faults, contents = Faulty("stat", error), Contents()
    report = await probed(Memory(contents, faults=faults), Memory(contents, faults=faults))
    assert {row.verdict for row in report.rows} == {Verdict.UNKNOWN}
    assert report.rows[-1].said == "not tried: the store cannot be asked"
    assert report.status == 2


async def test_what_is_not_claimed_is_not_held_against_it() -> None:
    """A driver without exclusive create says so, and is told what follows."""
    contents = Contents()
    here, there = Memory(contents), Memory(contents)
    here.create_is_exclusive = False
    report = await probed(here, there)
    assert row_of(report, "exclusive-create").verdict is Verdict.UNCLAIMED
    assert report.status == 0


@pytest.mark.parametrize("operation", ["put", "create", "commit", "read", "delete", "list"])
async def test_an_interrupted_probe_leaves_nothing(operation: str) -> None:
    """Cancelled in the middle of any call: what that call still writes is removed as well."""
    faults, harness = Faulty(operation), MemoryHarness()
    here, there = Memory(harness.contents, faults=faults), Memory(harness.contents)
    probing = asyncio.create_task(probed(here, there))
    async with asyncio.timeout(20):
        if operation == "read":
            faults.operation = "open"
        await faults.reached.wait()
        probing.cancel()
        await asyncio.sleep(0)
        faults.go.set()
        with pytest.raises(asyncio.CancelledError):
            await probing
    assert harness.contents.objects == {}
    assert harness.contents.staged == {}


async def test_a_call_that_hangs_costs_its_deadline() -> None:
    """Then its promise is not checked, and the call that comes back late leaves nothing behind."""
    faults, contents = Faulty("put"), Contents()
    here, there = Memory(contents, faults=faults), Memory(contents)
    probing = asyncio.create_task(
        probe(here, there, PROMISES, prefix=PREFIX, ledger=Ledger(FakeClock(), 0.05))
    )
    await faults.reached.wait()
    async with asyncio.timeout(20):
        while len([task for task in asyncio.all_tasks() if "put" in repr(task.get_coro())]) < 2:
            await asyncio.sleep(0.01)
        faults.go.set()
        report = await probing
    assert row_of(report, "read-after-write").verdict is Verdict.UNKNOWN
    assert "put was not done within 0.05 s" in row_of(report, "read-after-write").said
    assert contents.objects == {}


async def test_what_a_killed_probe_left_is_removed_after_a_day(tmp_path: Path) -> None:
    """By the store's own stamps; what is younger may be of a probe that runs, and what is no probe's is not touched."""
    driver = Filesystem(tmp_path)
    old, young, other = "msrcache/probe/dead/a/b", "msrcache/probe/living/a", "docker/registry/old"
    for key in (old, young, other):
        await driver.put(key, b"1")
    for key in (old, other):
        os.utime(tmp_path / key, (0, time.time() - 2 * 24 * 3600))
    first = [promise for promise in PROMISES if promise.name == "read-after-write"]
    report = await probe(driver, driver, first, prefix=PREFIX, ledger=Ledger(SystemClock(), 5.0))
    assert report.status == 0
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {young, other}
    await driver.close()


async def test_what_cannot_be_removed_is_told() -> None:
    """By key, and the probe does not end well."""
    faults, contents = Faulty("delete", Denied("inmemory", "k")), Contents()
    report = await probed(Memory(contents, faults=faults), Memory(contents, faults=faults))
    assert sorted(report.left) == sorted(contents.objects)
    assert report.left
    assert report.status >= 1
