"""The Azure driver: block blobs in one container of Azure Blob Storage, or of what is made like it (Azurite).

Its parameters and a sample of them are in `azureparameters`. Names in the container are Docker Registry's, with or
without its leading slash (`azurecontainer`), so what one has written the other serves.

Rules:
1. One request each: stat, open, put, create, delete of up to 256 or of a version, a blob that fits one part.
2. create and commit ask for the blob to be absent (If-None-Match: *); see `azureupload` for what a commit finds there.
3. Every blob carries a checksum: the MD5 that the service computes of what went in one piece, the MD5s of the parts,
   each verified by the service, of what went in parts.
4. A body whose connection breaks goes on at the byte where it broke, of the same version of the blob.
5. There is nothing to sweep. Blocks of a writer that died belong to a blob that is not there; the service offers no way
   to drop them but to write that blob, which readers would see, and drops them itself a week after the last.

Not here: the SDK (`azureclient`), refusals (`azureerrors`), how parts are sent (`parts`), deadlines and retries
(`store`).
"""

import asyncio
import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Any, Final

import aiohttp

from msrcache.oci.ranges import Span
from msrcache.storage.authority import warn_unverified
from msrcache.storage.azurecontainer import PIECE, Answer, Container, info_of, md5_of, size_of
from msrcache.storage.azurecredentials import check_installed
from msrcache.storage.azureerrors import NAME, AlreadyThere, NotImplementedThere, OutOfRange
from msrcache.storage.azureparameters import LARGEST_PART, AzureParameters, parameters
from msrcache.storage.azuresigning import Signer
from msrcache.storage.azuresituation import told
from msrcache.storage.azureupload import AzureUpload, Sent
from msrcache.storage.calls import Retries
from msrcache.storage.driver import ObjectInfo, StreamContent
from msrcache.storage.errors import NotFound, RangeNotSatisfiable
from msrcache.storage.parts import PartsWriter, Plan, Uploads
from msrcache.storage.resumed import Found, Resuming, asking_for, brought
from msrcache.telemetry.logs import get_logger

BULK: Final = 256
"""Blobs in one batch."""

AT_ONCE: Final = 16
"""Deletes at once where the service knows no batches."""

log = get_logger(__name__)


def make(given: Mapping[str, object]) -> "Azure":
    """The driver for these parameters. Raises ParameterError, and ModuleNotFoundError for a missing package."""
    found = parameters(given)
    check_installed(found.identity)
    if found.skipverify:
        warn_unverified(NAME)
    return Azure(found)


