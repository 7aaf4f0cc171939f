"""The clauses of writing: put, create, writer, sweep. See clauses.py."""

import asyncio

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.driver import Driver, SpoolFile
from msrcache.storage.errors import NotFound, StorageError
from tests.contract.harness import Harness, Spooler, keys, pattern, read, write

KEY = "docker/registry/v2/blobs/sha256/cd/cdef/data"


class Outage(Exception):
    """Something fails while a writer is open."""


class WritingClauses:
    """What put, create, writer and sweep promise."""

    async def test_put_is_read_back(self, here: Driver, there: Driver) -> None:
        """What was put here is read there, byte for byte: all values, line ends, what looks compressed."""
        data = bytes(range(256)) + b"\r\n\n\x1f\x8b\x08\x00" + pattern(10_000)
        await here.put(KEY, data)
        assert await read(there, KEY) == data

    async def test_put_replaces(self, here: Driver, there: Driver) -> None:
        """The last put stands, also when it is shorter or empty."""
        for data in (b"long" * 1000, b"short", b""):
            await here.put(KEY, data)
            assert await read(there, KEY) == data
            assert (await there.stat(KEY)).size == len(data)

    async def test_put_is_never_seen_half_written(self, here: Driver, there: Driver) -> None:
        """Whoever reads while it is replaced sees the old or the new, whole."""
        contents = [bytes([number]) * 200_000 for number in b"ab"]
        await here.put(KEY, contents[0])

        async def replace_often() -> None:
            for number in range(20):
                await here.put(KEY, contents[number % 2])

        replacing = asyncio.create_task(replace_often())
        while not replacing.done():
            assert await read(there, KEY) in contents
            await asyncio.sleep(0)
        await replacing

    async def test_keys_may_be_long_and_odd(self, here: Driver, there: Driver) -> None:
        """Every character of a key counts, case too; segments of 255 and keys of 900 bytes are keys."""
        names = ["a/Key", "a/key", "a/.hidden", "a/-dash", "a/under_score..x", "_layers/" + "n" * 255]
        names.append("/".join(["s" * 99] * 9))
        for number, name in enumerate(names):
            await here.put(name, b"%d" % number)
        assert [await read(there, name) for name in names] == [b"%d" % number for number in range(len(names))]
        assert await keys(there.list("")) == sorted(names)

    async def test_create_makes_what_is_absent(self, here: Driver, there: Driver) -> None:
        """create says True, and the object stands."""
        assert await here.create(KEY, b"mine") is True
        assert await read(there, KEY) == b"mine"

    async def test_create_keeps_the_first_content(self, here: Driver, there: Driver) -> None:
        """A second create says False and changes nothing, whoever made or put the first."""
        assert await here.create(KEY, b"first")
        assert await there.create(KEY, b"second") is False
        assert await here.create(KEY, b"first") is False
        await here.put("a/put", b"first")
        assert await there.create("a/put", b"second") is False
        assert [await read(there, KEY), await read(here, "a/put")] == [b"first", b"first"]

    async def test_hundred_concurrent_creates_have_one_winner(self, here: Driver, there: Driver) -> None:
        """Of many at once exactly one wins, and its content stands."""
        if not here.create_is_exclusive:
            pytest.skip(f"{here.name} declares that its create is not exclusive")
        drivers = [here, there] * 50
        won = await asyncio.gather(*(d.create(KEY, b"%d" % n) for n, d in enumerate(drivers)))
        assert sum(won) == 1
        assert await read(there, KEY) == b"%d" % won.index(True)

    async def test_create_works_again_after_delete(self, here: Driver, there: Driver) -> None:
        """A deleted key can be created anew, many times."""
        for number in range(10):
            assert await here.create(KEY, b"%d" % number)
            await there.delete(KEY)
        assert await there.create(KEY, b"last")
        assert await read(here, KEY) == b"last"

    async def test_creating_and_deleting_neighbours_at_once(self, here: Driver, there: Driver) -> None:
        """What empties a place does not hinder who fills it."""

        async def come_and_go(driver: Driver, name: str) -> None:
            for _ in range(20):
                assert await driver.create(f"a/b/c/{name}", b"1")
                await driver.delete(f"a/b/c/{name}")

        await asyncio.gather(
            *(come_and_go(driver, f"{n}{driver is here}") for n in "123" for driver in (here, there))
        )
        assert await keys(there.list("")) == []

    async def test_a_writer_publishes_the_whole_object(
        self, here: Driver, there: Driver, spool: Spooler
    ) -> None:
        """commit tells the size, and all spans are there in order."""
        data = pattern(300_000)
        info = await write(here, KEY, spool(data), spans=7)
        assert info.size == 300_000
        assert (await there.stat(KEY)).size == 300_000
        assert await read(there, KEY) == data

    async def test_nothing_is_visible_before_commit(
        self, here: Driver, there: Driver, spool: Spooler
    ) -> None:
        """Until commit neither stat, open, list nor create see anything of it; then all do."""
        async with here.writer(KEY) as writer:
            await writer.write(spool(b"1234"), Span(0, 4))
            with pytest.raises(NotFound):
                await there.stat(KEY)
            with pytest.raises(NotFound):
                await read(there, KEY)
            assert await keys(there.list("")) == []
            await writer.commit()
        assert await keys(there.list("")) == [KEY]
        assert await there.create(KEY, b"") is False

    async def test_what_stood_there_stands_until_commit(
        self, here: Driver, there: Driver, spool: Spooler
    ) -> None:
        """A writer replaces at commit, not before."""
        await here.put(KEY, b"old")
        async with here.writer(KEY) as writer:
            await writer.write(spool(b"newer"), Span(0, 5))
            assert await read(there, KEY) == b"old"
            await writer.commit()
        assert await read(there, KEY) == b"newer"

    async def test_leaving_without_commit_leaves_nothing(
        self, here: Driver, there: Driver, spool: Spooler, harness: Harness
    ) -> None:
        """Leaving aborts, also when something failed: no object, no leftover."""
        async with here.writer(KEY) as writer:
            await writer.write(spool(b"1234"), Span(0, 4))
        with pytest.raises(Outage):
            await _fail(here, spool(b"1234"))
        async with here.writer(KEY):
            pass
        assert await keys(there.list("")) == []
        assert await harness.leftovers() == 0

    async def test_cancelled_write_leaves_nothing(
        self, here: Driver, there: Driver, spool: Spooler, harness: Harness
    ) -> None:
        """The same when the writing task is cancelled, at any of its steps."""
        for steps in range(8):
            file = spool(pattern(300_000))
            writing = asyncio.create_task(_write_for_ever(here, file, 300_000))
            for _ in range(steps):
                await asyncio.sleep(0)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
        assert await keys(there.list("")) == []
        assert await harness.leftovers() == 0

    async def test_abort_is_idempotent_even_after_commit(
        self, here: Driver, there: Driver, spool: Spooler, harness: Harness
    ) -> None:
        """abort drops what is not committed, again is nothing more, and what is committed stays."""
        async with here.writer(KEY) as writer:
            await writer.write(spool(b"1234"), Span(0, 4))
            await writer.abort()
            await writer.abort()
        with pytest.raises(NotFound):
            await there.stat(KEY)
        async with here.writer(KEY) as writer:
            await writer.write(spool(b"1234"), Span(0, 4))
            await writer.commit()
            await writer.abort()
        assert await read(there, KEY) == b"1234"
        assert await harness.leftovers() == 0

    async def test_a_writer_that_ended_takes_nothing(
        self, here: Driver, there: Driver, spool: Spooler
    ) -> None:
        """After commit or abort, write and commit raise StorageError, and what stands is not touched."""
        file = spool(b"12345678")
        async with here.writer(KEY) as writer:
            await writer.write(file, Span(0, 8))
            await writer.commit()
            with pytest.raises(StorageError):
                await writer.write(file, Span(8, 8))
            with pytest.raises(StorageError):
                await writer.commit()
        async with here.writer("a/other") as writer:
            await writer.abort()
            with pytest.raises(StorageError):
                await writer.commit()
        assert await read(there, KEY) == b"12345678"
        assert await keys(there.list("")) == [KEY]

    async def test_spans_follow_each_other(self, here: Driver, there: Driver, spool: Spooler) -> None:
        """A gap or a repetition is refused, and what was written before it is not spoiled."""
        file = spool(b"0123456789")
        async with here.writer(KEY) as writer:
            await writer.write(file, Span(0, 4))
            for wrong in (Span(5, 10), Span(3, 10), Span(0, 4)):
                with pytest.raises(StorageError):
                    await writer.write(file, wrong)
            await writer.write(file, Span(4, 10))
            await writer.commit()
        assert await read(there, KEY) == b"0123456789"

    async def test_two_writers_leave_one_whole_object(
        self, here: Driver, there: Driver, spool: Spooler
    ) -> None:
        """Two fills of one blob: both commits succeed, and one object stands, whole."""
        both = [pattern(200_000, seed=1), pattern(150_000, seed=2)]
        await asyncio.gather(
            *(
                write(driver, KEY, spool(data), spans=3)
                for driver, data in zip((here, there), both, strict=True)
            )
        )
        assert await read(there, KEY) in both
        assert await keys(there.list("")) == [KEY]

    async def test_a_writer_of_nothing_makes_an_empty_object(
        self, here: Driver, there: Driver, spool: Spooler
    ) -> None:
        """Without a write, and with an empty span."""
        async with here.writer(KEY) as writer:
            assert (await writer.commit()).size == 0
        await write(here, "a/empty", spool(b""))
        assert [await read(there, KEY), await read(there, "a/empty")] == [b"", b""]

    async def test_object_of_exactly_one_part_and_one_byte_more(
        self, here: Driver, there: Driver, spool: Spooler, harness: Harness
    ) -> None:
        """The sizes around a part of the service's are as good as others, in spans that fit no part."""
        for size in (harness.part - 1, harness.part, harness.part + 1, 2 * harness.part):
            data = pattern(size)
            await write(here, KEY, spool(data), spans=3)
            assert await read(there, KEY) == data

    async def test_a_writer_takes_a_file_that_grows(
        self, here: Driver, there: Driver, spool: Spooler
    ) -> None:
        """Spans are given while the file grows; only what was given counts, whatever is in the file."""
        file = spool()
        async with here.writer(KEY) as writer:
            for number in range(4):
                spool.grow(file, bytes([number]) * 50_000)
                await writer.write(file, Span(number * 50_000, (number + 1) * 50_000))
            spool.grow(file, b"not given")
            assert (await writer.commit()).size == 200_000
        assert await read(there, KEY) == b"".join(bytes([number]) * 50_000 for number in range(4))

    async def test_the_spool_file_may_go_at_commit(self, here: Driver, there: Driver, spool: Spooler) -> None:
        """The object does not need the file any more, even when its path went before the commit."""
        late, early = spool(pattern(100_000)), spool(pattern(100_000))
        await write(here, KEY, late)
        spool.drop(late)
        async with here.writer("a/early") as writer:
            await writer.write(early, Span(0, 100_000))
            spool.drop(early)
            await writer.commit()
        assert await read(there, KEY) == await read(there, "a/early") == pattern(100_000)

    async def test_a_file_too_short_is_an_error(self, here: Driver, there: Driver, spool: Spooler) -> None:
        """Bytes that were promised and are not there make no object, least of all one of zeros."""
        with pytest.raises(StorageError):
            await _promise(here, spool(b"1234"), 8)
        with pytest.raises(NotFound):
            await there.stat(KEY)

    async def test_sweep_removes_what_the_dead_left(
        self, here: Driver, there: Driver, harness: Harness
    ) -> None:
        """What a killed writer left goes, and is counted; objects stay."""
        await here.put(KEY, b"1")
        await harness.leave_dead_writer("a/dead")
        assert await harness.leftovers() == 1
        assert await there.sweep(0.0) == 1
        assert await harness.leftovers() == 0
        assert await there.sweep(0.0) == 0
        assert await keys(here.list("")) == [KEY]

    async def test_sweep_spares_the_young(self, here: Driver, there: Driver, harness: Harness) -> None:
        """Nothing younger than asked for is removed."""
        await here.put(KEY, b"1")
        await harness.leave_dead_writer("a/dead")
        assert await there.sweep(3600.0) == 0
        assert await harness.leftovers() == 1

    async def test_sweep_spares_the_living(
        self, here: Driver, there: Driver, spool: Spooler, harness: Harness
    ) -> None:
        """A writer that is at work loses nothing, whatever its age."""
        async with here.writer(KEY) as writer:
            file = spool(b"12345678")
            await writer.write(file, Span(0, 4))
            before = await harness.leftovers()
            assert await there.sweep(0.0) == 0
            assert await harness.leftovers() == before
            await writer.write(file, Span(4, 8))
            await writer.commit()
        assert await read(there, KEY) == b"12345678"


async def _fail(driver: Driver, file: SpoolFile) -> None:
    async with driver.writer(KEY) as writer:
        await writer.write(file, Span(0, 4))
        raise Outage


async def _promise(driver: Driver, file: SpoolFile, size: int) -> None:
    async with driver.writer(KEY) as writer:
        await writer.write(file, Span(0, size))
        await writer.commit()


async def _write_for_ever(driver: Driver, file: SpoolFile, size: int) -> None:
    async with driver.writer(KEY) as writer:
        for start in range(0, size, 1000):
            await writer.write(file, Span(start, start + 1000))
        await asyncio.Event().wait()
