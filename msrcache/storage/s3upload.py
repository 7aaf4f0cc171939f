"""One object on its way into S3: the calls that `parts` makes, with checksums and the condition.

States: (one request) | begun -> sent … -> completed | aborted.
A commit asks for the key to be absent. Where something stands there, what it is decides: the same bytes, by size and
checksum, are somebody else's success, and our upload is aborted; anything else is replaced. The same look settles a
commit whose reply was lost.
"""

import hashlib
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import NotFound, StorageError, Unavailable
from msrcache.storage.s3bucket import Answer, Body, Bucket, Crc32, Knows, confirmed, same
from msrcache.storage.s3errors import AlreadyThere, NoSuchUpload
from msrcache.storage.spooled import Part


@dataclass(frozen=True, slots=True)
class Sent:
    """What the commit must know of a part."""

    number: int
    etag: str
    size: int
    crc32: bytes


class S3Upload:
    """Implements Upload."""

    def __init__(self, bucket: Bucket, key: str, upload: str = "") -> None:
        """`upload` is one that somebody else has begun."""
        self._bucket = bucket
        self._key = key
        self._id = upload

    def __repr__(self) -> str:
        return f"<S3Upload {self._id or 'in one'} to {self._key}>"

    async def put(self, whole: Part) -> ObjectInfo:
        """As Upload."""
        hasher = hashlib.sha256()
        await whole.hashed(hasher)
        digest = hasher.digest()

        async def publish(conditional: bool) -> ObjectInfo:  # noqa: FBT001
            body = Body(whole) if whole.size else b""
            return await self._bucket.put(
                self._key, body, size=whole.size, sha256=digest, conditional=conditional
            )

        return await self._published(ObjectInfo(whole.size, 0.0, None, f"sha256:{digest.hex()}"), publish)

    async def begin(self) -> None:
        """As Upload."""

        def arguments(knows: Knows) -> Mapping[str, object]:
            return self._bucket.given.written() | ({"ChecksumAlgorithm": "CRC32"} if knows.checksums else {})

        answer = await self._bucket.ask_knowing("CreateMultipartUpload", self._key, arguments)
        self._id = answer["UploadId"]
        self._bucket.living.add(self._id)

    async def send(self, number: int, part: Part) -> Sent:
        """As Upload."""
        checksum = Crc32()
        await part.hashed(checksum)

        def arguments(knows: Knows) -> Mapping[str, object]:
            said = {
                "UploadId": self._id,
                "PartNumber": number,
                "ContentLength": part.size,
                "Body": Body(part),
            }
            return said | ({"ChecksumCRC32": _text(checksum.digest())} if knows.checksums else {})

        answer = await self._bucket.ask_knowing("UploadPart", self._key, arguments)
        return Sent(number, answer["ETag"], part.size, checksum.digest())

    async def complete(self, sent: Sequence[Sent]) -> ObjectInfo:
        """As Upload."""
        checksum = Crc32()
        for part in sent:
            checksum.update(memoryview(part.crc32))
        ours = ObjectInfo(
            sum(part.size for part in sent), 0.0, None, f"crc32-parts:{checksum.digest().hex()}"
        )

        async def publish(conditional: bool) -> ObjectInfo:  # noqa: FBT001
            return confirmed(await self._complete(sent, conditional=conditional), ours)

        info = await self._published(ours, publish)
        self._bucket.living.discard(self._id)
        return info

    async def abort(self) -> None:
        """As Upload."""
        with suppress(NoSuchUpload, NotFound):
            await self._bucket.ask("AbortMultipartUpload", self._key, UploadId=self._id)
        self._bucket.living.discard(self._id)

    async def _complete(self, sent: Sequence[Sent], *, conditional: bool) -> Answer:
        def arguments(knows: Knows) -> Mapping[str, object]:
            parts: list[dict[str, object]] = [{"PartNumber": part.number, "ETag": part.etag} for part in sent]
            if knows.checksums:
                for said, part in zip(parts, sent, strict=True):
                    said["ChecksumCRC32"] = _text(part.crc32)
            condition = {"IfNoneMatch": "*"} if conditional and knows.conditions else {}
            return {"UploadId": self._id, "MultipartUpload": {"Parts": parts}, **condition}

        return await self._bucket.ask_knowing("CompleteMultipartUpload", self._key, arguments)

    async def _published(
        self, ours: ObjectInfo, publish: Callable[[bool], Awaitable[ObjectInfo]], *, conditional: bool = True
    ) -> ObjectInfo:
        """Publish where nothing stands; else see whose success it was.

        A service that refuses before the body has come cuts the connection: that looks like a lost reply.
        """
        try:
            return await publish(conditional)
        except (AlreadyThere, NoSuchUpload, Unavailable) as error:
            standing = await self._standing(error)
            if standing is not None and _settled(error, ours, standing):
                if self._id and not isinstance(error, NoSuchUpload):
                    await self._abort_leftover()
                # Another checksum than ours says nothing of the bytes that we sent.
                return replace(
                    standing, checksum=ours.checksum if standing.checksum == ours.checksum else None
                )
            if not conditional or (standing is None and not isinstance(error, AlreadyThere)):
                raise
        return await self._published(ours, publish, conditional=False)

    async def _standing(self, error: StorageError) -> ObjectInfo | None:
        try:
            return await self._bucket.stat(self._key)
        except NotFound:
            return None
        except Unavailable:
            raise error from None

    async def _abort_leftover(self) -> None:
        with suppress(StorageError):  # the sweep's, then: the object stands
            await self.abort()


def _settled(error: StorageError, ours: ObjectInfo, standing: ObjectInfo) -> bool:
    """Whether what stands there is the success of this commit (pure): proved by the checksum where somebody else may
    have put it there, likely where nothing speaks against our own lost reply.
    """
    if isinstance(error, AlreadyThere):
        return ours.size == standing.size and ours.checksum == standing.checksum
    return same(ours, standing)


def _text(digest: bytes) -> str:
    return b64encode(digest).decode()
