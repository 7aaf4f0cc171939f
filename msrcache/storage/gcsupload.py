"""One object on its way into Cloud Storage: the calls that `parts` makes, over a resumable upload.

States: (one request) | begun -> at byte k … -> published | cancelled.
An upload of this service is sequential, so its parts go one after the other, each larger than the one before. The other
way, parts at once that are composed into the object afterwards, was left out: its parts are objects that everybody
sees, pays for and has to sweep, it needs the right to delete, and the bytes come from one upstream in order anyway.

Rules:
1. How far an upload has come, the service says. After a failure it is asked, and the rest is sent from there; where the
   upload itself is forgotten, another is begun and sent from the spool file's start.
2. The last bytes are sent by complete(), with the checksum of all: the service publishes nothing else.
3. A commit asks for the key to be absent. Where something stands there, its size and checksum decide: the same bytes
   are somebody else's success, and our upload is cancelled; anything else is replaced, but only that generation of it.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from msrcache.oci.ranges import Span
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import NotFound, StorageError, Unavailable
from msrcache.storage.gcsbucket import ABSENT, Bucket, Crc32c, checksum, info_of
from msrcache.storage.gcsclient import Answer
from msrcache.storage.gcserrors import NAME, AlreadyThere, NoSuchUpload
from msrcache.storage.gcsparameters import ALIGNED
from msrcache.storage.spooled import Part

RESUME: Final = 308
CHANCES: Final = 4
"""How often an object is published over what changes meanwhile, and an upload begun anew that was forgotten."""


class GcsUpload:
    """Implements Upload; what complete() must know of a part is where it ends."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._session = ""
        """Where the upload is sent to."""
        self._over = ABSENT
        """The generation that it replaces."""
        self._stood: int | None = 0
        """How many bytes the service has; None where it must be asked."""
        self._crc32c = Crc32c()
        self._hashed = 0
        self._last: Part | None = None
        self._refused = False
        """Whether the condition was not met."""

    def __repr__(self) -> str:
        return f"<GcsUpload at byte {self._stood} over {self._over} to {self._key}>"

    async def put(self, whole: Part) -> ObjectInfo:
        """As Upload."""
        crc32c, over = Crc32c(), ABSENT
        await whole.hashed(crc32c)
        ours = ObjectInfo(whole.size, 0.0, None, checksum(str(crc32c)))
        for _ in range(CHANCES):
            try:
                return await self._bucket.put(self._key, whole, whole.size, crc32c, over=over)
            except (AlreadyThere, Unavailable) as error:
                if (standing := await self._found(error)) is not None and same(ours, standing):
                    return standing
                if isinstance(error, Unavailable):
                    raise
                over = _generation(standing)
        raise self._restless()

    async def begin(self) -> None:
        """As Upload."""
        for _ in range(CHANCES):
            try:
                self._session = await self._bucket.begin(self._key, over=self._over)
            except AlreadyThere:
                self._over = _generation(await self._standing())
            else:
                self._stood = 0
                return
        raise self._restless()

    async def send(self, number: int, part: Part) -> int:
        """As Upload; what may be the last piece waits for complete()."""
        if part.span.stop > self._hashed:
            await part.hashed(self._crc32c)
            self._hashed = part.span.stop
        self._last = part
        if part.size % ALIGNED == 0:
            await self._sent_to(part.span.stop)
        return part.span.stop

    async def complete(self, sent: Sequence[int]) -> ObjectInfo:
        """As Upload."""
        ours = ObjectInfo(sent[-1], 0.0, None, checksum(str(self._crc32c)))
        for _ in range(CHANCES):
            if (theirs := await self._theirs(ours)) is not None:
                return theirs
            try:
                published = await self._sent_to(ours.size, whole=True)
            except AlreadyThere:
                self._refused = True
                continue
            assert published is not None
            if same(ours, info := info_of(published)):
                self._session = ""
                return info
            await self._withdraw(info)
        raise self._restless()

    async def abort(self) -> None:
        """As Upload."""
        if self._session:
            with suppress(NoSuchUpload):  # the service says so of what it has cancelled
                await self._bucket.session(self._key, self._session, "DELETE", {"Content-Length": "0"})
            self._session = ""

    async def _theirs(self, ours: ObjectInfo) -> ObjectInfo | None:
        """What stands there, if it is what we were to publish; else the upload is ready to go over it."""
        if self._over == ABSENT and not self._refused:
            return None
        standing = await self._standing()
        if standing is not None and same(ours, standing):
            await self._cancelled()
            return standing
        if self._refused:
            await self._cancelled()
            self._over = _generation(standing)
            await self.begin()
            self._refused = False
        return None

    async def _sent_to(self, stop: int, *, whole: bool = False) -> Answer | None:
        """Send until the service has `stop` bytes; `whole`: that is all, and the answer is the object's."""
        for _ in range(CHANCES):
            with suppress(NoSuchUpload):
                return await self._sent(stop, whole=whole)
            await self.begin()
        raise self._restless()

    async def _sent(self, stop: int, *, whole: bool) -> Answer | None:
        while True:
            if self._stood is None:
                asked = await self._piece(Span(0, 0), "*")
                if asked.status != RESUME:
                    return asked  # it was published, and its reply lost
                self._stood = _received(asked)
            at = self._stood
            if at >= stop and not whole:
                return None
            self._stood = None  # until the service says
            answer = await self._piece(Span(min(at, stop), stop), str(stop) if whole else "*")
            if answer.status != RESUME:
                return answer
            self._stood = _received(answer)
            if self._stood <= at:
                text = f"the service took no more bytes of the upload than {at}"
                raise Unavailable(NAME, self._key, None, text)

    async def _piece(self, span: Span, total: str) -> Answer:
        """A piece of the upload; without bytes a question, or its end."""
        there = f"{span.start}-{span.stop - 1}" if span.size else "*"
        headers = {"Content-Length": str(span.size), "Content-Range": f"bytes {there}/{total}"}
        if total != "*":
            headers["X-Goog-Hash"] = f"crc32c={self._crc32c}"
        body = self._last.other(span) if self._last is not None and span.size else None
        return await self._bucket.session(self._key, self._session, "PUT", headers, body)

    async def _withdraw(self, published: ObjectInfo) -> None:
        """What stands there is not what was sent: away with it, and once more."""
        with suppress(NotFound, AlreadyThere):
            await self._bucket.delete(self._key, generation=published.etag)
        self._over = ABSENT
        await self.begin()

    async def _found(self, error: StorageError) -> ObjectInfo | None:
        """What stands there after a failure; that failure where it cannot be said."""
        try:
            return await self._standing()
        except Unavailable:
            raise error from None

    async def _standing(self) -> ObjectInfo | None:
        try:
            return await self._bucket.stat(self._key)
        except NotFound:
            return None

    async def _cancelled(self) -> None:
        with suppress(StorageError):  # it dies by itself in a week
            await self.abort()

    def _restless(self) -> StorageError:
        return Unavailable(
            NAME, self._key, None, f"what stands there changed {CHANCES} times while it was written"
        )


def same(ours: ObjectInfo, theirs: ObjectInfo) -> bool:
    """Whether both have as many bytes and one checksum (pure)."""
    return ours.size == theirs.size and ours.checksum == theirs.checksum


def _generation(standing: ObjectInfo | None) -> str:
    return ABSENT if standing is None or standing.etag is None else standing.etag


def _received(answer: Answer) -> int:
    """How many bytes of an upload the service has: all up to the end of a Range from 0, none without."""
    last = answer.headers.get("range", "").rpartition("-")[2]
    return int(last) + 1 if last.isdigit() else 0
