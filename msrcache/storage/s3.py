"""The S3 driver: Amazon S3, and what is made like it (MinIO, versitygw, Ceph, …).

Its parameters and a sample of them are in `s3parameters`. Names in the bucket are Docker Registry's: rootdirectory,
then our keys, so what one has written the other serves.

Rules:
1. One request each: stat, open, put, create, delete of up to a thousand, a blob that fits one part.
2. create and commit ask for the key to be absent (If-None-Match); see `s3upload` for what a commit finds there.
3. What the service does not know is left out from then on: checksums, then conditions. Without conditions create
   is not exclusive.
4. Every object carries a checksum: SHA-256 where it went in one piece, CRC-32 of each part where in parts.
5. A body whose connection breaks goes on at the byte where it broke, of the same version of the object.

Not here: the SDK (`s3client`), refusals (`s3errors`), how parts are sent (`parts`), deadlines and retries (`store`).
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Final

import aiohttp

from msrcache.oci.ranges import Span
from msrcache.storage.authority import check_authority, warn_unverified
from msrcache.storage.driver import ObjectInfo, StreamContent
from msrcache.storage.errors import NotFound, RangeNotSatisfiable
from msrcache.storage.parts import PartsWriter, Plan, Uploads
from msrcache.storage.resumed import Found, Resuming, asking_for, brought
from msrcache.storage.s3bucket import PIECE, Answer, Body, Bucket, date_of, info_of, sha256
from msrcache.storage.s3errors import NAME, AlreadyThere, Conflict, NoSuchUpload, OutOfRange
from msrcache.storage.s3parameters import S3Parameters, parameters
from msrcache.storage.s3upload import S3Upload, Sent
from msrcache.telemetry.logs import get_logger

CHANCES: Final = 8
"""How often a create is made that meets another of the same key."""

BULK: Final = 1000
"""Keys in one DeleteObjects."""


log = get_logger(__name__)


def make(given: Mapping[str, object]) -> "S3":
    """The driver for these parameters. Raises ParameterError."""
    found = parameters(given)
    if found.ca:
        check_authority(NAME, found.ca)
    if found.skipverify:
        warn_unverified(NAME)
    return S3(found)


class S3:
    """Implements Driver."""

    def __init__(self, given: S3Parameters, bucket: Bucket | None = None) -> None:
        self.name = NAME
        self.bucket = bucket or Bucket(given)
        self._exclusive = True
        self._uploads = Uploads(NAME)
        self._plan = Plan(size=given.chunksize)

    def __repr__(self) -> str:
        return f"<S3 {self.bucket!r}>"

    def twin(self) -> "S3":
        """As Twin."""
        given = self.bucket.given
        return S3(given, Bucket(given, self.bucket.client.twin()))

    @property
    def create_is_exclusive(self) -> bool:
        """Until the probe or the service says otherwise."""
        return self._exclusive and self.bucket.knows.conditions

    @create_is_exclusive.setter
    def create_is_exclusive(self, value: bool) -> None:
        self._exclusive = value

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        return await self.bucket.stat(key)

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[StreamContent]:
        """As Driver; the content is a stream."""
        async with AsyncExitStack() as stack:
            try:
                answer, response = await stack.enter_async_context(self.bucket.get(key, **_range(span)))
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
        """As Driver; where the service knows no condition, two at once may both be told that they made it."""
        for chance in range(1, CHANCES + 1):
            try:
                await self._put(key, data, conditional=True)
            except AlreadyThere:
                return False
            except Conflict:
                if chance == CHANCES:
                    raise
                await asyncio.sleep(random.uniform(0.01, 0.05 * chance))
            else:
                break
        return True

    def writer(self, key: str) -> PartsWriter[Sent]:
        """As Driver."""
        return self._uploads.writer(key, S3Upload(self.bucket, key), self._plan)

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
            answer = await self.bucket.client.call("ListObjectsV2", prefix, Prefix=below, **page)
            for found in answer.get("Contents", ()):
                key = found["Key"].removeprefix(self.bucket.root)
                if not key.endswith("/"):  # a folder that a console has made
                    yield key, ObjectInfo(found["Size"], found["LastModified"].timestamp(), found.get("ETag"))
            if not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """As Driver; a signature by credentials that expire ends with them."""
        place = self.bucket.place(key)
        return await self.bucket.client.presigned(key, ttl=ttl, endpoint=endpoint, Key=place)

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
                    await S3Upload(self.bucket, key, upload).abort()
                    swept += 1
        return swept

    async def close(self) -> None:
        """As Driver."""
        await self._uploads.close()
        await self.bucket.client.close()

    async def _put(self, key: str, data: bytes, *, conditional: bool) -> None:
        if conditional and not self.bucket.knows.conditions:
            await self._see_absent(key)
        digest = sha256(data) if len(data) <= PIECE else await asyncio.to_thread(sha256, data)
        body = data if len(data) <= PIECE else Body(_pieces(data))
        await self.bucket.put(key, body, size=len(data), sha256=digest, conditional=conditional)

    async def _see_absent(self, key: str) -> None:
        try:
            await self.stat(key)
        except NotFound:
            return
        raise AlreadyThere(self.name, key, None, "something stands there already")

    def _resuming(self, key: str) -> Resuming:
        @asynccontextmanager
        async def rest(span: Span, etag: str | None) -> AsyncIterator[aiohttp.ClientResponse]:
            same = {"IfMatch": etag} if etag else {}
            async with self.bucket.get(key, Range=asking_for(span), **same) as (_, response):
                yield response

        return Resuming(NAME, key, rest, replaced=AlreadyThere)

    async def _leftovers(self) -> AsyncIterator[tuple[str, str, float, float]]:
        """Key, upload, when it began, and the service's time now."""
        page: dict[str, str] = {}
        while True:
            # Without a prefix: MinIO takes it for the name of an object.
            answer = await self.bucket.client.call("ListMultipartUploads", "", **page)
            for found in answer.get("Uploads", ()):
                if found["Key"].startswith(self.bucket.root):
                    key = found["Key"].removeprefix(self.bucket.root)
                    yield key, found["UploadId"], found["Initiated"].timestamp(), date_of(answer)
            if not answer.get("IsTruncated"):
                return
            page = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    async def _last_part(self, key: str, upload: str) -> float:
        """When the newest part came; 0 where none did."""
        newest = 0.0
        page: dict[str, int] = {}
        while True:
            answer = await self.bucket.ask("ListParts", key, UploadId=upload, **page)
            for part in answer.get("Parts", ()):
                newest = max(newest, part["LastModified"].timestamp())
            if not answer.get("IsTruncated"):
                return newest
            page = {"PartNumberMarker": answer["NextPartNumberMarker"]}


def _range(span: Span | None) -> dict[str, str]:
    return {} if span is None else {"Range": asking_for(span)}


def _found(key: str, answer: Answer, wanted: Span | None) -> Found:
    """What the object is, and which of its bytes come."""
    if wanted is None:
        size = answer["ContentLength"]
        return Found(info_of(answer, size), Span.whole(size))
    span, size = brought(NAME, key, answer.get("ContentRange", ""), wanted)
    return Found(info_of(answer, size), span)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]
