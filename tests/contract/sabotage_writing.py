"""Saboteurs of put, create, writer, sweep: each is wrong in the one way that its clause forbids."""

# ruff: noqa: D101 - a saboteur's name and its clause say what is wrong with it

import asyncio
import os
from types import TracebackType
from typing import Self

from msrcache.oci.ranges import Span
from msrcache.storage.driver import ObjectInfo, SpoolFile
from msrcache.storage.errors import StorageError, Unavailable
from tests.contract.sabotage import Honest, HonestWriter, noticed_by, writer_noticed_by


@noticed_by("test_put_is_read_back")
class PutsText(Honest):
    async def put(self, key: str, data: bytes) -> None:
        await super().put(key, data.replace(b"\r\n", b"\n"))


@noticed_by("test_put_replaces")
class PutsInPlace(Honest):
    async def put(self, key: str, data: bytes) -> None:
        await super().put(key, data + self.bytes_of(key)[len(data) :])


@noticed_by("test_put_is_never_seen_half_written")
class PutsInTwoSteps(Honest):
    async def put(self, key: str, data: bytes) -> None:
        await super().put(key, data[: len(data) // 2])
        await asyncio.sleep(0)
        await super().put(key, data)


@noticed_by("test_keys_may_be_long_and_odd")
class FoldsCase(Honest):
    async def put(self, key: str, data: bytes) -> None:
        await super().put(key.lower(), data)


@noticed_by("test_create_makes_what_is_absent")
class CreatesUnsaid(Honest):
    async def create(self, key: str, data: bytes) -> bool:
        await super().create(key, data)
        return False


@noticed_by("test_create_keeps_the_first_content")
class CreatesOver(Honest):
    async def create(self, key: str, data: bytes) -> bool:
        made = not self.holds(key)
        await super().put(key, data)
        return made


@noticed_by("test_hundred_concurrent_creates_have_one_winner")
class LooksBeforeItCreates(Honest):
    async def create(self, key: str, data: bytes) -> bool:
        if self.holds(key):
            return False
        await asyncio.sleep(0)
        await super().put(key, data)
        return True


@noticed_by("test_create_works_again_after_delete")
class CreatesOnce(Honest):
    async def create(self, key: str, data: bytes) -> bool:
        created = self.shared.setdefault("created", set())
        if key in created:
            return False
        created.add(key)
        return await super().create(key, data)


@noticed_by("test_creating_and_deleting_neighbours_at_once")
class LosesItsFolder(Honest):
    async def create(self, key: str, data: bytes) -> bool:
        before = self.shared.get("deleted", 0)
        await asyncio.sleep(0)
        if self.shared.get("deleted", 0) != before:
            raise Unavailable(self.name, key)
        return await super().create(key, data)

    async def delete(self, *keys: str) -> None:
        self.shared["deleted"] = self.shared.get("deleted", 0) + 1
        await super().delete(*keys)


class Rewrites(HonestWriter):
    """Commits something else than what it was given."""

    async def commit(self) -> ObjectInfo:
        info = await self.inner.commit()
        self.driver.inner.contents.store(self.key, self.instead(self.driver.bytes_of(self.key)))
        return info

    def instead(self, data: bytes) -> bytes:
        """What to publish in place of the data."""
        return data


@writer_noticed_by("test_a_writer_publishes_the_whole_object")
class LosesTheLastByte(Rewrites):
    def instead(self, data: bytes) -> bytes:
        return data[:-1] if len(data) == 300_000 else data


@writer_noticed_by("test_nothing_is_visible_before_commit")
class WritesInPlace(HonestWriter):
    async def write(self, source: SpoolFile, span: Span) -> None:
        await self.inner.write(source, span)
        await self.driver.put(self.key, b"")


@writer_noticed_by("test_what_stood_there_stands_until_commit")
class ClearsThePlace(HonestWriter):
    async def __aenter__(self) -> Self:
        await self.driver.delete(self.key)
        return await super().__aenter__()


@writer_noticed_by("test_leaving_without_commit_leaves_nothing")
class CommitsOnLeaving(HonestWriter):
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.inner.commit()
        await super().__aexit__(kind, error, trace)


@writer_noticed_by("test_cancelled_write_leaves_nothing")
class LeavesLitterWhenCancelled(HonestWriter):
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not asyncio.CancelledError:
            await super().__aexit__(kind, error, trace)


@writer_noticed_by("test_abort_is_idempotent_even_after_commit")
class AbortsWhatIsCommitted(HonestWriter):
    async def abort(self) -> None:
        await self.inner.abort()
        await self.driver.delete(self.key)


@writer_noticed_by("test_a_writer_that_ended_takes_nothing")
class CommitsAnew(HonestWriter):
    async def commit(self) -> ObjectInfo:
        try:
            return await self.inner.commit()
        except StorageError:
            return ObjectInfo(0, 0.0)


@writer_noticed_by("test_spans_follow_each_other")
class TakesSpansAsTheyCome(HonestWriter):
    taken = 0

    async def write(self, source: SpoolFile, span: Span) -> None:
        await self.inner.write(source, Span(self.taken, self.taken + span.size))
        self.taken += span.size


@writer_noticed_by("test_two_writers_leave_one_whole_object")
class RefusesTheSecond(HonestWriter):
    async def commit(self) -> ObjectInfo:
        if self.driver.holds(self.key):
            raise StorageError(self.driver.name, self.key, None, "somebody else was faster")
        return await self.inner.commit()


@writer_noticed_by("test_a_writer_of_nothing_makes_an_empty_object")
class ForgetsTheEmpty(Rewrites):
    async def commit(self) -> ObjectInfo:
        info = await self.inner.commit()
        if not info.size:
            await self.driver.delete(self.key)
        return info


@writer_noticed_by("test_object_of_exactly_one_part_and_one_byte_more")
class LosesTheLastPart(Rewrites):
    def instead(self, data: bytes) -> bytes:
        return data[:-1] if len(data) % (64 * 1024) == 1 else data


@writer_noticed_by("test_a_writer_takes_a_file_that_grows")
class TakesTheWholeFile(Rewrites):
    source: SpoolFile | None = None

    async def write(self, source: SpoolFile, span: Span) -> None:
        self.source = source
        await self.inner.write(source, span)

    def instead(self, data: bytes) -> bytes:
        return data if self.source is None else os.pread(self.source.fd, 1 << 30, 0)


@writer_noticed_by("test_the_spool_file_may_go_at_commit")
class NeedsThePath(HonestWriter):
    source: SpoolFile | None = None

    async def write(self, source: SpoolFile, span: Span) -> None:
        self.source = source
        await self.inner.write(source, span)

    async def commit(self) -> ObjectInfo:
        if self.source is not None and not self.source.path.exists():
            raise StorageError(self.driver.name, self.key, None, "the file is gone")
        return await self.inner.commit()


@writer_noticed_by("test_a_file_too_short_is_an_error")
class FillsWithZeros(Rewrites):
    wanted = 0

    async def write(self, source: SpoolFile, span: Span) -> None:
        self.wanted = span.stop
        there = os.fstat(source.fd).st_size
        await self.inner.write(source, Span(span.start, min(span.stop, there)))

    def instead(self, data: bytes) -> bytes:
        return data.ljust(self.wanted, b"\0")


@noticed_by("test_sweep_removes_what_the_dead_left")
class SweepsNothing(Honest):
    async def sweep(self, older_than: float) -> int:
        del older_than
        return 1


@noticed_by("test_sweep_spares_the_young")
class SweepsAllAges(Honest):
    async def sweep(self, older_than: float) -> int:
        del older_than
        return await super().sweep(0.0)


@noticed_by("test_sweep_spares_the_living")
class SweepsTheLiving(Honest):
    async def sweep(self, older_than: float) -> int:
        del older_than
        count = len(self.inner.contents.staged)
        self.inner.contents.staged.clear()
        return count
