"""One object on its way into Swift: the calls that `parts` makes, and what dead writers of such left.

States: (one request) | begun -> sent … -> published | given up.

Rules:
1. What is large is a static large object: segments below `<prefix>/segments/msrcache/<key>/<upload>/`, then a manifest
   that names them with size and MD5. The manifest is sent last, with the checksum of the whole: a service that has no
   static large objects would store it as content, and refuses it instead.
2. A commit replaces what stands there: whoever comes last wins, whole. Segments of the one before are the sweep's.
3. A manifest whose reply was lost may stand. Then its segments are left to the sweep, which looks.
4. The sweep takes an upload to which nothing was added for so long, and which the manifest at its key does not name.
"""

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import NotFound, StorageError, Unavailable
from msrcache.storage.spooled import Part
from msrcache.storage.swiftclient import Request
from msrcache.storage.swiftcontainer import TYPE, Container, in_turns, md5_of, modified_of
from msrcache.storage.swifterrors import Spoiled

MANIFEST_PATIENCE: Final = 300.0
"""Seconds for the service to look at up to a thousand segments."""

MARK: Final = "X-Object-Meta-Msrcache-Upload"
"""The header of a manifest that names its upload."""

WAITING: Final = 256
"""Uploads that a sweep looks at together."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the commit must know of a segment."""

    name: str
    size: int
    md5: str


class SwiftUpload:
    """Implements Upload."""

    def __init__(self, container: Container, key: str) -> None:
        self._container = container
        self._key = key
        self._id = secrets.token_hex(8)
        self._names: set[str] = set()
        self._published = False
        """Or it may be."""

    def __repr__(self) -> str:
        return f"<SwiftUpload {self._id} [{len(self._names)} segments] to {self._key}>"

    async def put(self, whole: Part) -> ObjectInfo:
        """As Upload."""
        digest = await _md5(whole)
        return await self._container.put(self._key, whole if whole.size else b"", size=whole.size, md5=digest)

    async def begin(self) -> None:
        """As Upload; nothing is asked."""
        self._container.living.add(self._id)

    async def send(self, number: int, part: Part) -> Sent:
        """As Upload."""
        digest = await _md5(part)
        name = f"{self._container.segments}{self._key}/{self._id}/{number:05d}"
        self._names.add(name)
        await self._container.send(name, part, size=part.size, md5=digest, key=self._key, headers={})
        return Sent(name, part.size, digest)

    async def complete(self, sent: Sequence[Sent]) -> ObjectInfo:
        """As Upload."""
        whole = md5_of("".join(part.md5 for part in sent).encode())
        self._published = True
        try:
            answer = await self._container.changed(self._manifest(sent, whole))
        except Unavailable as error:
            self._published = not isinstance(error, Spoiled)
            raise
        except StorageError:
            self._published = False
            raise
        self._container.living.discard(self._id)
        etag = answer.headers.get("Etag", "").strip('"')
        checksum = f"md5-parts:{whole}" if etag == whole else None
        return ObjectInfo(sum(part.size for part in sent), modified_of(answer.headers), etag, checksum)

    async def abort(self) -> None:
        """As Upload."""
        self._container.living.discard(self._id)
        if not self._published and self._names:
            await self._container.remove(*sorted(self._names), key=self._key)

    def _manifest(self, sent: Sequence[Sent], whole: str) -> Request:
        container = self._container.given.container
        parts = [
            {"path": f"/{container}/{part.name}", "etag": part.md5, "size_bytes": part.size} for part in sent
        ]
        return Request(
            method="PUT",
            operation="PUT of a manifest",
            key=self._key,
            name=self._container.place(self._key),
            query={"multipart-manifest": "put"},
            headers={**TYPE, "Etag": whole, MARK: self._id},
            body=json.dumps(parts).encode(),
            patience=MANIFEST_PATIENCE,
        )


@dataclass(slots=True)
class Leftover:
    """Segments of one upload, as they are listed."""

    key: str
    upload: str
    newest: float = 0.0
    names: list[str] = field(default_factory=list)


async def sweep(container: Container, older_than: float) -> int:
    """Remove the uploads of dead writers; how many."""
    now = await container.now()
    swept = 0
    batch: list[Leftover] = []
    async for upload in leftovers(container):
        # The service's Date has no fractions.
        if upload.upload not in container.living and max(0.0, now - upload.newest) >= older_than:
            batch.append(upload)
        if len(batch) >= WAITING:
            swept += sum(await in_turns(partial(_swept, container), batch))
            batch.clear()
    return swept + sum(await in_turns(partial(_swept, container), batch))


async def leftovers(container: Container) -> AsyncIterator[Leftover]:
    """All uploads that have segments, published or not."""
    found = Leftover("", "")
    async for listed in container.listed(container.segments):
        key, _, rest = listed.name.removeprefix(container.segments).rpartition("/")[0].rpartition("/")
        if (key, rest) != (found.key, found.upload):
            if found.names:
                yield found
            found = Leftover(key, rest)
        found.names.append(listed.name)
        found.newest = max(found.newest, listed.info.modified)
    if found.names:
        yield found


async def _swept(container: Container, upload: Leftover) -> bool:
    headers: Mapping[str, str] = {}
    with suppress(NotFound):
        headers = await container.headers(upload.key)
    if headers.get(MARK) == upload.upload:
        return False
    named = await container.segments_of(upload.key, headers)
    if not set(named).isdisjoint(upload.names):
        return False
    await container.remove(*upload.names, key=upload.key)
    return True


async def _md5(part: Part) -> str:
    hasher = hashlib.md5(usedforsecurity=False)
    await part.hashed(hasher)
    return hasher.hexdigest()
