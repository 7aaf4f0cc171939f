"""An upstream that plays exactly what a test tells it, byte by byte, and keeps a ledger of what it was asked.

A raw asyncio server: it can break a body at byte k, stall, lie about lengths and close whenever it likes, which no HTTP
library would let it. One request per connection, so the ledger shows every connection too.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository, Tag
from msrcache.oci.pulls import BlobPull, ManifestPull
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import SERVICE, Blob, Credential, FileSpan, Right
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.client import Upstream
from msrcache.upstream.settings import UpstreamSettings
from tests.stage.clock import FakeClock


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def authorization(self) -> str:
        """The Authorization header, "" without one."""
        return self.headers.get("authorization", "")

    @property
    def range(self) -> str:
        """The Range header, "" without one."""
        return self.headers.get("range", "")


@dataclass(frozen=True, slots=True)
class Say:
    """An answer: `length` overrides Content-Length (None: chunked), `cut` breaks off after so many body bytes."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = -1
    cut: int | None = None
    hold: asyncio.Event | None = None  # instead of cutting: say nothing more until this is set


Play = Callable[[Asked], Say | Awaitable[Say]]


@dataclass(slots=True)
class Played:
    """A running upstream; `ledger` is what it was asked, in order."""

    play: Play
    port: int = 0
    scheme: str = "http"
    ledger: list[Asked] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        """Its name."""
        return f"127.0.0.1:{self.port}"

    def asked(self, method: str = "") -> list[str]:
        """`METHOD target` of the ledger."""
        return [f"{a.method} {a.target}" for a in self.ledger if method in {"", a.method}]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one answer."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                asked = await _request(reader)
                self.ledger.append(asked)
                said = self.play(asked)
                await _say(writer, asked, said if isinstance(said, Say) else await said)
                await _end(reader, writer)
        finally:
            self.tasks.discard(task)
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Asked:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    pairs = (line.partition(":") for line in lines[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers, body)


async def _say(writer: asyncio.StreamWriter, asked: Asked, say: Say) -> None:
    headers = [*say.headers, ("Connection", "close")]
    chunked = say.length is None
    length = len(say.body) if say.length == -1 else say.length
    headers.append(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(length)))
    head = f"HTTP/1.1 {say.status} Said\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers) + "\r\n"
    writer.write(head.encode("latin-1"))
    if asked.method == "HEAD":
        return
    data = say.body if say.cut is None else say.body[: say.cut]
    if chunked:
        data = (b"%x\r\n%s\r\n" % (len(data), data) if data else b"") + (
            b"0\r\n\r\n" if say.cut is None else b""
        )
    writer.write(data)
    await writer.drain()
    if say.hold is not None:
        await say.hold.wait()


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An end that loses nothing: close() right behind the bytes may reset the connection and take them along."""
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
        await reader.read()


@asynccontextmanager
async def played(play: Play, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Played]:
    """A running upstream on loopback; every connection is gone on leaving."""
    upstream = Played(play, scheme="https" if tls else "http")
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        tasks = tuple(upstream.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class CallersOwn:
    """A right that asks with a caller's credential."""

    credential: Credential | None = field(default_factory=Credential)
    graced: bool = False

    async def ask(self, pull: object, *, unreachable: bool = False) -> bool:
        """As Right.ask."""
        return False

    def granted(self, repository: Repository) -> None:
        """As Right.granted."""


@dataclass(slots=True)
class Waits:
    """A sleep that takes no time and remembers how long it should have been."""

    waited: list[float] = field(default_factory=list)
    clock: FakeClock | None = None

    async def __call__(self, seconds: float) -> None:
        self.waited.append(seconds)
        if self.clock is not None:
            self.clock.advance(seconds)


REPOSITORY = Repository.parse("team/app")


def blob_pull(data: bytes, wanted: RangeRequest | None = None, right: Right = SERVICE) -> BlobPull:
    """A pull of these bytes."""
    return BlobPull(repository=REPOSITORY, digest=Digest.of(data), range=wanted, right=right)


def manifest_pull(reference: str | bytes = "1.0", right: Right = SERVICE) -> ManifestPull:
    """A pull of a tag, or of the digest of these bytes."""
    parsed = Tag.parse(reference) if isinstance(reference, str) else Digest.of(reference)
    return ManifestPull(repository=REPOSITORY, reference=parsed, right=right)


def byte_ranges(data: bytes, asked: Asked) -> Say:
    """The whole, or the range that was asked for, as an honest server answers."""
    if not asked.range:
        return Say(body=data)
    first, _, last = asked.range.removeprefix("bytes=").partition("-")
    start, stop = int(first), int(last) + 1 if last else len(data)
    told = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
    return Say(206, data[start:stop], (("Content-Range", told),))


async def read(blob: Blob) -> bytes:
    """The whole body."""
    assert not hasattr(blob.body, "url")
    parts: list[bytes | memoryview] = []
    async for chunk in blob.body:
        assert not isinstance(chunk, FileSpan)
        assert chunk, "no chunk is ever empty"
        parts.append(chunk)
    return b"".join(parts)


@asynccontextmanager
async def upstream(server: Played, **more: object) -> AsyncIterator[Upstream]:
    """A client of the played upstream, with no patience to spare."""
    metrics = more.pop("metrics", None) or Metrics()
    clock = more.pop("clock", None) or FakeClock()
    waits = more.pop("sleep", None) or Waits()
    settings = UpstreamSettings(**{"url": server.url, **more})  # type: ignore[arg-type]
    client = Upstream(settings, metrics=metrics, clock=clock, sleep=waits, chance=lambda: 0.5)  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await client.close()
