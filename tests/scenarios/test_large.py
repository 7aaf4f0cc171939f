"""A layer of 5 GiB through the whole cache as a process: cold to ten clients at once from an upstream that breaks
twice, through a kill -9 in the middle, and served by Docker Registry afterwards.
"""

import asyncio
import hashlib
import http.client
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.scenarios.plays import pulling
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.process import until
from tests.stage.registries import Kind, registry
from tests.stage.tools import absent

MIB = 1 << 20
GIB = 1 << 30
SIZE = 5 * GIB
SPACE = 12 * GIB
"""The upstream's file, one store, and some room."""
CLIENTS = 10
SETTINGS = {"access": {"mode": "open"}}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@dataclass(slots=True)
class Layer:
    """A large upstream: one blob in a file. Bodies end too early at the bytes of `breaks`, each once; `sent` counts."""

    file: Path
    digest: str
    breaks: list[int] = field(default_factory=list)
    sent: int = 0
    ledger: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def path(self) -> str:
        """Of the blob."""
        return f"/v2/team/big/blobs/sha256:{self.digest}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one answer."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = lines[0].split(" ")
            wanted = next((line[13:] for line in lines if line.lower().startswith("range: bytes=")), "")
            if path == self.path:
                self.ledger.append(f"{method} {wanted}".strip())
            await self._answer(method, path, wanted, writer)
            writer.write_eof()
            await reader.read()
        writer.close()

    async def _answer(self, method: str, path: str, wanted: str, writer: asyncio.StreamWriter) -> None:
        if path != self.path:
            status = 200 if path == "/v2/" else 404
            writer.write(
                f"HTTP/1.1 {status} x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode()
            )
            return
        start = int(wanted.partition("-")[0] or 0)
        told = f"206 x\r\nContent-Range: bytes {start}-{SIZE - 1}/{SIZE}" if wanted else "200 x"
        writer.write(
            f"HTTP/1.1 {told}\r\nContent-Length: {SIZE - start}\r\nConnection: close\r\n\r\n".encode()
        )
        if method == "HEAD":
            return
        stop = self.breaks.pop(0) if self.breaks else SIZE
        loop = asyncio.get_running_loop()
        with self.file.open("rb") as source:
            for offset in range(start, stop, 64 * MIB):
                count = min(64 * MIB, stop - offset)
                self.sent += await loop.sendfile(writer.transport, source, offset, count)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The file and its digest; removed at once, it is too large to stay until pytest tidies up."""
    folder = tmp_path_factory.mktemp("large")
    if shutil.disk_usage(folder).free < SPACE:
        absent(f"there are no {SPACE // GIB} GiB free below {folder}")
    block, hasher = random.Random(5).randbytes(64 * MIB), hashlib.sha256()
    file = folder / "layer"
    try:
        with file.open("wb") as target:
            for number in range(SIZE // len(block)):
                piece = number.to_bytes(8, "big") + block[8:]
                hasher.update(piece)
                target.write(piece)
        yield file, hasher.hexdigest()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A store's folder, removed at once."""
    yield tmp_path / "store"
    shutil.rmtree(tmp_path / "store", ignore_errors=True)


@asynccontextmanager
async def upstream(content: tuple[Path, str], *breaks: int) -> AsyncIterator[Layer]:
    """A running upstream of that content."""
    layer = Layer(*content, breaks=list(breaks))
    server = await asyncio.start_server(layer.serve, "127.0.0.1", 0)
    layer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield layer
    finally:
        server.close()


def download(port: int, path: str) -> tuple[int, str]:
    """Size and digest of a body, read in a thread: hashing lets others run."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        hasher, size, buffer = hashlib.sha256(), 0, bytearray(MIB)
        while count := answer.readinto(buffer):
            hasher.update(memoryview(buffer)[:count])
            size += count
        return size, hasher.hexdigest()
    finally:
        connection.close()


def visible(store: Path, digest: str) -> Path:
    """Where the blob stands in the store once it is whole."""
    return store / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"


async def highest(running: RunningCache, done: asyncio.Event) -> int:
    """The most memory that the process held."""
    peak = 0
    while not done.is_set():
        peak = max(peak, running.resident)
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), 0.2)
    return peak


async def test_cold_to_ten_clients_from_an_upstream_that_breaks_twice(
    tmp_path: Path, content: tuple[Path, str], store: Path
) -> None:
    """Ten right digests, each byte from the upstream once, memory bounded; Docker Registry then serves every byte."""
    async with (
        upstream(content, SIZE // 3, 2 * SIZE // 3) as layer,
        cache(tmp_path / "cache", {"url": layer.url}, data=store, settings=SETTINGS) as running,
    ):
        done = asyncio.Event()
        watching = asyncio.create_task(highest(running, done))
        pulls = [asyncio.to_thread(download, running.port, layer.path) for _ in range(CLIENTS)]
        assert set(await asyncio.gather(*pulls)) == {(SIZE, layer.digest)}
        done.set()
        peak = await watching
        assert peak < 150 * MIB, f"{peak / MIB:.0f} MiB"
        assert layer.ledger == ["GET", f"GET {SIZE // 3}-", f"GET {2 * SIZE // 3}-"]
        assert layer.sent == SIZE

        async def stored() -> bool:
            return visible(store, layer.digest).exists()

        await until(stored, what="the blob in the store")
        digest, path = layer.digest, layer.path
    shutil.copytree(store, tmp_path / "registry" / "data", copy_function=os.link)
    async with registry(Kind.V2, tmp_path / "registry") as docker_registry:
        assert await asyncio.to_thread(download, docker_registry.port, path) == (SIZE, digest)
    shutil.rmtree(tmp_path / "registry")


async def test_kill_nine_in_the_middle(tmp_path: Path, content: tuple[Path, str], store: Path) -> None:
    """Killed after 2 GiB: nothing of it is visible; started again, the rest alone is fetched, and it is right."""
    async with upstream(content) as layer:
        async with (
            cache(tmp_path / "one", {"url": layer.url}, data=store, settings=SETTINGS) as running,
            pulling(running.port, layer.path) as client,
        ):
            for _ in range(2 * GIB // (16 * MIB)):
                await client.take(16 * MIB)
            os.killpg(running.process.pid, signal.SIGKILL)
            await running.process.wait()
        assert not visible(store, layer.digest).exists()
        (left,) = store.rglob("*.spool")
        async with cache(tmp_path / "two", {"url": layer.url}, data=store, settings=SETTINGS) as running:
            length = left.stat().st_size
            got = await asyncio.to_thread(download, running.port, layer.path)
            assert got == (SIZE, layer.digest)
        assert length >= 2 * GIB
        assert layer.ledger == ["GET", f"GET {length - 1}-"]
        assert visible(store, layer.digest).stat().st_size == SIZE
        assert list(store.rglob("*.spool")) == []
