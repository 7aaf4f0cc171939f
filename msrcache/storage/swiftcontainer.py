"""Objects of one container by our keys: where they stand, what is asked about them, and what answers say.

Names are Docker Registry 2.8's: `<prefix>/files/<key>`, segments of large ones below `<prefix>/segments/`. Keys become
names here and nowhere else.

Rules:
1. A stat asks all replicas of an object (X-Newest): one that missed the last put must not answer alone.
2. Every object is sent with its MD5, which the service compares and tells as ETag.
3. A container that is not there is made, once for each write that misses it, as Docker Registry does.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote

import aiohttp

from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import NotFound, StorageError
from msrcache.storage.swiftclient import Answer, Request, SwiftClient
from msrcache.storage.swifterrors import NAME, NoContainer
from msrcache.storage.swiftparameters import SwiftParameters
from msrcache.telemetry.logs import get_logger

T = TypeVar("T")
R = TypeVar("R")

PIECE: Final = 64 << 10
PAGE: Final = 1000
"""Names in one answer of a listing."""
BULK: Final = 1000
"""Names in one bulk delete."""
AT_ONCE: Final = 8
"""Requests of one call at the same time."""
KNOWN: Final = 600.0
"""Seconds for which it is remembered what the service says of itself."""
TYPE: Final = {"Content-Type": "application/octet-stream"}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the service says of itself in /info; the defaults are for one that says nothing."""

    version: str = ""
    bulk: int = 0
    """Names that may be deleted at once."""
    tempurl: bool = True
    digests: tuple[str, ...] = ("sha256", "sha1")
    methods: tuple[str, ...] = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing."""

    name: str
    info: ObjectInfo


class Container:
    """The part of a container below the operator's prefix."""

    def __init__(self, given: SwiftParameters) -> None:
        self.given = given
        self.client = SwiftClient(given)
        self.files = f"{given.prefix}/files/".lstrip("/")
        self.segments = f"{given.prefix}/segments/msrcache/".lstrip("/")
        """Ours, beside those of Docker Registry."""
        self.living: set[str] = set()
        """Uploads of writers in this process."""
        self._features: tuple[float, Features] | None = None

    def __repr__(self) -> str:
        return f"<Container {self.given.container}/{self.files}>"

    def place(self, key: str) -> str:
        """The object's name."""
        return self.files + key

    async def stat(self, key: str) -> ObjectInfo:
        """What stands there."""
        return info_of(key, await self.headers(key))

    async def headers(self, key: str, *, newest: bool = True) -> Mapping[str, str]:
        """All that is said of what stands there."""
        said = {"X-Newest": "true"} if newest else {}
        name = self.place(key)
        request = Request(method="HEAD", operation="HEAD of an object", key=key, name=name, headers=said)
        return (await self.client.ask(request)).headers

    def get(
        self, key: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """An object's answer and its body."""
        return self.client.asking(
            Request(
                method="GET", operation="GET of an object", key=key, name=self.place(key), headers=headers
            )
        )

    async def put(
        self,
        key: str,
        body: bytes | AsyncIterable[bytes | bytearray],
        *,
        size: int,
        md5: str,
        conditional: bool = False,
    ) -> ObjectInfo:
        """An object in one request, where nothing stands if `conditional`."""
        condition = {"If-None-Match": "*"} if conditional else {}
        return await self.send(self.place(key), body, size=size, md5=md5, key=key, headers=condition)

    async def send(
        self,
        name: str,
        body: bytes | AsyncIterable[bytes | bytearray],
        *,
        size: int,
        md5: str,
        key: str,
        headers: Mapping[str, str],
    ) -> ObjectInfo:
        """The same, by its name."""
        said = {**TYPE, **headers, "Content-Length": str(size), "Etag": md5}
        request = Request(
            method="PUT", operation="PUT of an object", key=key, name=name, headers=said, body=body
        )
        answer = await self.changed(request)
        etag = answer.headers.get("Etag", "").strip('"')
        checksum = f"md5:{md5}" if etag == md5 else None
        return ObjectInfo(size, modified_of(answer.headers), etag or None, checksum)

    async def changed(self, request: Request) -> Answer:
        """Write; where the container is not there, make it first."""
        try:
            return await self.client.ask(request)
        except NoContainer:
            making = Request(method="PUT", operation="PUT of the container", key=request.key)
            await self.client.ask(making)
            log.warning("the container was not there and was made", container=self.given.container)
            return await self.client.ask(request)

    async def remove(self, *names: str, key: str = "") -> None:
        """All of these, whether they are there or not; in bulk where the service has it."""
        at_once = min(BULK, (await self.features()).bulk) if len(names) > 1 else 0
        if at_once > 1:
            for start in range(0, len(names), at_once):
                await self._remove_in_bulk(names[start : start + at_once], key)
            return
        await in_turns(partial(self._remove_one, key), names)

    async def segments_of(self, key: str, headers: Mapping[str, str]) -> Sequence[str]:
        """The names of what a large object is made of, where it lies in our container."""
        if headers.get("X-Static-Large-Object", "").lower() == "true":
            with suppress(NotFound):
                request = Request(
                    method="GET",
                    operation="GET of a manifest",
                    key=key,
                    name=self.place(key),
                    query={"multipart-manifest": "get"},
                    headers={"X-Newest": "true"},
                )
                parts = _parsed(key, (await self.client.ask(request)).body)
                return self._ours(str(part.get("name", "")).lstrip("/") for part in parts)
        if manifest := headers.get("X-Object-Manifest", ""):
            container, _, below = unquote(manifest).partition("/")
            if container == self.given.container and below.startswith(
                self.segments.removesuffix("msrcache/")
            ):
                return [found.name async for found in self.listed(below, key)]
        return ()

    async def listed(self, below: str, key: str = "") -> AsyncIterator[Listed]:
        """All names that begin with this, in order. It may lag."""
        async for page in self.pages(below, key):
            for found in page:
                yield found

    async def pages(self, below: str, key: str = "") -> AsyncIterator[Sequence[Listed]]:
        """The same, page by page."""
        marker = ""
        while True:
            query = {"format": "json", "prefix": below, "limit": str(PAGE), "marker": marker}
            answer = await self.client.ask(Request(method="GET", operation="listing", query=query))
            page = _parsed(key, answer.body) if answer.status != 204 else []
            if not page:
                return
            yield [Listed(found["name"], _listed_info(found)) for found in page]
            marker = page[-1]["name"]

    async def now(self) -> float:
        """The service's own clock."""
        answer = await self.client.ask(Request(method="HEAD", operation="HEAD of the container"))
        return modified_of({"Last-Modified": answer.headers.get("Date", "")})

    async def features(self) -> Features:
        """What the service can do, as it says; remembered."""
        now = asyncio.get_running_loop().time()
        if self._features is None or now - self._features[0] > KNOWN:
            try:
                found = features_of(_parsed("", (await self.client.info()).body))
            except StorageError:
                return self._features[1] if self._features else Features()
            self._features = (now, found)
        return self._features[1]

    def _ours(self, paths: Iterable[str]) -> Sequence[str]:
        below = f"{self.given.container}/"
        names = (path.removeprefix(below) for path in paths if path.startswith(below))
        return [name for name in names if name.startswith(self.segments.removesuffix("msrcache/"))]

    async def _remove_one(self, key: str, name: str) -> None:
        key = key or name.removeprefix(self.files)
        with suppress(NotFound):
            await self.client.ask(
                Request(method="DELETE", operation="DELETE of an object", key=key, name=name)
            )

    async def _remove_in_bulk(self, names: Sequence[str], key: str) -> None:
        lines = "".join(f"/{quote(self.given.container)}/{quote(name)}\n" for name in names)
        request = Request(
            method="POST",
            operation="bulk delete",
            key=key,
            account=True,
            query={"bulk-delete": "true"},
            headers={"Content-Type": "text/plain", "Accept": "application/json"},
            body=lines.encode(),
        )
        answer = _object(key, (await self.client.ask(request)).body)
        errors = answer.get("Errors") or []
        status = str(errors[0][1]) if errors else str(answer.get("Response Status", "200"))
        number = int(status[:3]) if status[:3].isdigit() else 500
        if errors or number not in (200, 404):
            raise self.client.refused(request, 503 if number == 404 else number, status)


def info_of(key: str, headers: Mapping[str, str], size: int | None = None) -> ObjectInfo:
    """What a HEAD or a GET says of the object."""
    if size is None:
        length = headers.get("Content-Length", "")
        if not length.isdigit():
            raise StorageError(NAME, key, None, "the service does not say how large the object is")
        size = int(length)
    if not size and "X-Object-Manifest" in headers:
        # Its segments are not listed yet: it is not there yet, whoever has written it.
        raise NotFound(NAME, key, None, "none of the segments of this dynamic large object is listed yet")
    etag = headers.get("Etag")
    return ObjectInfo(size, modified_of(headers), etag, _checksum(headers, etag))


def modified_of(headers: Mapping[str, str]) -> float:
    """When the object was written, by the service's clock; 0 where nothing is said."""
    try:
        if stamp := headers.get("X-Timestamp"):
            return float(stamp)
        return parsedate_to_datetime(headers.get("Last-Modified", "")).timestamp()
    except ValueError:
        return 0.0


def features_of(said: Any) -> Features:
    """What /info says (pure)."""
    if not isinstance(said, dict):
        return Features()
    tempurl = said.get("tempurl")
    bulk = said.get("bulk_delete") or {}
    about = tempurl if isinstance(tempurl, dict) else {}
    return Features(
        version=str((said.get("swift") or {}).get("version", "")),
        bulk=int(bulk.get("max_deletes_per_request", 0)),
        tempurl=tempurl is not None,
        digests=tuple(about.get("allowed_digests") or ("sha1",)),
        methods=tuple(about.get("methods") or ("GET", "HEAD")),
    )


def md5_of(data: bytes) -> str:
    """Its digest, as an ETag."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


async def in_turns(call: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """Call for each, some at the same time; the first error stops the rest."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> R:
        async with turns:
            return await call(item)

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _checksum(headers: Mapping[str, str], etag: str | None) -> str | None:
    if not etag or "X-Object-Manifest" in headers:
        return None
    parts = headers.get("X-Static-Large-Object", "").lower() == "true"
    return f"md5{'-parts' if parts else ''}:{etag.strip(chr(34))}"


def _listed_info(found: Mapping[str, Any]) -> ObjectInfo:
    try:
        stamp = datetime.fromisoformat(str(found.get("last_modified", ""))).replace(tzinfo=UTC).timestamp()
    except ValueError:
        stamp = 0.0
    return ObjectInfo(int(found.get("bytes", 0)), stamp, found.get("hash"))


def _parsed(key: str, body: bytes) -> Any:
    try:
        return json.loads(body or b"[]")
    except ValueError as error:
        raise StorageError(NAME, key, error, "the service's answer is no JSON") from error


def _object(key: str, body: bytes) -> Mapping[str, Any]:
    said = _parsed(key, body)
    return said if isinstance(said, dict) else {}
