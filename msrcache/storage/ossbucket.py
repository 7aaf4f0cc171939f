"""Objects of one bucket by our keys: the requests, and what answers say.

Below storage/oss, for its driver and its uploads; keys become names in the bucket here and nowhere else.
"""

import hashlib
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeAlias

import aiohttp

from msrcache.oci.ranges import Span
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import StorageError
from msrcache.storage.ossclient import OssClient, objects_of, parts_of
from msrcache.storage.osserrors import NAME
from msrcache.storage.ossparameters import OssParameters
from msrcache.storage.spooled import Part

Answer: TypeAlias = Mapping[str, str]
"""An answer's headers."""

PIECE: Final = 64 << 10
CONTENT: Final = "application/octet-stream"


class Bucket:
    """The part of a bucket below the operator's rootdirectory."""

    def __init__(self, given: OssParameters, client: OssClient | None = None) -> None:
        self.given = given
        self.root = f"{given.rootdirectory}/" if given.rootdirectory else ""
        self.living: set[str] = set()
        """Uploads of writers in this process."""
        self.client = client or OssClient(given)

    def __repr__(self) -> str:
        return f"<Bucket {self.given.bucket}/{self.root}>"

    def place(self, key: str) -> str:
        """The object's name."""
        return self.root + key

    async def ask(self, operation: str, key: str, **arguments: object) -> Any:
        """One request about a key."""
        return await self.client.call(operation, key, key=self.place(key), **arguments)

    async def stat(self, key: str) -> ObjectInfo:
        """What stands there."""
        answer = (await self.ask("HeadObject", key)).headers
        return info_of(answer, size_of(key, answer))

    def get(
        self, key: str, *, span: Span | None = None, etag: str | None = None
    ) -> AbstractAsyncContextManager[tuple[Answer, aiohttp.ClientResponse]]:
        """An object's answer and its body; with an etag only of that version."""
        headers = {}
        if span is not None:
            # An empty span asks for a byte all the same: whether it starts within the object, only the service knows.
            headers["Range"] = f"bytes={span.start}-{max(span.start, span.stop - 1)}"
            # Without it the service answers a span that is not within the object with all of it.
            headers["x-oss-range-behavior"] = "standard"
        if etag:
            headers["If-Match"] = etag
        return self.client.body(key, self.place(key), headers)

    async def put(
        self, key: str, body: bytes | Part | AsyncIterator[bytes], *, size: int, md5: bytes, conditional: bool
    ) -> ObjectInfo:
        """An object in one request, verified there by its MD5."""
        answer = await self.ask(
            "PutObject",
            key,
            body=body if size else b"",
            content_length=size,
            content_type=CONTENT,
            content_md5=b64encode(md5).decode(),
            **self.written(conditional=conditional),
        )
        headers: Answer = answer.headers
        return ObjectInfo(size, date_of(headers), headers.get("ETag"), checksum_of(headers))

    async def complete(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, conditional: bool
    ) -> Answer:
        """Publish an object from its parts: numbers and etags."""
        answer = await self.ask(
            "CompleteMultipartUpload",
            key,
            upload_id=upload,
            complete_multipart_upload=parts_of(parts),
            **({"forbid_overwrite": True} if conditional else {}),
        )
        headers: Answer = answer.headers
        return headers

    async def delete(self, *keys: str) -> None:
        """All of these, in one request; at most a thousand."""
        named = objects_of([self.place(key) for key in keys])
        await self.client.call("DeleteMultipleObjects", keys[0], delete=named)

    def written(self, *, conditional: bool = False) -> dict[str, object]:
        """What a request that makes an object says beside its content."""
        said: dict[str, object] = {"server_side_encryption": "AES256"} if self.given.encrypt else {}
        return said | ({"forbid_overwrite": True} if conditional else {})


def md5_of(data: bytes) -> bytes:
    """Its digest, against what spoils bytes on their way."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def size_of(key: str, answer: Answer) -> int:
    """How large the object is. Raises StorageError."""
    text = answer.get("Content-Length", "")
    if not (text.isascii() and text.isdigit()):
        raise StorageError(NAME, key, None, "the service does not say how large the object is")
    return int(text)


def info_of(answer: Answer, size: int) -> ObjectInfo:
    """What a HEAD or a GET says of the object."""
    return ObjectInfo(
        size, _time(answer.get("Last-Modified", "")) or 0.0, answer.get("ETag"), checksum_of(answer)
    )


def crc_of_answer(answer: Answer) -> int | None:
    """The CRC-64 that the service computed of what it has; None where it tells none."""
    text = answer.get("x-oss-hash-crc64ecma", "")
    return int(text) if text.isascii() and text.isdigit() else None


def checksum_of(answer: Answer) -> str | None:
    """The same as an object's checksum."""
    return checksum(crc_of_answer(answer))


def checksum(crc: int | None) -> str | None:
    """In the form of ObjectInfo."""
    return None if crc is None else f"crc64:{crc:016x}"


def date_of(answer: Answer) -> float:
    """When the service answered, by its own clock; by ours where it does not tell."""
    return _time(answer.get("Date", "")) or time.time()


def _time(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
