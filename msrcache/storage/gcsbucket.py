"""Objects of one bucket by our keys: which requests are made, and what their answers say.

Below storage/gcs, for its driver and its uploads; keys become names in the bucket here and nowhere else.
"""

import json
import secrets
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
import google_crc32c
from multidict import CIMultiDictProxy

from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import StorageError
from msrcache.storage.gcsclient import Answer, Ask, GcsClient, Payload
from msrcache.storage.gcserrors import NAME
from msrcache.storage.gcsparameters import GcsParameters
from msrcache.storage.gcssituation import FIELDS as FIELDS_OF_BUCKET

PIECE: Final = 64 << 10
FIELDS: Final = "name,size,generation,updated,crc32c"
"""What is asked for of an object; all of it is a kilobyte more."""
ABSENT: Final = "0"
"""The generation of what is not there."""
PAGE: Final = "1000"


class Crc32c:
    """As hashlib's."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """More bytes."""
        self.value = google_crc32c.extend(self.value, bytes(data))

    def __str__(self) -> str:
        """As the service writes it."""
        return b64encode(self.value.to_bytes(4, "big")).decode()


class Bucket:
    """The part of a bucket below the operator's rootdirectory."""

    def __init__(self, given: GcsParameters) -> None:
        self.given = given
        self.root = f"{given.rootdirectory}/" if given.rootdirectory else ""
        self.client = GcsClient(given)
        self._objects = f"/storage/v1/b/{quote(given.bucket, safe='')}/o"

    def __repr__(self) -> str:
        return f"<Bucket {self.given.bucket}/{self.root} {self.client!r}>"

    def place(self, key: str) -> str:
        """The object's name."""
        return self.root + key

    async def stat(self, key: str) -> ObjectInfo:
        """What stands there."""
        ask = Ask(
            operation="objects.get",
            key=key,
            method="GET",
            url=self._url(key),
            parameters={"fields": FIELDS},
        )
        return info_of(await self.client.call(ask))

    def get(
        self, key: str, *, range_: str = "", generation: str | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """An object's bytes; of that generation only where one is named."""
        parameters = {"alt": "media"} | ({"ifGenerationMatch": generation} if generation else {})
        return self.client.body(
            Ask(
                operation="objects.get",
                key=key,
                method="GET",
                url=self._url(key),
                parameters=parameters,
                headers={"Range": range_} if range_ else {},
            )
        )

    async def put(
        self,
        key: str,
        pieces: AsyncIterable[bytes | bytearray],
        size: int,
        crc32c: Crc32c,
        *,
        over: str | None,
    ) -> ObjectInfo:
        """An object in one request, which the service checks; over that generation only where one is named."""
        mark = secrets.token_hex(16)
        said = json.dumps({**self._described(key), "crc32c": str(crc32c)})
        head = (
            f"--{mark}\r\nContent-Type: application/json\r\n\r\n{said}\r\n"
            f"--{mark}\r\nContent-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{mark}--\r\n".encode()
        ask = Ask(
            operation="objects.create",
            key=key,
            method="POST",
            url=f"{self.given.endpoint}/upload{self._objects}",
            parameters={"uploadType": "multipart", "fields": FIELDS, **_over(over)},
            headers={
                "Content-Type": f"multipart/related; boundary={mark}",
                "Content-Length": str(len(head) + size + len(tail)),
            },
            body=_framed(head, pieces, tail),
        )
        return info_of(await self.client.call(ask))

    async def begin(self, key: str, *, over: str | None) -> str:
        """The URL of an upload that is sent piece by piece."""
        answer = await self.client.call(
            Ask(
                operation="objects.create",
                key=key,
                method="POST",
                url=f"{self.given.endpoint}/upload{self._objects}",
                parameters={"uploadType": "resumable", "fields": FIELDS, **_over(over)},
                headers={
                    "Content-Type": "application/json; charset=UTF-8",
                    "X-Upload-Content-Type": "application/octet-stream",
                },
                body=json.dumps(self._described(key)).encode(),
            )
        )
        if url := answer.headers.get("location"):
            # Where we reach the service is configured, and nobody else is shown a token.
            parts = urlsplit(url)
            return f"{self.given.endpoint}{parts.path}?{parts.query}"
        raise StorageError(NAME, key, None, "the service began an upload without saying where")

    async def session(
        self, key: str, url: str, method: str, headers: Mapping[str, str], body: Payload = None
    ) -> Answer:
        """A request to an upload that was begun."""
        return await self.client.call(
            Ask(
                operation="objects.create",
                key=key,
                method=method,
                url=url,
                headers=headers,
                body=body,
                session=True,
            )
        )

    async def delete(self, key: str, *, generation: str | None = None) -> None:
        """Raises NotFound too."""
        await self.client.call(
            Ask(
                operation="objects.delete",
                key=key,
                method="DELETE",
                url=self._url(key),
                parameters=_over(generation),
            )
        )

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """All objects below it, page after page."""
        parameters = {
            "prefix": self.root + (f"{prefix}/" if prefix else ""),
            "maxResults": PAGE,
            "fields": f"items({FIELDS}),nextPageToken",
        }
        while True:
            answer = await self.client.call(
                Ask(
                    operation="objects.list",
                    key="",
                    method="GET",
                    url=self.given.endpoint + self._objects,
                    parameters=parameters,
                )
            )
            for found in answer.document.get("items", ()):
                yield found["name"].removeprefix(self.root), _info(found)
            if not (token := answer.document.get("nextPageToken")):
                return
            parameters["pageToken"] = token

    async def settings(self) -> Mapping[str, Any]:
        """The bucket's own, as far as `gcssituation` knows them."""
        url = self.given.endpoint + self._objects.removesuffix("/o")
        parameters = {"fields": FIELDS_OF_BUCKET}
        ask = Ask(operation="buckets.get", key="", method="GET", url=url, parameters=parameters)
        return (await self.client.call(ask)).document

    def _url(self, key: str) -> str:
        return f"{self.given.endpoint}{self._objects}/{quote(self.place(key), safe='')}"

    def _described(self, key: str) -> Mapping[str, str]:
        return {"name": self.place(key), "contentType": "application/octet-stream"}


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """A body for what is in memory."""
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


def info_of(answer: Answer) -> ObjectInfo:
    """What a document says of an object. Raises StorageError."""
    return _info(answer.document)


def info_of_body(headers: CIMultiDictProxy[str], size: int) -> ObjectInfo:
    """What the headers before an object's bytes say of it; the service has a header for each kind of hash."""
    try:
        modified = parsedate_to_datetime(headers.get("Last-Modified", "")).timestamp()
    except ValueError:
        modified = 0.0
    hashes = dict(
        part.strip().partition("=")[::2] for part in ",".join(headers.getall("X-Goog-Hash", ())).split(",")
    )
    return ObjectInfo(size, modified, headers.get("X-Goog-Generation"), checksum(hashes.get("crc32c")))


def checksum(crc32c: str | None) -> str | None:
    """In the form of ObjectInfo; None where there is none."""
    try:
        return f"crc32c:{b64decode(crc32c).hex()}" if crc32c else None
    except NotBase64:
        return None


def _info(document: Mapping[str, Any]) -> ObjectInfo:
    try:
        modified = datetime.fromisoformat(document["updated"]).timestamp()
        size = int(document["size"])
    except (KeyError, ValueError, TypeError) as error:
        raise StorageError(
            NAME, "", error, "the service answered without the object's size and time"
        ) from error
    return ObjectInfo(size, modified, document.get("generation"), checksum(document.get("crc32c")))


def _over(generation: str | None) -> dict[str, str]:
    return {} if generation is None else {"ifGenerationMatch": generation}


async def _framed(
    head: bytes, body: AsyncIterable[bytes | bytearray], tail: bytes
) -> AsyncIterator[bytes | bytearray]:
    yield head
    async for piece in body:
        yield piece
    yield tail
