"""A small answer written in one go: head and body in one piece, past the library's response object.

What a manifest's hit costs is mostly the making of its answer; rendered here it is half of that.
Not here: which headers (answers), large bodies (deliver).
"""

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp import web
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


class Clockwork:
    """The Date of answers, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def date(self) -> str:
        """Now, as RFC 9110 5.6.7 has it."""
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


_CLOCKWORK: Final = Clockwork()


async def send(
    request: web.BaseRequest, status: int, headers: CIMultiDict[str], body: bytes, *, closing: bool
) -> Sent:
    """Write the answer. Raises ConnectionResetError where the connection is gone; waits for a slow client."""
    keep_alive = bool(request.keep_alive) and not closing
    headers.setdefault("Date", _CLOCKWORK.date())
    version = request.version
    if not keep_alive:
        headers["Connection"] = "close"
    elif version.minor == 0:
        headers["Connection"] = "keep-alive"
    data = _head(f"HTTP/{version.major}.{version.minor} {status} {PHRASES.get(status, '')}", headers) + body
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
    return Sent(status, keep_alive=keep_alive)


def _head(first: str, headers: CIMultiDict[str]) -> bytes:
    lines = [first, *[f"{name}: {value}" for name, value in headers.items()]]
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise ValueError("a header's value would begin another header")
    return text.encode("utf-8", "surrogateescape") + b"\r\n\r\n"
