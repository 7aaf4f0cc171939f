"""The wires of chaos: what is not meant to be lost is not lost, and what was lost is counted."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos.ledger import Body, Watch
from tests.chaos.network import Network, network
from tests.chaos.wire import Spoil, Wire
from tests.stage.images import noise
from tests.stage.process import free_port, until

DATA = noise(9_000_000, 1)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@asynccontextmanager
async def service(said: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """Answers each head of a request; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(said(await reader.readuntil(b"\r\n\r\n")))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def blob(request: bytes) -> bytes:
    """DATA, or of HEAD its length."""
    return ANSWER % len(DATA) + (b"" if request.startswith(b"HEAD") else DATA)


WHOLE = blob(b"GET")


@asynccontextmanager
async def wire(ledger: Path | None = None) -> AsyncIterator[Wire]:
    """A wire before the service, in this loop."""
    async with service(blob) as port:
        made = Wire("one", free_port(), port, ledger)
        await made.open()
        yield made
        await made.close()


@asynccontextmanager
async def ask(
    port: int, method: str = "GET"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """An open request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} /blob HTTP/1.1\r\n\r\n".encode())
        yield reader, writer
    finally:
        writer.transport.abort()


async def told(path: Path, count: int) -> list[Body]:
    """The ledger, once it has so many lines."""

    async def there() -> bool:
        return path.exists() and len(path.read_text().splitlines()) >= count

    await until(there, what=f"{count} lines of the ledger")
    return Network({}, path, *(None,) * 3).bodies()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spoil", [Spoil(delay=0.3), Spoil(rate=2_000_000), Spoil(silent=True)], ids=["delay", "rate", "silent"]
)
async def test_a_reader_that_pauses_while_it_gets_better_misses_nothing(spoil: Spoil) -> None:
    """A delay, a limit or silence begins and ends in the middle of a body that nobody reads at that time."""
    async with wire() as one, ask(one.front) as (reader, _writer):
        start = await reader.readexactly(1000)
        await one.turn(spoil)
        for _ in range(10):
            await asyncio.sleep(0)
        await one.turn(Spoil())
        assert start + await reader.readexactly(len(WHOLE) - 1000) == WHOLE


async def test_bytes_pass_as_they_are_while_it_comes_and_goes() -> None:
    """Many bodies on one connection, and the wire worse and better all the time."""
    async with wire() as one, ask(one.front) as (reader, writer):

        async def weather() -> None:
            for spoil in itertools.cycle(
                (Spoil(delay=0.02), Spoil(), Spoil(rate=90_000_000), Spoil(silent=True))
            ):
                await one.turn(spoil)
                await asyncio.sleep(0.01)

        changing = asyncio.create_task(weather())
        for _ in range(5):
            assert await reader.readexactly(len(WHOLE)) == WHOLE
            writer.write(b"GET /blob HTTP/1.1\r\n\r\n")
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)


async def test_silence_passes_nothing_and_ends_nothing() -> None:
    """Not the request, not the answer; afterwards both."""
    async with wire() as one:
        await one.turn(Spoil(silent=True))
        async with ask(one.front) as (reader, _writer):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read(1)
            await one.turn(Spoil())
            assert await reader.readexactly(len(WHOLE)) == WHOLE


async def test_refused_cuts_what_is_open_and_lets_nobody_in() -> None:
    """By RST, at the same port; and it opens again."""
    async with wire() as one:
        async with ask(one.front) as (reader, _):
            await reader.readexactly(1000)
            await one.turn(Spoil(refused=True))
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(len(WHOLE) - 1000)

            async def closed() -> bool:
                try:
                    await asyncio.open_connection("127.0.0.1", one.front)
                except ConnectionRefusedError:
                    return True
                return False

            await until(closed, what="the wire to refuse")
            await one.turn(Spoil())
        async with ask(one.front) as (reader, _writer):
            assert await reader.readexactly(len(WHOLE)) == WHOLE


async def test_a_body_breaks_where_it_is_told_to_and_is_counted_as_far(tmp_path: Path) -> None:
    """An orderly end behind so many bytes, of the connection's answers from that moment on."""
    async with wire(tmp_path / "ledger") as one:
        await one.turn(Spoil(after=700_000))
        async with ask(one.front) as (reader, writer):
            assert await reader.read() == WHOLE[:700_000]
            await one.turn(Spoil())
        async with ask(one.front, "HEAD") as (reader, writer):
            await reader.readexactly(len(ANSWER % len(DATA)))
            writer.write(b"GET /other HTTP/1.1\r\n\r\n")
            assert await reader.readexactly(len(WHOLE)) == WHOLE
            first, second = await told(tmp_path / "ledger", 2)
            assert (first.path, first.status) == ("/blob", 200)
            assert first.count == 700_000 - len(ANSWER % len(DATA))
            assert (second.path, second.method, second.count) == ("/other", "GET", len(DATA))


async def test_a_body_that_is_reset_counts_no_byte_that_was_not_handed_over(tmp_path: Path) -> None:
    """The reader got no more than was counted."""
    async with wire(tmp_path / "ledger") as one:
        await one.turn(Spoil(after=5_000_000, reset=True))
        async with ask(one.front) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(len(WHOLE))
            (body,) = await told(tmp_path / "ledger", 1)
            assert 0 <= body.count <= 5_000_000 - len(ANSWER % len(DATA))


def test_a_watch_understands_heads_in_pieces() -> None:
    """Byte by byte, an interim answer, one without a body, one whose length is not told."""
    kept: list[Body] = []
    watch = Watch(kept.append, lambda: 1.0)
    for byte in b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\n\r\n":
        watch.asking(bytes([byte]))
    said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"
    said += b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabcde"
    for byte in said:
        watch.answering(bytes([byte]))
    watch.ended()
    assert kept == [Body("GET", "/a", 1.0, 200, 3), Body("GET", "/c", 1.0, 200, 5)]


async def test_wires_are_told_from_another_process(tmp_path: Path) -> None:
    """Several at once, inside a context; and what was handed over is in the ledger."""
    async with service(blob) as port, network(tmp_path, {"a": port, "b": port}, watched=["a"]) as wires:
        async with wires.spoilt(["a", "b"], Spoil(after=1000)):
            for name in ("a", "b"):
                async with ask(wires.ports[name]) as (reader, _writer):
                    assert await reader.read() == WHOLE[:1000]
        async with ask(wires.ports["a"]) as (reader, _writer):
            assert await reader.readexactly(len(WHOLE)) == WHOLE
            await told(tmp_path / "ledger.jsonl", 2)
            assert [body.count for body in wires.bodies()] == [1000 - len(ANSWER % len(DATA)), len(DATA)]
