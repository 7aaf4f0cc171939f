"""sockets.intake: a large body past the HTTP client, byte for byte, and how it ends."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from msrcache.sockets import intake as module
from msrcache.sockets.intake import FIRST, LEAST, MOST, Intake

DATA = random.Random(8).randbytes(5_000_000)


@dataclass(slots=True)
class Told:
    """Stands for the client's end of the connection."""

    lost: list[BaseException | None] = field(default_factory=list)

    def connection_lost(self, exc: BaseException | None) -> None:
        """As Source."""
        self.lost.append(exc)


@dataclass(slots=True)
class Line:
    """A connection whose near end is an intake."""

    intake: Intake
    far: socket.socket
    source: Told
    transport: asyncio.Transport

    async def send(self, data: bytes) -> None:
        """From the far end."""
        await asyncio.get_running_loop().sock_sendall(self.far, data)

    async def rest(self) -> bytes:
        """All that comes."""
        found = b""
        while piece := await self.intake.read():
            found += piece
        return found


@asynccontextmanager
async def _line(length: int) -> AsyncIterator[Line]:
    near, far = socket.socketpair()
    near.settimeout(0)
    far.settimeout(0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    source = Told()
    try:
        yield Line(Intake(transport, source, length=length), far, source, transport)
    finally:
        transport.abort()
        far.close()
        await asyncio.sleep(0)


async def test_all_of_the_body_comes_and_nothing_behind_it() -> None:
    """The announced length, exactly; what follows is nobody's."""
    async with _line(len(DATA)) as line:
        sending = asyncio.create_task(line.send(DATA + b"more"))
        assert await line.rest() == DATA
        assert await line.intake.read() == b""
        sending.cancel()


async def test_pieces_stay_as_they_were() -> None:
    """A reader may keep what it got: no memory is used again while a view of it lives."""
    async with _line(len(DATA)) as line:
        sending = asyncio.create_task(line.send(DATA))
        kept = []
        while piece := await line.intake.read():
            kept.append(piece)
        assert b"".join(kept) == DATA
        await sending


async def test_memory_is_used_again() -> None:
    """What nobody reads any more is filled again: few buffers for a body of any size."""
    async with _line(len(DATA) * 4) as line:
        sending = asyncio.create_task(line.send(DATA * 4))
        while await line.intake.read():
            pass
        await sending
        assert len(line.intake._memory) <= 3


async def test_the_first_bytes_are_not_kept_waiting() -> None:
    """One byte wakes the first reader; no more is read until more is asked for."""
    async with _line(len(DATA)) as line:
        reading = asyncio.create_task(line.intake.read())
        await line.send(b"a")
        assert await reading == b"a"
        assert not line.transport.is_reading()


async def test_the_first_piece_is_small() -> None:
    """However much has come: each step of its way is short."""
    async with _line(len(DATA)) as line:
        sending = asyncio.create_task(line.send(DATA))
        assert 0 < len(await line.intake.read()) <= FIRST
        sending.cancel()


async def test_what_nobody_reads_stays_in_the_socket() -> None:
    """A reader that is slow makes the connection wait, and costs bounded memory."""
    async with _line(len(DATA)) as line:
        sending = asyncio.create_task(line.send(DATA))
        await line.intake.read()
        await line.intake.read()
        while line.transport.is_reading():
            await asyncio.sleep(0)
        assert line.intake._unread <= 2 * MOST
        assert await line.rest()
        await sending


async def test_a_connection_that_ends_early_gives_what_came() -> None:
    """First the bytes, then the error, as often as it is asked; the client's end is told."""
    async with _line(1000) as line:
        await line.send(b"x" * 10)
        assert await line.intake.read() == b"x" * 10
        reading = asyncio.create_task(line.intake.read())
        await line.send(b"y" * 10)
        line.far.close()
        assert await reading == b"y" * 10
        for _ in range(2):
            with pytest.raises(ConnectionResetError, match="980 bytes"):
                await line.intake.read()
        assert line.source.lost == [None]


async def test_an_end_behind_the_last_byte_is_none() -> None:
    """A server that closes when it has sent all breaks nothing."""
    async with _line(10) as line:
        await line.send(b"x" * 10)
        line.far.close()
        assert await line.rest() == b"x" * 10


async def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    """A time-out of one who waits is no end: the next reader gets the bytes."""
    async with _line(10) as line:
        reading = asyncio.create_task(line.intake.read())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        await line.send(b"x" * 10)
        assert await line.rest() == b"x" * 10


async def test_first_bytes_that_came_with_the_head_are_given_first() -> None:
    """What the client had read already is part of the body; all of it may be."""
    near, far = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    intake = Intake(transport, Told(), length=6, first=b"abc")
    assert await intake.read() == b"abc"
    far.send(b"def")
    assert await intake.read() == b"def"
    transport.abort()
    far.close()
    whole = Intake(None, Told(), length=3, first=b"abc")
    assert [await whole.read(), await whole.read()] == [b"abc", b""]


async def test_a_slow_reader_has_small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps pace gets more at a time; whoever stops doing so is back at the least."""
    async with _line(len(DATA) * 2) as line:
        sending = asyncio.create_task(line.send(DATA * 2))
        monkeypatch.setattr(module, "PACE", 60.0)
        while line.intake._size < MOST:
            await line.intake.read()
        monkeypatch.setattr(module, "PACE", 0.0)
        await line.intake.read()
        assert line.intake._size == LEAST
        sending.cancel()
