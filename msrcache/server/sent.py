"""A small answer written in one go: head and body in one piece, past the library's response object.

What a manifest's hit costs is mostly the making of its answer. So the part of a head that is the same each time is
rendered once (Head) and remembered by whoever makes it; only the date and the request's id are this answer's own.
Not here: which headers (answers), large bodies (deliver).
"""

import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from http import HTTPStatus
from typing import Final, Self

from aiohttp import HttpVersion, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class Sent(web.StreamResponse):
    """An answer that has been written already; the server learns from it whether the connection goes on."""

    def __init__(self, status: int, *, keep_alive: bool) -> None:
        super().__init__(status=status)
        self._goes_on = keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow."""
        return self._goes_on

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to do."""
        del request
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to do."""
        del data


@cache
def sent(status: int, *, keep_alive: bool) -> Sent:
    """One for all such answers: there is nothing in it that changes."""
    return Sent(status, keep_alive=keep_alive)


class Clockwork:
    """The Date of answers, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        """Now, as RFC 9110 5.6.7 has it, as a header line."""
        second = int(time.time())
        if second != self._second:
            self._second, self._line = second, f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._line


_CLOCKWORK: Final = Clockwork()


@dataclass(frozen=True, slots=True)
class Head:
    """A rendered head without its Date and its request's id, where these are not among the headers given."""

    lines: bytes
    status: int
    keep_alive: bool
    dated: bool
    identified: bool

    @classmethod
    def of(cls, status: int, version: HttpVersion, headers: CIMultiDict[str], *, keep_alive: bool) -> Self:
        """Raises ValueError where a header's value would begin another header."""
        if not keep_alive:
            headers["Connection"] = "close"
        elif version.minor == 0:
            headers["Connection"] = "keep-alive"
        first = f"HTTP/{version.major}.{version.minor} {status} {PHRASES.get(status, '')}"
        lines = [first, *[f"{name}: {value}" for name, value in headers.items()]]
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
            raise ValueError("a header's value would begin another header")
        data = text.encode("utf-8", "surrogateescape") + b"\r\n"
        return cls(data, status, keep_alive, "Date" in headers, "X-Request-Id" in headers)


async def send(request: web.BaseRequest, head: Head, body: bytes, *, request_id: str = "") -> Sent:
    """Write the answer. Raises ConnectionResetError where the connection is gone; waits for a slow client.

    `request_id` has been parsed: letters, digits and signs that end no line.
    """
    date = b"" if head.dated else _CLOCKWORK.line()
    name = b"" if head.identified or not request_id else f"X-Request-Id: {request_id}\r\n".encode()
    data = b"".join((head.lines, date, name, b"\r\n", body))
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has left")
    try:
        transport.write(data)
    except RuntimeError as error:  # uvloop: closed beneath us, before is_closing() says so
        raise ConnectionResetError("the client has left") from error
    writer = request.writer
    writer.output_size += len(data)  # what the server asks to know whether an answer has begun
    await writer.drain()
    return sent(head.status, keep_alive=head.keep_alive)
