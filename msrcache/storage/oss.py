"""The OSS driver: Alibaba Cloud's Object Storage Service.

Its parameters and a sample of them are in `ossparameters`. Names in the bucket are Docker Registry 2.8's:
rootdirectory, then our keys, so what one has written the other serves.

Rules:
1. One request each: stat, open, put, create, delete of up to a thousand, a blob that fits one part.
2. create and commit forbid overwriting; see `ossupload` for what a commit finds there. A bucket with versions ignores
   that: the probe finds out, and create is then not exclusive.
3. What is sent carries an MD5, which the service verifies; what is stored carries the service's CRC-64.
4. A body whose connection breaks goes on at the byte where it broke, of the same version of the object.

Tested against a stand-in of our own, made from the documentation and held against both official SDKs: it is our
reading of OSS. Not here: the SDK (`ossclient`), who we are (`ossidentity`), refusals (`osserrors`), how parts are sent
(`parts`), deadlines and retries (`store`).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Final

import aiohttp

from msrcache.oci.ranges import Span
from msrcache.storage.authority import check_authority, warn_unverified
from msrcache.storage.driver import ObjectInfo, StreamContent
from msrcache.storage.errors import NotFound, RangeNotSatisfiable
from msrcache.storage.ossbucket import PIECE, Answer, Bucket, date_of, info_of, md5_of, size_of
from msrcache.storage.osserrors import NAME, AlreadyThere, NoSuchUpload, OutOfRange
from msrcache.storage.ossparameters import OssParameters, parameters
from msrcache.storage.ossupload import OssUpload, Sent
from msrcache.storage.parts import PartsWriter, Plan, Uploads
from msrcache.storage.resumed import Found, Resuming, brought
from msrcache.telemetry.logs import get_logger

BULK: Final = 1000
"""Keys in one DeleteMultipleObjects, and in one page of a listing."""


log = get_logger(__name__)


def make(given: Mapping[str, object]) -> "Oss":
    """The driver for these parameters. Raises ParameterError."""
    found = parameters(given)
    if found.ca:
        check_authority(NAME, found.ca)
    if found.skipverify:
        warn_unverified(NAME)
    return Oss(found)


class Oss:
    """Implements Driver."""

    def __init__(self, given: OssParameters, bucket: Bucket | None = None) -> None:
        self.name = NAME
        self.create_is_exclusive = True
        self.bucket = bucket or Bucket(given)
        self._uploads = Uploads(NAME)
        self._plan = Plan(size=given.chunksize)

    def __repr__(self) -> str:
        return f"<Oss {self.bucket!r}>"

    def twin(self) -> "Oss":
        """As Twin."""
        given = self.bucket.given
        return Oss(given, Bucket(given, self.bucket.client.twin()))

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        return await self.bucket.stat(key)

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[StreamContent]:
        """As Driver; the content is a stream."""
        async with AsyncExitStack() as stack:
            try:
                answer, response = await stack.enter_async_context(self.bucket.get(key, span=span))
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
        """As Driver; in a bucket with versions two at once may both be told that they made it."""
        try:
            await self._put(key, data, conditional=True)
        except AlreadyThere:
            return False
        return True

    def writer(self, key: str) -> PartsWriter[Sent]:
        """As Driver."""
        return self._uploads.writer(key, OssUpload(self.bucket, key), self._plan)

    async def delete(self, *keys: str) -> None:
        """As Driver; a thousand at once."""
        if len(keys) == 1:
            with suppress(NotFound):
                await self.bucket.ask("DeleteObject", keys[0])
            return
        for start in range(0, len(keys), BULK):
            await self.bucket.delete(*keys[start : start + BULK])

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """As Driver."""
        below = self.bucket.root + (f"{prefix}/" if prefix else "")
        page: dict[str, str] = {}
        while True:
            answer = await self.bucket.client.call(
                "ListObjectsV2", prefix, prefix=below, max_keys=BULK, encoding_type="url", **page
            )
            for found in answer.contents or ():
                key = found.key.removeprefix(self.bucket.root)
                if key and not key.endswith("/"):  # a folder that a console has made
                    yield key, ObjectInfo(found.size, found.last_modified.timestamp(), found.etag)
            if not answer.is_truncated:
                return
            page = {"continuation_token": answer.next_continuation_token}

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """As Driver; a signature by credentials that expire ends with them."""
        place = self.bucket.place(key)
        return await self.bucket.client.presigned(key, place, ttl=ttl, endpoint=endpoint)

    async def sweep(self, older_than: float) -> int:
        """As Driver: uploads to which nobody has added a part for so long, but for those of pushes."""
        swept = 0
        async for key, upload, begun, now in self._leftovers():
            if (
                upload in self.bucket.living
                or "/_uploads/" in f"/{key}"
                or max(0.0, now - begun) < older_than
            ):
                continue
            with suppress(NoSuchUpload):  # it has ended meanwhile
                # Its writer lives as long as parts come; the service's Date has no fractions.
                if max(0.0, now - await self._last_part(key, upload)) >= older_than:
                    await OssUpload(self.bucket, key, upload).abort()
                    swept += 1
        return swept

    async def close(self) -> None:
        """As Driver."""
        await self._uploads.close()
        await self.bucket.client.close()

    async def _put(self, key: str, data: bytes, *, conditional: bool) -> None:
        md5 = md5_of(data) if len(data) <= PIECE else await asyncio.to_thread(md5_of, data)
        body = data if len(data) <= PIECE else _pieces(data)
        await self.bucket.put(key, body, size=len(data), md5=md5, conditional=conditional)

    def _resuming(self, key: str) -> Resuming:
        @asynccontextmanager
        async def rest(span: Span, etag: str | None) -> AsyncIterator[aiohttp.ClientResponse]:
            async with self.bucket.get(key, span=span, etag=etag) as (_, response):
                yield response

        return Resuming(NAME, key, rest, replaced=AlreadyThere)

    async def _leftovers(self) -> AsyncIterator[tuple[str, str, float, float]]:
        """Key, upload, when it began, and the service's time now."""
        page: dict[str, str] = {}
        while True:
            answer = await self.bucket.client.call(
                "ListMultipartUploads", "", prefix=self.bucket.root, encoding_type="url", **page
            )
            for found in answer.uploads or ():
                key = found.key.removeprefix(self.bucket.root)
                yield key, found.upload_id, found.initiated.timestamp(), date_of(answer.headers)
            if not answer.is_truncated:
                return
            page = {"key_marker": answer.next_key_marker, "upload_id_marker": answer.next_upload_id_marker}

    async def _last_part(self, key: str, upload: str) -> float:
        """When the newest part came; 0 where none did."""
        newest = 0.0
        page: dict[str, int] = {}
        while True:
            answer = await self.bucket.ask("ListParts", key, upload_id=upload, encoding_type="url", **page)
            for part in answer.parts or ():
                newest = max(newest, part.last_modified.timestamp())
            if not answer.is_truncated:
                return newest
            page = {"part_number_marker": answer.next_part_number_marker}


def _found(key: str, answer: Answer, wanted: Span | None) -> Found:
    """What the object is, and which of its bytes come."""
    if wanted is None:
        size = size_of(key, answer)
        return Found(info_of(answer, size), Span.whole(size))
    span, total = brought(NAME, key, answer.get("Content-Range", ""), wanted)
    return Found(info_of(answer, total), span)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]