class Azure:
    """Implements Driver."""

    def __init__(self, given: AzureParameters) -> None:
        self.name = NAME
        self.create_is_exclusive = True
        self.container = Container(given)
        self._signer = Signer(given, self.container.client)
        retries = Retries(attempts=given.max_retries + 1, base=given.retry_delay)
        self._uploads = Uploads(NAME, retries=retries)
        self._plan = Plan(size=given.chunksize, largest=LARGEST_PART)

    def __repr__(self) -> str:
        return f"<Azure {self.container!r}>"

    def twin(self) -> "Azure":
        """As Twin."""
        other = Azure(self.container.given)
        other.container.names = self.container.names  # what has been found out need not be again
        return other

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        return await self.container.stat(key)

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[StreamContent]:
        """As Driver; the content is a stream."""
        async with AsyncExitStack() as stack:
            try:
                answer, response = await stack.enter_async_context(self.container.get(key, span=_range(span)))
            except OutOfRange as error:
                size = (await self.stat(key)).size if error.size is None else error.size
                raise RangeNotSatisfiable(self.name, key, size=size) from error
            content = _found(key, answer, span)
            chunks = self._resuming(key).body(content, response)
            async with aclosing(chunks):
                yield StreamContent(content.info, content.span, chunks)

    async def put(self, key: str, data: bytes) -> None:
        """As Driver."""
        await self._put(key, data, conditional=False)

    async def create(self, key: str, data: bytes) -> bool:
        """As Driver."""
        if await self.container.adopted(key):
            return False
        try:
            await self._put(key, data, conditional=True)
        except AlreadyThere:
            return False
        return True

    def writer(self, key: str) -> PartsWriter[Sent]:
        """As Driver."""
        return self._uploads.writer(key, AzureUpload(self.container, key), self._plan)

    async def delete(self, *keys: str) -> None:
        """As Driver; 256 at once."""
        names = await self.container.called(*keys)
        if len(names) > 1 and self.container.batches:
            try:
                for start in range(0, len(names), BULK):
                    await self._delete_batch(keys[0], names[start : start + BULK])
                return
            except NotImplementedThere:
                self.container.batches = False
        turns = asyncio.Semaphore(AT_ONCE)
        done = await asyncio.gather(
            *(self._delete_one(name, turns) for name in names), return_exceptions=True
        )
        for result in done:
            if isinstance(result, BaseException):
                raise result

    async def delete_version(self, key: str, info: ObjectInfo) -> None:
        """As Versioned. What stood there before, under the other spelling, goes too: it would be found instead."""
        for name in await self.container.called(key):
            with suppress(NotFound, AlreadyThere):
                await self.container.delete(key, name, info)

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """As Driver."""
        previous = ""
        async with AsyncExitStack() as stack:
            listings = [
                await stack.enter_async_context(aclosing(self._listed(prefix, below)))
                for below in await self.container.spellings(prefix)
            ]
            merged = _merged(listings) if len(listings) > 1 else listings[0]
            async for key, info in merged:
                if key != previous and key and not key.endswith("/"):  # a folder that a tool has made
                    yield key, info
                previous = key

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """As Driver; with an identity the service is asked for a key to sign with, once in hours."""
        name = self.container.names.likely(key)
        return await self._signer.url(key, name, ttl=ttl, endpoint=endpoint)

    async def sweep(self, older_than: float) -> int:
        """As Driver: nothing, see rule 5."""
        del older_than
        return 0

    async def situation(self) -> Sequence[str]:
        """As Situated: what container and account are set to, where that may be read."""
        await self.container.spellings("docker")
        settings = await self.container.client.settings()
        return told(self.container.given.container, settings, both=bool(self.container.names.both))

    async def close(self) -> None:
        """As Driver."""
        await self._uploads.close()
        await self.container.client.close()

    async def _put(self, key: str, data: bytes, *, conditional: bool) -> None:
        md5 = md5_of(data) if len(data) <= PIECE else await asyncio.to_thread(md5_of, data)
        body = data if len(data) <= PIECE else _pieces(data)
        await self.container.put(key, body, size=len(data), md5=md5, conditional=conditional)

    async def _delete_batch(self, key: str, names: Sequence[str]) -> None:
        answers = await self.container.client.delete_many(key, names)
        for name, (status, code) in zip(names, answers, strict=True):
            if not 200 <= status < 300:
                error = self.container.client.refused(
                    "Blob Batch", self.container.names.key(name), status, code
                )
                if not isinstance(error, NotFound):
                    raise error

    async def _delete_one(self, name: str, turns: asyncio.Semaphore) -> None:
        async with turns:
            with suppress(NotFound):
                await self.container.client.delete(self.container.names.key(name), name)

    async def _listed(self, prefix: str, below: str) -> AsyncGenerator[tuple[str, ObjectInfo], None]:
        """What one spelling of the prefix has, in the order of the keys."""
        async for page in self.container.client.pages(prefix, below):
            for name, blob in page:
                # Without a prefix the listing of the slashless has the others too.
                if below or not name.startswith("/"):
                    yield self.container.names.key(name), _item(blob)

    def _resuming(self, key: str) -> Resuming:
        @asynccontextmanager
        async def rest(span: Span, etag: str | None) -> AsyncIterator[aiohttp.ClientResponse]:
            async with self.container.get(key, span=asking_for(span), etag=etag) as (_, response):
                yield response

        return Resuming(NAME, key, rest, replaced=AlreadyThere)


def _range(span: Span | None) -> str | None:
    return None if span is None else asking_for(span)


def _found(key: str, answer: Answer, wanted: Span | None) -> Found:
    """What the blob is, and which of its bytes come."""
    if wanted is None:
        size = size_of(key, answer)
        return Found(info_of(answer, size), Span.whole(size))
    told = answer.get("content-range", "")
    whole = told.rpartition("/")[2]
    if whole.isdigit() and wanted.start >= int(whole):  # Azurite: a 206 of "bytes 10-9/10"
        raise RangeNotSatisfiable(NAME, key, size=int(whole))
    span, total = brought(NAME, key, told, wanted)
    return Found(info_of(answer, total), span)


def _item(blob: Any) -> ObjectInfo:
    """What a listing says of a blob: the SDK's properties."""
    return ObjectInfo(blob.size, blob.last_modified.timestamp(), f'"{blob.etag}"')


async def _merged(
    listings: Sequence[AsyncIterator[tuple[str, ObjectInfo]]],
) -> AsyncIterator[tuple[str, ObjectInfo]]:
    """Listings that are each in order, as one in order; what is in both comes from the first of them first."""
    heads: list[tuple[str, int, ObjectInfo]] = []

    async def advance(number: int) -> None:
        item = await anext(listings[number], None)
        if item is not None:
            heapq.heappush(heads, (item[0], number, item[1]))

    for number in range(len(listings)):
        await advance(number)
    while heads:
        key, number, info = heapq.heappop(heads)
        yield key, info
        await advance(number)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]
