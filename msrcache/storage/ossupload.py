"""One object on its way into OSS: the calls that `parts` makes, with checksums and the condition.

States: (one request) | begun -> sent … -> completed | aborted.
Each request's bytes are verified there by their MD5. A commit forbids overwriting. Where something stands there, what
it is decides: the same bytes, by size and CRC-64, are somebody else's success, and our upload is aborted; anything else
is replaced. The same look settles a commit whose reply was lost.
"""

import hashlib
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import NotFound, StorageError, Unavailable
from msrcache.storage.ossbucket import CONTENT, Bucket, checksum, checksum_of, crc_of_answer, date_of
from msrcache.storage.osschecksum import crc_of
from msrcache.storage.ossclient import Crc
from msrcache.storage.osserrors import AlreadyThere, NoSuchUpload
from msrcache.storage.spooled import Part


@dataclass(frozen=True, slots=True)
class Sent:
    """What the commit must know of a part."""

    number: int
    etag: str
    size: int
    crc: int | None


class OssUpload:
    """Implements Upload."""

    def __init__(self, bucket: Bucket, key: str, upload: str = "") -> None:
        """`upload` is one that somebody else has begun."""
        self._bucket = bucket
        self._key = key
        self._id = upload

    def __repr__(self) -> str:
        return f"<OssUpload {self._id or 'in one'} to {self._key}>"

    async def put(self, whole: Part) -> ObjectInfo:
        """As Upload."""
        md5 = await _md5(whole)

        async def publish(conditional: bool) -> ObjectInfo:  # noqa: FBT001
            return await self._bucket.put(self._key, whole, size=whole.size, md5=md5, conditional=conditional)

        async def ours() -> ObjectInfo:
            # Costs more than all the rest: only where something stands there.
            crc = Crc()
            await whole.hashed(crc)
            return ObjectInfo(whole.size, 0.0, None, checksum(crc.value))

        return await self._published(ours, publish)

    async def begin(self) -> None:
        """As Upload."""
        answer = await self._bucket.ask(
            "InitiateMultipartUpload",
            self._key,
            content_type=CONTENT,
            **self._bucket.written(),
        )
        self._id = answer.upload_id
        self._bucket.living.add(self._id)

    async def send(self, number: int, part: Part) -> Sent:
        """As Upload."""
        answer = await self._bucket.ask(
            "UploadPart",
            self._key,
            upload_id=self._id,
            part_number=number,
            content_length=part.size,
            content_md5=b64encode(await _md5(part)).decode(),
            body=part,
        )
        return Sent(number, answer.headers.get("ETag", ""), part.size, crc_of_answer(answer.headers))

    async def complete(self, sent: Sequence[Sent]) -> ObjectInfo:
        """As Upload."""
        size = sum(part.size for part in sent)
        crcs = [(part.crc, part.size) for part in sent if part.crc is not None]
        mine = ObjectInfo(size, 0.0, None, checksum(crc_of(crcs)) if len(crcs) == len(sent) else None)

        async def publish(conditional: bool) -> ObjectInfo:  # noqa: FBT001
            return await self._complete(sent, mine, conditional=conditional)

        async def ours() -> ObjectInfo:
            return mine

        info = await self._published(ours, publish)
        self._bucket.living.discard(self._id)
        return info

    async def abort(self) -> None:
        """As Upload."""
        with suppress(NoSuchUpload, NotFound):
            await self._bucket.ask("AbortMultipartUpload", self._key, upload_id=self._id)
        self._bucket.living.discard(self._id)

    async def _complete(self, sent: Sequence[Sent], mine: ObjectInfo, *, conditional: bool) -> ObjectInfo:
        parts = [(part.number, part.etag) for part in sent]
        answer = await self._bucket.complete(self._key, self._id, parts, conditional=conditional)
        told = checksum_of(answer)
        return ObjectInfo(
            mine.size, date_of(answer), answer.get("ETag"), mine.checksum if told == mine.checksum else None
        )

    async def _published(
        self,
        ours: Callable[[], Awaitable[ObjectInfo]],
        publish: Callable[[bool], Awaitable[ObjectInfo]],
        *,
        conditional: bool = True,
    ) -> ObjectInfo:
        """Publish where nothing stands; else see whose success it was.

        A service that refuses before the body has come cuts the connection: that looks like a lost reply.
        """
        try:
            return await publish(conditional)
        except (AlreadyThere, NoSuchUpload, Unavailable) as error:
            standing = await self._standing(error)
            if standing is not None:
                mine = await ours()
                if _settled(error, mine, standing):
                    if self._id and not isinstance(error, NoSuchUpload):
                        await self._abort_leftover()
                    # Another checksum than ours says nothing of the bytes that we sent.
                    same = standing.checksum == mine.checksum
                    return replace(standing, checksum=mine.checksum if same else None)
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
    if ours.size != standing.size:
        return False
    if ours.checksum is None or standing.checksum is None:
        return not isinstance(error, AlreadyThere)
    return ours.checksum == standing.checksum


async def _md5(part: Part) -> bytes:
    hasher = hashlib.md5(usedforsecurity=False)
    await part.hashed(hasher)
    return hasher.digest()
