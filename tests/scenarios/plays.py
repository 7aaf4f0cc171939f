"""The cache under test and its clients: raw sockets, so that a client can stop, leave and look at every byte."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from msrcache.assembly import Application
from msrcache.cache.layout import blob_key
from msrcache.config.load import parse
from msrcache.oci.digest import Digest
from tests.stage.process import until
from tests.stage.scripted import PATIENCE, Scripted, reset


def configuration(
    folder: Path, *upstreams: str, mode: str = "open", more: str = "", heartbeat: str = "0s"
) -> str:
    """A config.yml with no patience to spare; `more` are further lines of its cache section.

    Without a heartbeat the store is asked for nothing but pulls: a play of several replicas sets one.
    """
    entries = "".join(f"    - url: {url}\n" for url in upstreams)
    return (
        "version: 0.1\n"
        "log: {level: warn, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'store'}}}}}\n"
        "http: {addr: '127.0.0.1:0', draintimeout: 20s}\n"
        f"cache:\n  upstreams:\n{entries}"
        f"  access: {{mode: {mode}}}\n"
        f"  drain: {{delay: 0s}}\n  heartbeat: {heartbeat}\n"
        f"{more}"
    )


@asynccontextmanager
async def cache(
    folder: Path,
    *upstreams: Scripted,
    mode: str = "open",
    more: str = "",
    heartbeat: str = "0s",
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Application]:
    """The whole cache in this process, in front of the upstreams; `environ` has REGISTRY_… variables."""
    urls = (upstream.url for upstream in upstreams)
    text = configuration(folder, *urls, mode=mode, more=more, heartbeat=heartbeat)
    async with Application(parse(text, "config.yml", environ or {}).config).running() as application:
        yield application


def port_of(application: Application) -> int:
    """Where its clients find it."""
    return int(application.service.addresses[0].rsplit(":", 1)[1])


@dataclass(slots=True)
class Pull:
    """One answer on its way: the head is there, the body is taken as the test wants it."""

    status: int
    headers: Mapping[str, str]
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    async def take(self, count: int) -> bytes:
        """Exactly so many further bytes."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(count)

    async def rest(self, *, seconds: float = PATIENCE) -> bytes:
        """All that still comes until the connection ends, however it ends."""
        parts = []
        async with asyncio.timeout(seconds):
            try:
                while part := await self._reader.read(1 << 16):
                    parts.append(part)
            except ConnectionError:
                pass
        return b"".join(parts)

    def leave(self) -> None:
        """Gone in the middle, without a word."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """Gone with an RST."""
        reset(self._writer)

    def half_close(self) -> None:
        """Nothing more will be sent, though the rest is still wanted."""
        self._writer.write_eof()


@dataclass(frozen=True, slots=True)
class Got:
    """A whole answer, or what there was of it: `whole` says whether all that was promised came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool


@asynccontextmanager
async def pulling(
    application: Application | int, path: str, *, method: str = "GET", **headers: str
) -> AsyncIterator[Pull]:
    """An open pull; header names are given with underscores."""
    port = application if isinstance(application, int) else port_of(application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with opened(reader, writer, path, method=method, **headers) as answer:
        yield answer


@asynccontextmanager
async def opened(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    *,
    method: str = "GET",
    **headers: str,
) -> AsyncIterator[Pull]:
    """The same over a connection that was made elsewhere."""
    try:
        lines = [f"{method} {path} HTTP/1.1", "Host: cache", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        found = {name.lower(): value.strip() for name, _, value in pairs}
        yield Pull(int(head[0].split(" ")[1]), found, reader, writer)
    finally:
        writer.close()


async def pull(application: Application | int, path: str, *, method: str = "GET", **headers: str) -> Got:
    """One pull to its end."""
    async with pulling(application, path, method=method, **headers) as answer:
        body = await answer.rest()
    promised = 0 if method == "HEAD" else int(answer.headers.get("content-length", "-1"))
    return Got(answer.status, answer.headers, body, len(body) == promised)


async def following(application: Application, readers: int) -> None:
    """Returns when the one fill under way has so many readers."""

    async def there() -> bool:
        return any(row["readers"] == readers for row in application.pulls.fills.rows())

    await until(there, what=f"{readers} readers of one fill")


async def settled(application: Application) -> None:
    """Returns when nothing is being filled or written behind."""
    async with asyncio.timeout(PATIENCE):
        await application.pulls.settled()


def stored(folder: Path, data: bytes) -> bytes | None:
    """What the store has under the digest of these bytes."""
    path = folder / "store" / blob_key(Digest.of(data))
    return path.read_bytes() if path.exists() else None


def left_behind(folder: Path) -> list[str]:
    """Names of spool files and of staged writes: nothing may stay when all is over."""
    root = folder / "store"
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and (path.suffix == ".spool" or "_uploads" in path.parts or ".tmp" in path.name)
    )
