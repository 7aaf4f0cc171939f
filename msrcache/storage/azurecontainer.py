"""Blobs of one container by our keys: how keys are spelled there, and what answers say.

Docker Registry 2.8 begins every name with a slash, version 3 does not; no tool shows the difference well. So:

1. What is written gets one spelling, told by `adopt`, never found out: two replicas that spelled a lease differently
   would both hold it. `auto` and `none` write as version 3, `leadingslash` writes content as 2.8, which serves it then.
2. Whether content of the other spelling is there is found out once, by the first call: a listing of one name.
   If it is, what is not found by ours is looked for by the other: each miss, and each hit of old content, costs
   one request more. Deletes name both, listings merge both.
3. Our own records (msrcache/…) are never spelled otherwise, so what must be exclusive has one name.

Below storage/azure, for its driver and its uploads.
"""

import hashlib
from base64 import b64decode
from binascii import Error as NotBase64
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Final, TypeAlias

import aiohttp

from msrcache.storage.azureclient import AzureClient
from msrcache.storage.azureerrors import NAME, AlreadyThere
from msrcache.storage.azureparameters import AzureParameters
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import Denied, NotFound, StorageError
from msrcache.telemetry.logs import get_logger

Answer: TypeAlias = Mapping[str, str]
"""Headers, in lower case."""

PIECE: Final = 64 << 10
CONTENT: Final = "docker/"
"""Below it stands what Docker Registry knows too."""
REMEMBERED: Final = 10_000
"""Keys whose other spelling is remembered, for URLs."""
PARTS_MD5: Final = "msrcachemd5"
"""The metadata that a commit leaves: the MD5 of the MD5s of the parts, each of which the service has verified."""

log = get_logger(__name__)


