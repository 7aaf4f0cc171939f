"""A blob's bytes from an upstream that may break: the body that goes on with Range where it stopped.

States: a piece is open (bytes come from it), or none is (it broke, or ended before the span did). From the
second a new piece is asked for at the offset reached; as many times in a row without one byte of progress as
`retries` says, then the outage is raised. A stall is a break. A piece that begins earlier, because Range was
ignored, is read and skipped. What can't be healed is UpstreamBroken: another total size, a piece from
elsewhere, a body that ends well but short, or one that goes on. Digests are not checked here: the fill does
that, over all pieces.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from msrcache.oci.errors import TooManyRequests, Unavailable, UpstreamBroken, UpstreamUnavailable
from msrcache.oci.ranges import RangeRequest, Span
from msrcache.upstream.retry import Random, jittered
from msrcache.upstream.wire import Break, Reply

Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class Piece:
    """A part of a blob, or all of it, still to be read: it begins at `at`.

    `stop` is where its frame ends, None where it has none (chunked); `size` is the total as told, None if it
    is not.
    """

    reply: Reply
    at: int
    stop: int | None
    size: int | None
    etag: str = ""

    async def read(self) -> bytes | memoryview:
        """The next bytes; b"" at a clean end. Raises Break."""
        data = await self.reply.read()
        self.at += len(data)
        return data

    def close(self) -> None:
        """Lets the connection go."""
        self.reply.close()


Open = Callable[[RangeRequest, str], Awaitable[Piece]]
"""(range, strong ETag or "") -> a piece. Raises RegistryError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and how long a body is tried again."""

    retries: int
    wait: float
    random: Random
    sleep: Sleep = asyncio.sleep
    longest: float = 30.0  # of what a Retry-After asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a body's pieces come from. `resumed` is called for every piece after the first."""

    host: str
    reopen: Open
    patience: Patience
    resumed: Callable[[], None] = lambda: None


class ResumingBody:
    """Exactly the bytes of `span`, or an error. One reader at a time; close() when it leaves early."""

    def __init__(self, piece: Piece, span: Span, *, size: int, source: Source) -> None:
        self._piece: Piece | None = piece
        self._span = span
        self._size = size
        self._host = source.host
        self._patience = source.patience
        self._source = source
        self._offset = span.start
        self._etag = piece.etag
        self._breaks = 0
        self._last = "it broke"

    def __repr__(self) -> str:
        return f"<ResumingBody {self._host} at {self._offset} of {self._span}, {self._breaks} breaks>"

    def __aiter__(self) -> "ResumingBody":
        return self

    async def __anext__(self) -> bytes | memoryview:
        while self._offset < self._span.stop:
            piece = self._piece or await self._another()
            data = await self._read(piece)
            if data:
                return data
        await self._end()
        raise StopAsyncIteration

    def close(self) -> None:
        """Lets the connection go. Idempotent."""
        piece, self._piece = self._piece, None
        if piece is not None:
            piece.close()

    async def _read(self, piece: Piece) -> bytes | memoryview:
        """Bytes that belong to the span, b"" where the piece gave none: it was skipped, or it is over."""
        try:
            data = await piece.read()
        except Break as error:
            self._broke(str(error))
            return b""
        if not data:
            self._check_short(piece)
            self._broke("it ended early")
            return b""
        data = data[max(0, len(data) - (piece.at - self._offset)) :] if piece.at > self._offset else b""
        if piece.stop is None and piece.at > self._size:
            self.close()
            raise UpstreamBroken(
                f"the upstream {self._host} sends more than the {self._size} bytes of the blob"
            )
        data = data[: self._span.stop - self._offset]
        if data:
            self._offset += len(data)
            self._breaks = 0
        return data

    def _check_short(self, piece: Piece) -> None:
        """A body without a frame that ended well has told its length by ending."""
        if piece.stop is None:
            self.close()
            raise UpstreamBroken(
                f"the upstream {self._host} ended a blob of {self._size} bytes after {piece.at} as if it were whole"
            )

    def _broke(self, why: str) -> None:
        self.close()
        self._breaks += 1
        self._last = why

    async def _another(self) -> Piece:
        """The piece that begins at the offset. Raises what can't be healed, or has not been for too long."""
        asked = 0.0
        while True:
            if self._breaks > self._patience.retries:
                raise UpstreamUnavailable(
                    f"the body from the upstream {self._host} stopped at byte {self._offset} of {self._size}:"
                    f" {self._last}; {self._breaks} attempts brought no further byte",
                    retry_after=None,
                )
            if self._breaks > 1:
                wait = jittered(self._patience.wait, self._breaks - 1, self._patience.random)
                await self._patience.sleep(wait + asked)
            try:
                piece = await self._source.reopen(self._range(), self._etag)
            except (Unavailable, TooManyRequests) as error:
                self._broke(error.message)
                asked = min(error.retry_after or 0.0, self._patience.longest)
                continue
            self._check(piece)
            self._piece = piece
            self._source.resumed()
            return piece

    def _range(self) -> RangeRequest:
        whole = self._span.stop == self._size
        return RangeRequest(self._offset, None if whole else self._span.stop - 1)

    def _check(self, piece: Piece) -> None:
        if piece.size is not None and piece.size != self._size:
            piece.close()
            raise UpstreamBroken(
                f"the upstream {self._host} first gave the blob {self._size} bytes and now {piece.size}"
            )
        if piece.at not in {0, self._offset}:
            piece.close()
            raise UpstreamBroken(
                f"the upstream {self._host} was asked for bytes from {self._offset} and sent those from {piece.at}"
            )

    async def _end(self) -> None:
        """A body without a frame must end where it should; one with a frame can't go on."""
        piece = self._piece
        if piece is not None and piece.stop is None and self._span.stop == self._size:
            try:
                more = bool(await piece.read())
            except Break:
                more = False  # all that is wanted came, and how the connection ends is no matter
            if more:
                self.close()
                raise UpstreamBroken(
                    f"the upstream {self._host} sends more than the {self._size} bytes of the blob"
                )
        self.close()
