"""The clauses of reading: stat, open, delete, list, presign. See clauses.py."""

import asyncio
from functools import partial
from urllib.parse import urlsplit

import aiohttp
import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.driver import Driver
from msrcache.storage.errors import NotFound, RangeNotSatisfiable
from tests.contract.harness import Harness, Spooler, keys, pattern, read, rest, write

KEY = "docker/registry/v2/blobs/sha256/ab/abcd/data"


class ReadingClauses:
    """What stat, open, delete, list and presign promise."""

    async def test_stat_tells_the_size(self, here: Driver, there: Driver) -> None:
        """stat tells how many bytes an object has, and a time stamp that does not go back."""
        await here.put("a/first", b"12345")
        await here.put("a/second", b"")
        first, second = await there.stat("a/first"), await there.stat("a/second")
        assert (first.size, second.size) == (5, 0)
        assert first.modified <= second.modified

    async def test_stat_of_a_missing_key_is_not_found(self, here: Driver, there: Driver) -> None:
        """stat raises NotFound where nothing stands, also beside an object."""
        await here.put("a/key", b"1")
        for missing in ("a/kez", "b/key"):
            with pytest.raises(NotFound):
                await there.stat(missing)

    async def test_a_prefix_of_a_key_is_no_object(self, here: Driver, there: Driver) -> None:
        """What leads to a key, and what would lie below it, is NotFound for stat and open."""
        await here.put("a/b/c", b"1")
        for missing in ("a/b", "a", "a/b/c/d"):
            with pytest.raises(NotFound):
                await there.stat(missing)
            with pytest.raises(NotFound):
                await read(there, missing)

    async def test_stat_sees_a_put_after_a_miss(self, here: Driver, there: Driver) -> None:
        """That a key was missing a moment ago is not remembered."""
        with pytest.raises(NotFound):
            await there.stat(KEY)
        await here.put(KEY, b"there")
        assert (await there.stat(KEY)).size == 5

    async def test_stat_sees_a_create_after_a_miss(self, here: Driver, there: Driver) -> None:
        """The same for what create made."""
        with pytest.raises(NotFound):
            await there.stat(KEY)
        assert await here.create(KEY, b"there")
        assert (await there.stat(KEY)).size == 5

    async def test_stat_sees_a_commit_after_a_miss(self, here: Driver, there: Driver, spool: Spooler) -> None:
        """The same for what a writer committed."""
        with pytest.raises(NotFound):
            await there.stat(KEY)
        await write(here, KEY, spool(b"there"))
        assert (await there.stat(KEY)).size == 5

    async def test_open_brings_size_and_span(self, here: Driver, there: Driver) -> None:
        """open says how large the object is and which of its bytes come, without a stat before it."""
        await here.put(KEY, pattern(1000))
        async with there.open(KEY) as whole, there.open(KEY, Span(10, 20)) as part:
            assert (whole.info.size, whole.span) == (1000, Span(0, 1000))
            assert (part.info.size, part.span) == (1000, Span(10, 20))

    async def test_open_of_a_missing_key_is_not_found(self, here: Driver, there: Driver) -> None:
        """open raises NotFound on entering, before any byte is asked for."""
        await here.put("a/key", b"1")
        with pytest.raises(NotFound):
            async with there.open("a/kez"):
                pytest.fail("something was opened")

    async def test_open_gives_exactly_the_span(self, here: Driver, there: Driver) -> None:
        """The bytes are those of the span, wherever it starts and ends."""
        data = pattern(200_000)
        await here.put(KEY, data)
        for span in (Span(0, 1), Span(199_999, 200_000), Span(65_535, 131_073), Span(0, 200_000)):
            assert await read(there, KEY, span) == data[span.start : span.stop]

    async def test_open_clamps_a_span_beyond_the_end(self, here: Driver, there: Driver) -> None:
        """A stop beyond the end means the end, however far."""
        await here.put(KEY, b"0123456789")
        assert await read(there, KEY, Span(7, 11)) == b"789"
        assert await read(there, KEY, Span(0, 1 << 62)) == b"0123456789"

    async def test_open_refuses_a_span_that_starts_after_the_end(self, here: Driver, there: Driver) -> None:
        """A start at the end or beyond it raises RangeNotSatisfiable, which knows the size."""
        await here.put(KEY, b"0123456789")
        for start in (10, 11, 1 << 40):
            with pytest.raises(RangeNotSatisfiable) as refused:
                await read(there, KEY, Span(start, start + 1))
            assert refused.value.size == 10

    async def test_an_empty_object_has_no_span(self, here: Driver, there: Driver) -> None:
        """An empty object is opened whole, and refuses every span."""
        await here.put(KEY, b"")
        assert await read(there, KEY) == b""
        with pytest.raises(RangeNotSatisfiable) as refused:
            await read(there, KEY, Span(0, 1))
        assert refused.value.size == 0

    async def test_open_survives_a_replacement_while_reading(self, here: Driver, there: Driver) -> None:
        """Who has opened an object reads that one to its end, whatever is put in its place."""
        await here.put(KEY, b"a" * 300_000)
        async with there.open(KEY) as content:
            await here.put(KEY, b"b" * 200_000)
            assert await rest(content) == b"a" * 300_000
        assert await read(there, KEY) == b"b" * 200_000

    async def test_open_sees_a_replacement_of_what_is_being_read(self, here: Driver, there: Driver) -> None:
        """Who opens after a put gets what was put, although the one before is open on either side."""
        await here.put(KEY, b"a" * 3000)
        for reader in (there, here):
            async with reader.open(KEY) as content:
                await here.put(KEY, b"b" * 2000)
                assert [await read(driver, KEY) for driver in (there, here)] == [b"b" * 2000] * 2
                await here.put(KEY, b"a" * 3000)
                assert await read(there, KEY) == await rest(content) == b"a" * 3000

    async def test_open_survives_a_deletion_while_reading(self, here: Driver, there: Driver) -> None:
        """The same when it is deleted."""
        await here.put(KEY, b"a" * 300_000)
        async with there.open(KEY) as content:
            await here.delete(KEY)
            assert await rest(content) == b"a" * 300_000

    async def test_many_read_one_object_at_once(self, here: Driver, there: Driver) -> None:
        """Readers do not move each other's place."""
        data = pattern(100_000)
        await here.put(KEY, data)
        spans = [Span(start * 1000, 100_000) for start in range(20)]
        parts = await asyncio.gather(*(read(driver, KEY, span) for span in spans for driver in (here, there)))
        assert parts == [data[span.start :] for span in spans for _ in range(2)]

    async def test_delete_removes_for_everybody(self, here: Driver, there: Driver) -> None:
        """A deleted object is gone for every replica, also for one that has just read it."""
        await here.put(KEY, b"1")
        assert await read(there, KEY) == b"1"
        await here.delete(KEY)
        with pytest.raises(NotFound):
            await there.stat(KEY)
        with pytest.raises(NotFound):
            await read(there, KEY)

    async def test_delete_of_a_missing_key_succeeds(self, here: Driver, there: Driver) -> None:
        """Deleting is idempotent, also for two at once, and below a key that is an object."""
        await here.delete("never/was")
        await here.put("a/b", b"1")
        await here.delete("a/b/c")
        await asyncio.gather(here.delete("a/b"), there.delete("a/b"))
        await there.delete("a/b")
        with pytest.raises(NotFound):
            await here.stat("a/b")

    async def test_delete_takes_many_keys(self, here: Driver, there: Driver) -> None:
        """All the keys named go, whether the others are there or not; what was not named stays."""
        for number in range(5):
            await here.put(f"a/{number}", b"1")
        await here.delete("a/0", "a/missing", "a/1", "a/3")
        assert await keys(there.list("a")) == ["a/2", "a/4"]

    async def test_delete_spares_what_lies_beside_and_below(self, here: Driver, there: Driver) -> None:
        """A key names one object, no folder and no prefix."""
        for key in ("a/b/c", "a/bc", "a/b.d"):
            await here.put(key, b"1")
        await here.delete("a/b", "a")
        assert await keys(there.list("")) == ["a/b.d", "a/b/c", "a/bc"]

    async def test_list_finds_what_lies_below(self, here: Driver, there: Driver) -> None:
        """list brings all objects below the prefix, at any depth, with their sizes."""
        for size, key in enumerate(("a/one", "a/b/two", "a/b/c/d/three", "b/four")):
            await here.put(key, b"." * size)
        found = {key: info.size async for key, info in there.list("a")}
        assert found == {"a/one": 0, "a/b/two": 1, "a/b/c/d/three": 2}

    async def test_list_respects_segment_boundaries(self, here: Driver, there: Driver) -> None:
        """a/b holds a/b/c, and neither a/bc nor a/b itself."""
        for key in ("a/b/c", "a/bc", "a/b-c/d", "a/b.c", "c/b"):
            await here.put(key, b"1")
        assert await keys(there.list("a/b")) == ["a/b/c"]
        assert await keys(there.list("c/b")) == []

    async def test_list_of_everything(self, here: Driver, there: Driver) -> None:
        """The empty prefix is the whole store."""
        for key in ("a", "b/c", "docker/registry/v2/x"):
            await here.put(key, b"1")
        assert await keys(there.list("")) == ["a", "b/c", "docker/registry/v2/x"]

    async def test_list_of_nothing_is_empty(self, here: Driver, there: Driver) -> None:
        """A prefix below which nothing stands lists nothing, and is no error; nor is an empty store."""
        assert await keys(there.list("")) == []
        await here.put("a/b", b"1")
        assert await keys(there.list("b")) == []
        await here.delete("a/b")
        assert await keys(there.list("a")) == []

    async def test_list_pages_are_invisible(self, here: Driver, there: Driver, harness: Harness) -> None:
        """More objects than the service gives in one answer come all, each once."""
        names = [f"many/{number:04}" for number in range(harness.page * 11 // 10)]
        for start in range(0, len(names), 100):
            await asyncio.gather(*(here.put(name, b"") for name in names[start : start + 100]))
        assert await keys(there.list("many")) == names

    async def test_list_bears_what_changes_meanwhile(self, here: Driver, there: Driver) -> None:
        """Objects that come and go while listing hurt nobody; what stays is listed."""
        for number in range(30):
            await here.put(f"a/{number:02}/data", b"1")
        found = []
        async for key, _ in there.list("a"):
            found.append(key)
            if len(found) == 1:
                await here.delete(*(f"a/{number:02}/data" for number in range(10, 20)))
                await here.put("a/new/data", b"1")
        stays = {f"a/{number:02}/data" for number in (*range(10), *range(20, 30))}
        assert stays <= set(found)
        assert len(found) == len(set(found))

    async def test_presigned_url_serves_a_range_without_credentials(
        self, here: Driver, there: Driver, harness: Harness
    ) -> None:
        """A presigned URL honours Range and needs no header; a driver without URLs says None."""
        await here.put(KEY, b"0123456789")
        url = await there.presign(KEY, 60.0)
        assert (url is not None) == harness.presigns
        if url is not None:
            async with aiohttp.ClientSession() as session:
                answer = await session.get(url, headers={"Range": "bytes=2-4"})
                assert (answer.status, await answer.read()) == (206, b"234")

    async def test_presigned_url_is_for_the_endpoint_asked_for(self, here: Driver, harness: Harness) -> None:
        """The URL leads to where the one who gets it reaches the service; no object need be there to sign for it."""
        url = await here.presign(KEY, 60.0, endpoint="https://store.example.test:8443")
        assert (url is not None) == harness.presigns
        if url is not None:
            parts = urlsplit(url)
            assert parts.scheme == "https"
            assert parts.netloc.endswith("store.example.test:8443")
            assert KEY in parts.path

    async def test_errors_carry_driver_and_key(self, here: Driver, there: Driver) -> None:
        """Whoever reads the log sees which driver failed, and on which key."""
        await here.put("a/key", b"1")
        for failing in (there.stat, partial(read, there)):
            with pytest.raises(NotFound) as failed:
                await failing("not/there")
            assert (failed.value.driver, failed.value.key) == (there.name, "not/there")
            assert there.name in str(failed.value)
            assert "not/there" in str(failed.value)

    async def test_close_is_idempotent(self, harness: Harness) -> None:
        """Closing twice is closing once; another instance on the store goes on."""
        here, there = harness.driver(), harness.driver()
        await here.put(KEY, b"1")
        await here.close()
        await here.close()
        assert await read(there, KEY) == b"1"
        await there.close()
