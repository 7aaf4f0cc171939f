"""One blob on its way into Azure: the calls that `parts` makes, with checksums and the condition.

States: (one request) | blocks staged … -> committed. There is nothing to begin, and nothing to abort: blocks that
nobody commits are never seen, and the service drops them a week after the last.
A commit asks for the blob to be absent. Where something stands there, what it is decides: the same bytes, by size and
checksum, are somebody else's success; anything else is replaced. The same look settles a commit whose reply was lost,
and one whose blocks are gone: whoever commits a blob drops the staged blocks of all others.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from msrcache.storage.azurecontainer import PARTS_MD5, Container, date_of, md5_of, same
from msrcache.storage.azureerrors import AlreadyThere, BlocksGone
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import NotFound, StorageError, Unavailable
from msrcache.storage.spooled import Part


@dataclass(frozen=True, slots=True)
class Sent:
    """What the commit must know of a part."""

    block: str
    size: int
    md5: bytes


class AzureUpload:
    """Implements Upload."""

    def __init__(self, container: Container, key: str) -> None:
        self._container = container
        self._key = key
        # Of one length for all, as the service demands; nobody else's, as they are the blob's, not ours.
        self._nonce = secrets.token_hex(8)

    def __repr__(self) -> str:
        return f"<AzureUpload {self._nonce} to {self._key}>"

    async def put(self, whole: Part) -> ObjectInfo:
        """As Upload."""
        md5 = await md5_of_part(whole)

        async def publish(conditional: bool) -> ObjectInfo:  # noqa: FBT001
            body = whole if whole.size else b""
            return await self._container.put(
                self._key, body, size=whole.size, md5=md5, conditional=conditional
            )

        return await self._published(ObjectInfo(whole.size, 0.0, None, f"md5:{md5.hex()}"), publish)

    async def begin(self) -> None:
        """As Upload: nothing to do."""

    async def send(self, number: int, part: Part) -> Sent:
        """As Upload."""
        md5 = await md5_of_part(part)
        block = f"{self._nonce}-{number:06}"
        name = self._container.names.own(self._key)
        await self._container.client.stage(self._key, name, block, part, size=part.size, md5=md5)
        return Sent(block, part.size, md5)

    async def complete(self, sent: Sequence[Sent]) -> ObjectInfo:
        """As Upload."""
        together = md5_of(b"".join(part.md5 for part in sent)).hex()
        ours = ObjectInfo(sum(part.size for part in sent), 0.0, None, f"md5-parts:{together}")
        name = self._container.names.own(self._key)

        async def publish(conditional: bool) -> ObjectInfo:  # noqa: FBT001
            answer = await self._container.client.commit(
                self._key,
                name,
                [part.block for part in sent],
                metadata={PARTS_MD5: together},
                conditional=conditional,
            )
            self._container.names.found(self._key, name)
            return replace(ours, modified=date_of(answer), etag=answer.get("etag"))

        return await self._published(ours, publish)

    async def abort(self) -> None:
        """As Upload: nothing can be done, and nothing is seen."""

    async def _published(
        self, ours: ObjectInfo, publish: Callable[[bool], Awaitable[ObjectInfo]], *, conditional: bool = True
    ) -> ObjectInfo:
        """Publish where nothing stands; else see whose success it was.

        A service that refuses before the body has come cuts the connection: that looks like a lost reply.
        """
        try:
            return await publish(conditional)
        except (AlreadyThere, BlocksGone, Unavailable) as error:
            standing = await self._standing(error)
            if standing is not None and _settled(error, ours, standing):
                # Another checksum than ours says nothing of the bytes that we sent.
                return replace(
                    standing, checksum=ours.checksum if standing.checksum == ours.checksum else None
                )
            if not conditional or not isinstance(error, AlreadyThere):
                raise
        return await self._published(ours, publish, conditional=False)

    async def _standing(self, error: StorageError) -> ObjectInfo | None:
        try:
            return await self._container.stat(self._key)
        except NotFound:
            return None
        except Unavailable:
            raise error from None


def _settled(error: StorageError, ours: ObjectInfo, standing: ObjectInfo) -> bool:
    """Whether what stands there is the success of this commit (pure): proved by the checksum where somebody else may
    have put it there, likely where nothing speaks against our own lost reply.
    """
    if isinstance(error, AlreadyThere):
        return ours.size == standing.size and ours.checksum == standing.checksum
    return same(ours, standing)


async def md5_of_part(part: Part) -> bytes:
    """What the service compares its bytes with. Raises OSError."""
    hasher = hashlib.md5(usedforsecurity=False)
    await part.hashed(hasher)
    return hasher.digest()
