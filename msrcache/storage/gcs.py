"""The driver of Google Cloud Storage.

Its parameters and a sample of them are in `gcsparameters`. Names in the bucket are Docker Registry's: rootdirectory,
then our keys, so what one has written the other serves.

Rules:
1. One request each: stat, open, put, create, delete of one, a blob that fits one part.
2. create and commit ask for the key to be absent (ifGenerationMatch=0), which this service decides for one of many; see
   `gcsupload` for what a commit finds there.
3. Every object has the service's CRC-32C; what is sent is checked against it.
4. A body whose connection breaks goes on at the byte where it broke, of the same generation of the object.
5. Uploads that dead writers left cannot be listed and are seen and paid for by nobody: the service drops them after a
   week, so sweep() finds nothing.

Not here: requests (`gcsbucket`, `gcsclient`), credentials and signatures (`gcsidentity`), refusals (`gcserrors`), how
parts are read (`parts`), deadlines and retries (`store`).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Final

import aiohttp

from msrcache.oci.ranges import Span
from msrcache.storage.authority import check_authority, warn_unverified
from msrcache.storage.driver import ObjectInfo, StreamContent
from msrcache.storage.errors import Denied, NotFound, RangeNotSatisfiable, StorageError
from msrcache.storage.gcsbucket import ABSENT, PIECE, Bucket, Crc32c, info_of_body, pieces
from msrcache.storage.gcserrors import NAME, AlreadyThere, OutOfRange
from msrcache.storage.gcsidentity import Wanted, trust
from msrcache.storage.gcsparameters import GcsParameters, parameters
from msrcache.storage.gcssituation import told
from msrcache.storage.gcsupload import GcsUpload
from msrcache.storage.parts import PartsWriter, Plan, Uploads
from msrcache.storage.resumed import Found, Resuming, asking_for, brought
from msrcache.telemetry.logs import get_logger

GROWTH: Final = 8
"""How many times larger than the first a later piece of an upload may be: each costs a round trip."""

DELETES: Final = 16
"""How many objects are deleted at once."""


log = get_logger(__name__)


def make(given: Mapping[str, object]) -> "Gcs":
    """The driver for these parameters. Raises ParameterError."""
    found = parameters(given)
    if found.ca:
        check_authority(NAME, found.ca, trust)
    if found.skipverify:
        warn_unverified(NAME)
    if found.endpoint.startswith("http://"):
        log.warning(
            "storage.gcs.endpoint is not encrypted: what is stored, and the tokens that are sent, can be read and"
            " changed on their way; this is for emulators",
            endpoint=found.endpoint,
        )
    return Gcs(found)


class Gcs:
    """Implements Driver."""

    def __init__(self, given: GcsParameters) -> None:
        self.name = NAME
        self.create_is_exclusive = True
        self.bucket = Bucket(given)
        # Half of the requests are left for readers, however much is stored.
        self._uploads = Uploads(NAME, parts=given.maxconcurrency // 2)
        self._plan = Plan(
            size=given.chunksize, largest=GROWTH * given.chunksize, parallel=1, steady=1, doubling=1
        )

    def __repr__(self) -> str:
        return f"<Gcs {self.bucket!r}>"

    def twin(self) -> "Gcs":
        """As Twin."""
        return Gcs(self.bucket.given)

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        return await self.bucket.stat(key)

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[StreamContent]:
        """As Driver; the content is a stream."""
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(self.bucket.get(key, range_=_range(span)))
            except OutOfRange as error:
                size = (await self.stat(key)).size if error.size is None else error.size
                raise RangeNotSatisfiable(self.name, key, size=size) from error
            content = _found(key, response, span)
            chunks = self._resuming(key).body(content, response)
            async with aclosing(chunks):
                yield StreamContent(content.info, content.span, chunks)

    async def put(self, key: str, data: bytes) -> None:
        """As Driver."""
        await self._put(key, data, over=None)

    async def create(self, key: str, data: bytes) -> bool:
        """As Driver."""
        try:
            await self._put(key, data, over=ABSENT)
        except AlreadyThere:
            return False
        return True

    def writer(self, key: str) -> PartsWriter[int]:
        """As Driver."""
        return self._uploads.writer(key, GcsUpload(self.bucket, key), self._plan)

    async def delete(self, *keys: str) -> None:
        """As Driver; some at once, since a batch of the service's costs as many requests."""
        if len(keys) == 1:
            await self._delete(keys[0])
            return
        waiting = iter(keys)

        async def work() -> None:
            for key in waiting:
                await self._delete(key)

        workers = (work() for _ in range(min(DELETES, len(keys))))
        for ended in await asyncio.gather(*workers, return_exceptions=True):
            if ended is not None:
                raise ended

    async def delete_version(self, key: str, info: ObjectInfo) -> None:
        """As Versioned."""
        with suppress(NotFound, AlreadyThere):
            await self.bucket.delete(key, generation=info.etag)

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """As Driver."""
        async for key, info in self.bucket.list(prefix):
            if key and not key.endswith("/"):  # a folder that a console has made
                yield key, info

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """As Driver; None where nobody here can sign."""
        place = Wanted(name=self.bucket.place(key), ttl=ttl, endpoint=endpoint or self.bucket.given.endpoint)
        return await self.bucket.client.identity.url(key, place)

    async def sweep(self, older_than: float) -> int:
        """As Driver: nothing."""
        del older_than
        return 0

    async def situation(self) -> Sequence[str]:
        """As Situated: the bucket's settings, where they may be read."""
        try:
            return told(self.bucket.given.bucket, await self.bucket.settings())
        except Denied:
            return [
                "the bucket's settings could not be read: that needs storage.buckets.get, which the cache does not"
            ]

    async def close(self) -> None:
        """As Driver."""
        await self._uploads.close()
        await self.bucket.client.close()

    async def _delete(self, key: str) -> None:
        with suppress(NotFound):
            await self.bucket.delete(key)

    async def _put(self, key: str, data: bytes, *, over: str | None) -> None:
        crc32c = Crc32c()
        if len(data) <= PIECE:
            crc32c.update(data)
        else:
            await asyncio.to_thread(crc32c.update, data)
        await self.bucket.put(key, pieces(data), len(data), crc32c, over=over)

    def _resuming(self, key: str) -> Resuming:
        def rest(span: Span, generation: str | None) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
            return self.bucket.get(key, range_=asking_for(span), generation=generation)

        return Resuming(NAME, key, rest, replaced=AlreadyThere)


def _range(span: Span | None) -> str:
    return "" if span is None else asking_for(span)


def _found(key: str, response: aiohttp.ClientResponse, wanted: Span | None) -> Found:
    """What the object is, and which of its bytes come."""
    if wanted is None:
        size = response.content_length
        if size is None:
            raise StorageError(NAME, key, None, "the service does not say how large the object is")
        return Found(info_of_body(response.headers, size), Span.whole(size))
    span, whole = brought(NAME, key, response.headers.get("Content-Range", ""), wanted)
    return Found(info_of_body(response.headers, whole), span)