class Names:
    """How keys are spelled. Pure, but for what is remembered."""

    def __init__(self, given: AzureParameters) -> None:
        self._root = f"{given.rootdirectory}/" if given.rootdirectory else ""
        self._slashed = given.adopt == "leadingslash"
        self.both: bool | None = False if given.adopt == "none" or self._root else None
        """Whether content of the other spelling is there; None until it is known."""
        self._other: OrderedDict[str, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Names below {self._root or '/'}{' with the leading slash' if self._slashed else ''}>"

    def own(self, key: str) -> str:
        """The spelling that is written."""
        return f"/{key}" if self._slashed and key.startswith(CONTENT) else self._root + key

    def other(self, key: str) -> str | None:
        """The spelling that may be found; None where there is none."""
        if not self.both or not key.startswith(CONTENT):
            return None
        return key if self._slashed else f"/{key}"

    def all(self, key: str) -> Sequence[str]:
        """Whatever it may be called."""
        other = self.other(key)
        return [self.own(key)] if other is None else [self.own(key), other]

    def key(self, name: str) -> str:
        """The key of a name in a listing."""
        return name.removeprefix("/").removeprefix(self._root)

    def prefixes(self, prefix: str) -> Sequence[str]:
        """What all names below a prefix begin with: one for each spelling."""
        below = f"{prefix}/" if prefix else ""
        if not prefix:
            return [self._root] if not (self.both or self._slashed) else ["", "/"]
        found = [self.own(below)]
        if (other := self.other(below)) is not None:
            found.append(other)
        return found

    def sign(self) -> str:
        """What a name begins with if content of the other spelling is there."""
        return CONTENT if self._slashed else f"/{CONTENT}"

    def found(self, key: str, name: str) -> None:
        """Remember where a key was found."""
        if name == self.own(key):
            self._other.pop(key, None)
        else:
            self._other[key] = None
            if len(self._other) > REMEMBERED:
                self._other.popitem(last=False)

    def likely(self, key: str) -> str:
        """Where it was found last, else where it is written."""
        return (self.other(key) if key in self._other else None) or self.own(key)


class Container:
    """The part of a container below the operator's rootdirectory."""

    def __init__(self, given: AzureParameters) -> None:
        self.given = given
        self.names = Names(given)
        self.client = AzureClient(given)
        self.batches = True
        """Until the service has refused one."""

    def __repr__(self) -> str:
        return f"<Container {self.given.container} {self.names}>"

    async def stat(self, key: str) -> ObjectInfo:
        """What stands there."""
        *names, last = await self._names(key)
        for name in names:
            with suppress(NotFound):
                return await self.stat_named(key, name)
        return await self.stat_named(key, last)

    @asynccontextmanager
    async def get(
        self, key: str, *, span: str | None = None, etag: str | None = None
    ) -> AsyncIterator[tuple[Answer, aiohttp.ClientResponse]]:
        """A blob's answer and its body; `etag` is what it must still be."""
        *_, last = names = await self._names(key)
        async with AsyncExitStack() as stack:
            for name in names:
                try:
                    body = self.client.body(key, name, span=span, etag=etag)
                    found = await stack.enter_async_context(body)
                except NotFound:
                    if name == last:
                        raise
                else:
                    self.names.found(key, name)
                    yield found
                    return

    async def put(
        self,
        key: str,
        body: bytes | AsyncIterable[bytes | bytearray],
        *,
        size: int,
        md5: bytes,
        conditional: bool,
    ) -> ObjectInfo:
        """A blob in one request."""
        answer = await self.client.put(
            key, self.names.own(key), body, size=size, md5=md5, conditional=conditional
        )
        self.names.found(key, self.names.own(key))
        ours = f"md5:{md5.hex()}"
        confirmed = _md5(answer.get("content-md5", "")) == ours
        return ObjectInfo(size, date_of(answer), answer.get("etag"), ours if confirmed else None)

    async def delete(self, key: str, name: str, seen: ObjectInfo) -> None:
        """What was seen, or is older. Raises NotFound, and AlreadyThere where something newer stands there."""
        try:
            await self.client.delete(key, name, etag=seen.etag)
        except AlreadyThere:
            if self.names.other(key) is None:
                raise
            found = await self.stat_named(key, name)
            if found.modified >= seen.modified:
                raise
            await self.client.delete(key, name, etag=found.etag)

    async def adopted(self, key: str) -> bool:
        """Whether the other spelling of a key is there; no request where there is none."""
        await self._names(key)
        other = self.names.other(key)
        if other is None:
            return False
        try:
            await self.client.properties(key, other)
        except NotFound:
            return False
        return True

    async def spellings(self, prefix: str) -> Sequence[str]:
        """What all names below a prefix begin with."""
        await self._look()
        return self.names.prefixes(prefix)

    async def called(self, *keys: str) -> Sequence[str]:
        """All that these may be called."""
        await self._look()
        return [name for key in keys for name in self.names.all(key)]

    async def stat_named(self, key: str, name: str) -> ObjectInfo:
        """What stands there under this name of the key."""
        answer = await self.client.properties(key, name)
        self.names.found(key, name)
        return info_of(answer, size_of(key, answer))

    async def _names(self, key: str) -> Sequence[str]:
        if key.startswith(CONTENT):
            await self._look()
        return self.names.all(key)

    async def _look(self) -> None:
        """Find out, once, whether content of the other spelling is there."""
        if self.names.both is not None:
            return
        try:
            pages = self.client.pages("", self.names.sign(), size=1)
            found = await anext(pages)
            await pages.aclose()  # type: ignore[attr-defined]  # it is a generator
        except Denied as error:
            log.warning("azure: names with a leading slash are not looked for", reason=error.message)
            self.names.both = False
            return
        self.names.both = bool(found)
        if found:
            log.info(
                "azure: names of Docker Registry 2.8 and of version 3 are both there; each miss costs a request more",
                container=self.given.container,
                written=self.names.own(CONTENT),
            )


def md5_of(data: bytes) -> bytes:
    """Its MD5, which is what the service compares and keeps; nobody is kept out by it."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def info_of(answer: Answer, size: int) -> ObjectInfo:
    """What a HEAD or a GET says of the blob."""
    return ObjectInfo(size, _time(answer.get("last-modified", "")), answer.get("etag"), checksum_of(answer))


def checksum_of(answer: Answer) -> str | None:
    """Of all bytes, as the service computed it, or of the parts, as the commit left it; None where there is none."""
    if parts := answer.get(f"x-ms-meta-{PARTS_MD5}"):
        return f"md5-parts:{parts}"
    # The answer to a range has the MD5 of the range, and that of the blob under another name.
    return _md5(answer.get("x-ms-blob-content-md5") or answer.get("content-md5", ""))


def same(ours: ObjectInfo, theirs: ObjectInfo) -> bool:
    """Whether the two may be the same bytes: as many, and no checksum of one kind that differs (pure)."""
    if ours.size != theirs.size:
        return False
    if ours.checksum is None or theirs.checksum is None:
        return True
    kind, other = ours.checksum.partition(":")[0], theirs.checksum.partition(":")[0]
    return kind != other or ours.checksum == theirs.checksum


def date_of(answer: Answer) -> float:
    """When the service answered, by its own clock."""
    if not (seconds := _time(answer.get("date", ""))):
        raise StorageError(NAME, "", None, "the service's answer has no Date")
    return seconds


def size_of(key: str, answer: Answer) -> int:
    """Of the body that comes with it."""
    text = answer.get("content-length", "")
    if not (text.isascii() and text.isdigit()):
        raise StorageError(NAME, key, None, "the service does not say how large the blob is")
    return int(text)


def _time(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0


def _md5(text: str) -> str | None:
    try:
        return f"md5:{b64decode(text).hex()}" if text else None
    except NotBase64:
        return None
