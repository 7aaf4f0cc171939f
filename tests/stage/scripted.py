"""A registry that follows a script: honest unless a turn says otherwise, with a ledger of all it was asked.

A raw server, because no HTTP library lets one break a body at byte k, lie about a length, or fall silent. Turns
are queued by method and path and used up in order; when none is left the answer is honest: 200, 206 or 404. One
request a connection, so the ledger shows every request. Order comes from events: a turn may hold after byte k until
the test lets it go, and says when it got there.
"""

import asyncio
import socket
import struct
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from msrcache.oci.digest import Digest

REPOSITORY = "team/app"
PATIENCE = 20.0


@dataclass(slots=True)
class Hold:
    """A barrier after `at` bytes of a body: `reached` tells the test, `go` lets the bytes go on."""

    at: int
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer. `body` None: what is published. `length`: the Content-Length told, where it is a lie.

    `cut` breaks the connection after so many bytes, with `reset` by an RST; `ranges` False answers a Range with the
    whole.
    """

    status: int = 200
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None
    cut: int | None = None
    hold: Hold | None = None
    ranges: bool = True
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def authorization(self) -> str:
        """The header, "" without one."""
        return self.headers.get("authorization", "")

    @property
    def line(self) -> str:
        """`GET /path` or `GET /path bytes=a-b`, as the ledger is compared."""
        return " ".join(filter(None, (self.method, self.path, self.headers.get("range", ""))))


Guard = Callable[[Request], Turn | None]


class Scripted:
    """A running registry; content is published to it, turns are given to it."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.ledger: list[Request] = []
        self.guard: Guard = lambda request: None
        self._published: dict[str, tuple[bytes, str]] = {}
        self._turns: dict[tuple[str, str], deque[Turn]] = defaultdict(deque)
        self._always: dict[tuple[str, str], Turn] = {}
        self._came = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.host}:{self.port}"

    @property
    def lines(self) -> list[str]:
        """The ledger, to be compared."""
        return [request.line for request in self.ledger]

    def publish_blob(self, data: bytes, repository: str = REPOSITORY) -> str:
        """Its path, from /v2/ on."""
        path = f"/v2/{repository}/blobs/{Digest.of(data)}"
        self._published[path] = (data, "application/octet-stream")
        return path

    def publish_manifest(self, data: bytes, media_type: str, tag: str, repository: str = REPOSITORY) -> str:
        """Its tag's path; it is there by digest too."""
        tagged = f"/v2/{repository}/manifests/{tag}"
        for path in (tagged, f"/v2/{repository}/manifests/{Digest.of(data)}"):
            self._published[path] = (data, media_type)
        return tagged

    def script(self, path: str, *turns: Turn, method: str = "GET") -> None:
        """The next answers to this method and path."""
        self._turns[method, path].extend(turns)

    def always(self, path: str, turn: Turn, method: str = "GET") -> None:
        """The answer whenever no queued turn is left."""
        self._always[method, path] = turn

    async def asked(self, count: int) -> None:
        """Returns when so many requests have come."""
        async with asyncio.timeout(PATIENCE), self._came:
            await self._came.wait_for(lambda: len(self.ledger) >= count)

    async def start(self, port: int = 0) -> None:
        """Listen, on a port that is free or on the one that it had."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def start_on(self, sock: socket.socket) -> None:
        """Listen on a socket that is bound already, maybe in another network."""
        self.host, self.port = sock.getsockname()
        self._server = await asyncio.start_server(self._serve, sock=sock)

    async def stop(self) -> None:
        """Be away: no listener, every connection cut. `start(port)` brings it back."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # cancelled: by stop() alone, and Python 3.11's streams would log a traceback
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                request = await _request(reader)
                async with self._came:
                    self.ledger.append(request)
                    self._came.notify_all()
                await self._answer(reader, writer, request)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request
    ) -> None:
        turn = self.guard(request) or self._turn(request)
        status, headers, body = self._content(request, turn)
        length = len(body) if turn.length is None else turn.length
        lines = [f"HTTP/1.1 {status} Scripted", f"Content-Length: {length}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (*headers, *turn.headers)]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if request.method != "HEAD":
            await _body(writer, body if turn.cut is None else body[: turn.cut], turn.hold)
        await writer.drain()
        if turn.reset:
            reset(writer)
        elif turn.cut is not None and request.method != "HEAD":
            writer.write_eof()  # what was sent arrives, and the rest never comes
        elif writer.can_write_eof():
            writer.write_eof()
            await reader.read()

    def _turn(self, request: Request) -> Turn:
        key = (request.method, request.path)
        if self._turns[key]:
            return self._turns[key].popleft()
        return self._always.get(key, Turn())

    def _content(self, request: Request, turn: Turn) -> tuple[int, list[tuple[str, str]], bytes]:
        if turn.body is not None or turn.status != 200:
            return turn.status, [], turn.body or b""
        if request.path == "/v2/":
            return 200, [("Docker-Distribution-Api-Version", "registry/2.0")], b"{}"
        if request.path not in self._published:
            code = "MANIFEST_UNKNOWN" if "/manifests/" in request.path else "BLOB_UNKNOWN"
            return 404, [("Content-Type", "application/json")], b'{"errors":[{"code":"%s"}]}' % code.encode()
        data, media_type = self._published[request.path]
        headers = [("Content-Type", media_type), ("Docker-Content-Digest", str(Digest.of(data)))]
        wanted = request.headers.get("range", "")
        if not wanted or not turn.ranges:
            return 200, headers, data
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(data) - int(last)
        stop = min(len(data), int(last) + 1 if first and last else len(data))
        return 206, [*headers, ("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")], data[start:stop]


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with an RST, as a host that crashed or a firewall does."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _request(reader: asyncio.StreamReader) -> Request:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    pairs = (line.partition(":") for line in lines[1:] if line)
    return Request(method, path, {name.lower(): value.strip() for name, _, value in pairs})


async def _body(writer: asyncio.StreamWriter, body: bytes, hold: Hold | None) -> None:
    if hold is None:
        writer.write(body)
        return
    writer.write(body[: hold.at])
    await writer.drain()
    hold.reached.set()
    await hold.go.wait()
    writer.write(body[hold.at :])


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    """A running registry on loopback; every connection is gone on leaving."""
    server = Scripted()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
