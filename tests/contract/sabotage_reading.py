"""Saboteurs of stat, open, delete, list, presign, close: each is wrong in the one way that its clause forbids."""

# ruff: noqa: D101 - a saboteur's name and its clause say what is wrong with it

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from msrcache.oci.ranges import Span
from msrcache.storage.driver import Content, ObjectInfo, StreamContent
from msrcache.storage.errors import NotFound, RangeNotSatisfiable, StorageError
from tests.contract.sabotage import Honest, noticed_by

NOTHING = ObjectInfo(0, 0.0)


async def one(data: bytes) -> AsyncIterator[bytes]:
    """A stream of these bytes."""
    yield data


@noticed_by("test_stat_tells_the_size")
class TellsBlocks(Honest):
    async def stat(self, key: str) -> ObjectInfo:
        info = await super().stat(key)
        return replace(info, size=-(-info.size // 512) * 512)


@noticed_by("test_stat_of_a_missing_key_is_not_found")
class FindsAnything(Honest):
    async def stat(self, key: str) -> ObjectInfo:
        return await super().stat(key) if self.holds(key) else NOTHING


@noticed_by("test_a_prefix_of_a_key_is_no_object")
class FindsFolders(Honest):
    async def stat(self, key: str) -> ObjectInfo:
        if any(name.startswith(f"{key}/") for name in self.inner.contents.objects):
            return NOTHING
        return await super().stat(key)


class RemembersMisses(Honest):
    """Believes for ever that a key was missing, if it came in one way."""

    way = ""

    async def stat(self, key: str) -> ObjectInfo:
        misses = self.__dict__.setdefault("misses", set())
        if key in misses and self.shared.get(key) == self.way:
            raise NotFound(self.name, key)
        if not self.holds(key):
            misses.add(key)
        return await super().stat(key)

    async def put(self, key: str, data: bytes) -> None:
        self.shared[key] = "put"
        await super().put(key, data)

    async def create(self, key: str, data: bytes) -> bool:
        self.shared[key] = "create"
        return await super().create(key, data)


@noticed_by("test_stat_sees_a_put_after_a_miss")
class MissesPuts(RemembersMisses):
    way = "put"


@noticed_by("test_stat_sees_a_create_after_a_miss")
class MissesCreates(RemembersMisses):
    way = "create"


@noticed_by("test_stat_sees_a_commit_after_a_miss")
class MissesCommits(RemembersMisses):
    async def stat(self, key: str) -> ObjectInfo:
        self.shared.setdefault(key, "")
        return await super().stat(key)


class Opens(Honest):
    """Opens through `content`, which is to be overridden."""

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[Content]:
        async with self.inner.open(key, span) as content:
            yield self.content(key, content)

    def content(self, key: str, content: StreamContent) -> Content:
        """What to give instead."""
        del key
        return content


@noticed_by("test_open_brings_size_and_span")
class TellsThePartForTheWhole(Opens):
    def content(self, key: str, content: StreamContent) -> Content:
        return replace(content, info=replace(content.info, size=content.span.size))


@noticed_by("test_open_of_a_missing_key_is_not_found")
class FindsOutLate(Honest):
    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[Content]:
        if not self.holds(key):
            yield StreamContent(NOTHING, Span(0, 0), one(b""))
            return
        async with super().open(key, span) as content:
            yield content


@noticed_by("test_open_gives_exactly_the_span")
class ReadsWholeChunks(Opens):
    def content(self, key: str, content: StreamContent) -> Content:
        start = content.span.start - content.span.start % 4096
        return replace(content, chunks=one(self.bytes_of(key)[start : start + content.span.size]))


@noticed_by("test_open_clamps_a_span_beyond_the_end")
class RefusesLongSpans(Honest):
    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[Content]:
        if span is not None and span.stop > (await self.stat(key)).size:
            raise RangeNotSatisfiable(self.name, key, size=(await self.stat(key)).size)
        async with super().open(key, span) as content:
            yield content


class GivesNothing(Honest):
    """Answers an impossible span with no bytes."""

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[Content]:
        try:
            async with super().open(key, span) as content:
                yield content
        except RangeNotSatisfiable as error:
            if self.spoils(error.size):
                yield StreamContent(await self.stat(key), Span(0, 0), one(b""))
                return
            raise

    def spoils(self, size: int) -> bool:
        """Which objects are treated so."""
        return size > 0


@noticed_by("test_open_refuses_a_span_that_starts_after_the_end")
class GivesNothingBeyond(GivesNothing):
    pass


@noticed_by("test_an_empty_object_has_no_span")
class GivesNothingOfNothing(GivesNothing):
    def spoils(self, size: int) -> bool:
        return size == 0


@noticed_by("test_open_survives_a_replacement_while_reading")
class ReadsWhatStandsNow(Opens):
    def content(self, key: str, content: StreamContent) -> Content:
        async def late() -> AsyncIterator[bytes]:
            yield self.bytes_of(key)[content.span.start : content.span.stop]

        return replace(content, chunks=late())


@noticed_by("test_open_sees_a_replacement_of_what_is_being_read")
class OpensWhatIsOpen(Honest):
    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[Content]:
        async with super().open(key, span) as content:
            data = self.shared.setdefault(key, self.bytes_of(key))
            try:
                yield StreamContent(content.info, Span.whole(len(data)), one(data))
            finally:
                self.shared.pop(key, None)


@noticed_by("test_open_survives_a_deletion_while_reading")
class LosesWhatIsDeleted(Opens):
    def content(self, key: str, content: StreamContent) -> Content:
        async def late() -> AsyncIterator[bytes | memoryview]:
            if not self.holds(key):
                raise NotFound(self.name, key)
            async for chunk in content.chunks:
                yield chunk

        return replace(content, chunks=late())


@noticed_by("test_many_read_one_object_at_once")
class HasOnePlace(Opens):
    def content(self, key: str, content: StreamContent) -> Content:
        self.shared["place"] = content.span

        async def late() -> AsyncIterator[bytes]:
            await asyncio.sleep(0)
            place = self.shared["place"]
            yield self.bytes_of(key)[place.start : place.stop]

        return replace(content, chunks=late())


@noticed_by("test_delete_removes_for_everybody")
class KeepsWhatItRead(Honest):
    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[Content]:
        kept = self.__dict__.setdefault("kept", {})
        if key not in kept:
            async with super().open(key, span) as content:
                kept[key] = (content.info, self.bytes_of(key))
        info, data = kept[key]
        yield StreamContent(info, Span.whole(len(data)), one(data))


@noticed_by("test_delete_of_a_missing_key_succeeds")
class MissesWhatIsGone(Honest):
    async def delete(self, *keys: str) -> None:
        for key in keys:
            await self.stat(key)
        await super().delete(*keys)


@noticed_by("test_delete_takes_many_keys")
class StopsAtTheMissing(Honest):
    async def delete(self, *keys: str) -> None:
        for key in keys:
            if not self.holds(key):
                return
            await super().delete(key)


@noticed_by("test_delete_spares_what_lies_beside_and_below")
class DeletesFolders(Honest):
    async def delete(self, *keys: str) -> None:
        below = tuple(f"{key}/" for key in keys)
        await super().delete(
            *keys, *(key for key in list(self.inner.contents.objects) if key.startswith(below))
        )


class Lists(Honest):
    """Lists what `choose` leaves of it."""

    async def _all(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        for number, (key, info) in enumerate([item async for item in self.inner.list(prefix)]):
            if self.choose(prefix, key, number):
                yield key, info

    def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        return self._all(prefix)

    def choose(self, prefix: str, key: str, number: int) -> bool:
        """Whether this one is listed."""
        del prefix, key, number
        return True


@noticed_by("test_list_finds_what_lies_below")
class ListsOneLevel(Lists):
    def choose(self, prefix: str, key: str, number: int) -> bool:
        return "/" not in key.removeprefix(f"{prefix}/") or prefix == ""


@noticed_by("test_list_respects_segment_boundaries")
class ListsByText(Honest):
    async def _all(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        for key, found in list(self.inner.contents.objects.items()):
            if key.startswith(prefix):
                yield key, found.info

    def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        return self._all(prefix)


@noticed_by("test_list_of_everything")
class ListsFoldersOnly(Lists):
    def choose(self, prefix: str, key: str, number: int) -> bool:
        return bool(prefix) or "/" in key


@noticed_by("test_list_of_nothing_is_empty")
class CannotListNothing(Lists):
    async def _all(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        found = [item async for item in super()._all(prefix)]
        if not found:
            raise NotFound(self.name, prefix)
        for item in found:
            yield item


@noticed_by("test_list_pages_are_invisible")
class ListsOnePage(Lists):
    def choose(self, prefix: str, key: str, number: int) -> bool:
        return number < 1000


@noticed_by("test_list_bears_what_changes_meanwhile")
class LooksAgain(Lists):
    async def _all(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        async for key, _ in super()._all(prefix):
            yield key, await self.stat(key)


@noticed_by("test_presigned_url_serves_a_range_without_credentials")
class HasDeadUrls(Honest):
    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        return f"{endpoint or 'http://127.0.0.1:1'}/{key}?ttl={ttl}"


@noticed_by("test_presigned_url_is_for_the_endpoint_asked_for")
class KnowsOneEndpoint(Honest):
    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        return f"http://127.0.0.1:1/{key}?ttl={ttl}" if endpoint else None


@noticed_by("test_errors_carry_driver_and_key")
class SaysNothing(Honest):
    async def stat(self, key: str) -> ObjectInfo:
        if not self.holds(key):
            raise NotFound("", "")
        return await super().stat(key)


@noticed_by("test_close_is_idempotent")
class ClosesOnce(Honest):
    async def close(self) -> None:
        if self.__dict__.get("closed"):
            raise StorageError(self.name, "", None, "closed already")
        self.__dict__["closed"] = True


@noticed_by("test_check_storage_finds_every_promise_kept")
class TellsOneByteMore(Honest):
    async def stat(self, key: str) -> ObjectInfo:
        info = await super().stat(key)
        return replace(info, size=info.size + 1)
