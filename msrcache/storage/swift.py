"""The Swift driver: OpenStack Swift, and what speaks its language (Ceph's gateway).

Its parameters and a sample of them are in `swiftparameters`. Names in the container are Docker Registry 2.8's, so what
one has written the other serves.

Rules:
1. One request each: stat, open, put, create, a blob that fits one segment. A delete looks first: two.
2. A create asks for the name to be absent, but Swift looks before it writes: of two at once both may win. So create is
   not exclusive here, and replicas share their fills by home replica.
3. Large objects are static ones. Dynamic ones, as Docker Registry writes them, are read as they are; their size is
   what the container's listing says, which may lag.
4. Deleting takes the manifest first and then its segments: whoever finds a large object finds it whole.
5. A body whose connection breaks goes on at the byte where it broke, of the same version of the object; a service that
   is gone is waited for some seconds.

Not here: requests (`swiftclient`), names (`swiftcontainer`), refusals (`swifterrors`), segments and the sweep
(`swiftupload`), URLs (`swiftsigning`), deadlines and retries (`store`).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import Final

import aiohttp

from msrcache.oci.ranges import Span
from msrcache.storage.authority import warn_unverified
from msrcache.storage.driver import ObjectInfo, StreamContent
from msrcache.storage.errors import NotFound, RangeNotSatisfiable
from msrcache.storage.parts import PartsWriter, Plan, Uploads
from msrcache.storage.resumed import Found, Resuming, asking_for, brought
from msrcache.storage.swiftcontainer import PIECE, Container, Listed, in_turns, info_of, md5_of
from msrcache.storage.swifterrors import NAME, AlreadyThere, OutOfRange
from msrcache.storage.swiftparameters import LARGEST_PART, SwiftParameters, parameters
from msrcache.storage.swiftsigning import Signer
from msrcache.storage.swiftupload import Sent, SwiftUpload, sweep
from msrcache.telemetry.logs import get_logger

RESUMES: Final = (0.0, 0.5, 2.0, 4.0)
"""Seconds before a body that brings nothing is asked for again, each time: a proxy that restarts is back by then."""

STEADY: Final = 200
STEP: Final = 100
"""Segments, of which a manifest holds a thousand: after 200 their size doubles every 100."""

log = get_logger(__name__)


def make(given: Mapping[str, object]) -> "Swift":
    """The driver for these parameters. Raises ParameterError."""
    found = parameters(given)
    if given.get("rootdirectory"):
        log.warning(
            "storage.swift.rootdirectory has no effect, as in Docker Registry: prefix is what puts names below"
        )
    if found.insecureskipverify:
        warn_unverified(NAME, "insecureskipverify")
    return Swift(found)


class Swift:
    """Implements Driver."""

    def __init__(self, given: SwiftParameters) -> None:
        self.name = NAME
        self.create_is_exclusive = False
        self.container = Container(given)
        self._signer = Signer(self.container)
        self._uploads = Uploads(NAME)
        self._plan = Plan(size=given.chunksize, largest=LARGEST_PART, steady=STEADY, doubling=STEP)

    def __repr__(self) -> str:
        return f"<Swift {self.container!r}>"

    def twin(self) -> "Swift":
        """As Twin."""
        return Swift(self.container.given)

    async def situation(self) -> Sequence[str]:
        """As Situated."""
        features = await self.container.features()
        version = f" {features.version}" if features.version else ""
        bulk = f"{features.bulk} objects are deleted at once" if features.bulk else "no bulk delete"
        return (
            f"Swift{version}, container {self.container.given.container}, {bulk}",
            "creates are not exclusive on Swift, whatever its configuration: replicas share fills by home replica",
        )

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        return await self.container.stat(key)

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[StreamContent]:
        """As Driver; the content is a stream."""
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(self.container.get(key, _range(span)))
            except OutOfRange as error:
                size = (await self.stat(key)).size if error.size is None else error.size
                raise RangeNotSatisfiable(self.name, key, size=size) from error
            found = _found(key, response.headers, span)
            chunks = self._resuming(key).body(found, response)
            async with aclosing(chunks):
                yield StreamContent(found.info, found.span, chunks)

    async def put(self, key: str, data: bytes) -> None:
        """As Driver."""
        await self._put(key, data, conditional=False)

    async def create(self, key: str, data: bytes) -> bool:
        """As Driver; two at once may both be told that they made it."""
        try:
            await self._put(key, data, conditional=True)
        except AlreadyThere:
            return False
        return True

    def writer(self, key: str) -> PartsWriter[Sent]:
        """As Driver."""
        return self._uploads.writer(key, SwiftUpload(self.container, key), self._plan)

    async def delete(self, *keys: str) -> None:
        """As Driver; large objects with their segments, Docker Registry's too."""
        found = [one for one in await in_turns(self._standing, keys) if one is not None]
        await self.container.remove(*(one[0] for one in found), key=keys[0] if len(keys) == 1 else "")
        await self.container.remove(*(name for one in found for name in one[1]))

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """As Driver. What seems empty may be a dynamic large object, and is looked at."""
        below = self.container.files + (f"{prefix}/" if prefix else "")
        async for page in self.container.pages(below, prefix):
            for key, info in await in_turns(self._looked_at, page):
                # What ends in a slash is a folder that a console has made.
                if info is not None and not key.endswith("/"):
                    yield key, info

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """As Driver."""
        return await self._signer.url(key, ttl, endpoint)

    async def sweep(self, older_than: float) -> int:
        """As Driver: segments that no manifest names. Those of Docker Registry's own uploads are its own."""
        return await sweep(self.container, older_than)

    async def close(self) -> None:
        """As Driver."""
        await self._uploads.close()
        await self.container.client.close()

    async def _put(self, key: str, data: bytes, *, conditional: bool) -> None:
        digest = md5_of(data) if len(data) <= PIECE else await asyncio.to_thread(md5_of, data)
        body = data if len(data) <= PIECE else _Pieces(data)
        await self.container.put(key, body, size=len(data), md5=digest, conditional=conditional)

    async def _looked_at(self, listed: Listed) -> tuple[str, ObjectInfo | None]:
        """Its key, and what it is; None where it is not there any more, or not yet."""
        key = listed.name.removeprefix(self.container.files)
        if listed.info.size:
            return key, listed.info
        try:
            return key, info_of(key, await self.container.headers(key, newest=False))
        except NotFound:
            return key, None

    async def _standing(self, key: str) -> tuple[str, Sequence[str]] | None:
        """Its name and its segments; None where nothing stands."""
        try:
            headers = await self.container.headers(key)
        except NotFound:
            return None
        return self.container.place(key), await self.container.segments_of(key, headers)

    def _resuming(self, key: str) -> Resuming:
        def rest(span: Span, etag: str | None) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
            same = {"If-Match": etag} if etag else {}
            return self.container.get(key, {"Range": asking_for(span), **same})

        return Resuming(NAME, key, rest, replaced=AlreadyThere, pauses=RESUMES, outages=True)


class _Pieces:
    """Bytes on their way out, piece by piece, as often as wanted."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), PIECE):
            yield self._data[start : start + PIECE]


def _range(span: Span | None) -> dict[str, str]:
    return {} if span is None else {"Range": asking_for(span)}


def _found(key: str, headers: Mapping[str, str], wanted: Span | None) -> Found:
    """What the object is, and which of its bytes come."""
    if wanted is None:
        info = info_of(key, headers)
        return Found(info, Span.whole(info.size))
    span, size = brought(NAME, key, headers.get("Content-Range", ""), wanted)
    return Found(info_of(key, headers, size), span)
