"""Objects of one bucket by our keys: requests that leave out what the service does not know, and what answers say.

Below storage/s3, for its driver and its uploads; keys become names in the bucket here and nowhere else.
"""

import hashlib
import time
import zlib
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeAlias

import aiohttp

from msrcache.storage.driver import ObjectInfo
from msrcache.storage.s3client import S3Client
from msrcache.storage.s3errors import NotImplementedThere
from msrcache.storage.s3parameters import S3Parameters

Answer: TypeAlias = Mapping[str, Any]

PIECE: Final = 64 << 10


@dataclass(slots=True)
class Knows:
    """What the service has not refused yet."""

    checksums: bool = True
    conditions: bool = True

    def refused(self, error: NotImplementedThere) -> bool:
        """Do without what it may have been; False where nothing is left."""
        if self.checksums and error.header.lower() != "if-none-match":
            self.checksums = False
            return True
        refused, self.conditions = self.conditions, False
        return refused


class Body:
    """Bytes on their way out, piece by piece. The SDK takes it for a file; its HTTP client iterates."""

    def __init__(self, pieces: AsyncIterable[bytes | bytearray]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes | bytearray]:
        return aiter(self._pieces)

    def read(self, size: int = -1) -> bytes:
        """Never called: nothing reads a body at once."""
        raise NotImplementedError(f"read({size}) of a body that is sent piece by piece")


class Crc32:
    """As hashlib's; zlib's function."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: memoryview, /) -> None:
        """More bytes."""
        self.value = zlib.crc32(data, self.value)

    def digest(self) -> bytes:
        """Four bytes."""
        return self.value.to_bytes(4, "big")


class Bucket:
    """The part of a bucket below the operator's rootdirectory."""

    def __init__(self, given: S3Parameters, client: S3Client | None = None) -> None:
        self.given = given
        self.knows = Knows()
        self.root = f"{given.rootdirectory}/" if given.rootdirectory else ""
        self.living: set[str] = set()
        """Uploads of writers in this process."""
        self.client = client or S3Client(given)

    def __repr__(self) -> str:
        return f"<Bucket {self.given.bucket}/{self.root} {self.knows}>"

    def place(self, key: str) -> str:
        """The object's name."""
        return self.root + key

    async def ask(self, name: str, key: str, **arguments: object) -> Answer:
        """One request about a key."""
        return await self.client.call(name, key, Key=self.place(key), **arguments)

    async def ask_knowing(
        self, name: str, key: str, arguments: Callable[[Knows], Mapping[str, object]]
    ) -> Answer:
        """One request about a key; again without what the service does not know."""
        while True:
            try:
                return await self.ask(name, key, **arguments(self.knows))
            except NotImplementedThere as error:
                if not self.knows.refused(error):
                    raise

    async def stat(self, key: str) -> ObjectInfo:
        """What stands there."""
        answer = await self.ask_knowing(
            "HeadObject", key, lambda knows: {"ChecksumMode": "ENABLED"} if knows.checksums else {}
        )
        return info_of(answer, answer["ContentLength"])

    def get(
        self, key: str, **arguments: object
    ) -> AbstractAsyncContextManager[tuple[Answer, aiohttp.ClientResponse]]:
        """An object's answer and its body."""
        return self.client.body(key, Key=self.place(key), **arguments)

    async def put(
        self, key: str, body: bytes | Body, *, size: int, sha256: bytes, conditional: bool
    ) -> ObjectInfo:
        """An object in one request; a condition where it is wanted and known."""

        def arguments(knows: Knows) -> Mapping[str, object]:
            said: dict[str, object] = {"Body": body, "ContentLength": size, **self.given.written()}
            if knows.checksums:
                said["ChecksumSHA256"] = b64encode(sha256).decode()
            if conditional and knows.conditions:
                said["IfNoneMatch"] = "*"
            return said

        answer = await self.ask_knowing("PutObject", key, arguments)
        return confirmed(answer, ObjectInfo(size, 0.0, None, f"sha256:{sha256.hex()}"))

    async def delete(self, *keys: str) -> None:
        """All of these, in one request; at most a thousand."""
        named = {"Objects": [{"Key": self.place(key)} for key in keys], "Quiet": True}
        answer = await self.client.call("DeleteObjects", keys[0], Delete=named)
        for error in answer.get("Errors", ()):
            if error.get("Code") not in ("NoSuchKey", "NoSuchVersion"):
                raise self.client.refused(
                    "DeleteObjects", error.get("Key", "").removeprefix(self.root), error
                )


def sha256(data: bytes) -> bytes:
    """Its digest."""
    return hashlib.sha256(data).digest()


def info_of(answer: Answer, size: int) -> ObjectInfo:
    """What a HEAD or a GET says of the object."""
    modified = answer["LastModified"].timestamp() if "LastModified" in answer else 0.0
    return ObjectInfo(size, modified, answer.get("ETag"), checksum_of(answer))


def checksum_of(answer: Answer) -> str | None:
    """The checksum that the service keeps: of all bytes, or of its parts' checksums; None where it tells none."""
    for algorithm in ("SHA256", "CRC32"):
        if text := answer.get(f"Checksum{algorithm}"):
            value, _, parts = str(text).partition("-")
            composite = parts or answer.get("ChecksumType") == "COMPOSITE"
            try:
                return f"{algorithm.lower()}{'-parts' if composite else ''}:{b64decode(value).hex()}"
            except NotBase64:
                continue
    return None


def confirmed(answer: Answer, ours: ObjectInfo) -> ObjectInfo:
    """What was published; with its checksum where the service has confirmed that it keeps it."""
    checksum = ours.checksum if checksum_of(answer) == ours.checksum else None
    return ObjectInfo(ours.size, date_of(answer), answer.get("ETag"), checksum)


def same(ours: ObjectInfo, theirs: ObjectInfo) -> bool:
    """Whether the two may be the same bytes: as many, and no checksum of one kind that differs (pure)."""
    if ours.size != theirs.size:
        return False
    if ours.checksum is None or theirs.checksum is None:
        return True
    kind, other = ours.checksum.partition(":")[0], theirs.checksum.partition(":")[0]
    return kind != other or ours.checksum == theirs.checksum


def date_of(answer: Answer) -> float:
    """When the service answered, by its own clock; by ours where it does not tell."""
    text = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return time.time()
