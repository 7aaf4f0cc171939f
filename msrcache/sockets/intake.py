"""A large body straight from its socket into buffers of ours, once the HTTP client has read the head.

The HTTP client makes an object of every read and copies it; for a body of gigabytes that is the dearest thing the
loop does. So the connection's transport is given another protocol for the rest of the body, one that lends its own
memory to be filled, under TLS too.

Rules:
1. Bytes are handed on as views of a buffer that is never written again below its mark: a reader may keep them.
2. Somebody who waits is woken by the first bytes of all at once, later by a buffer's worth or ``LINGER`` after the
   first: small pieces cost a turn each.
3. With a buffer's worth unread, reading pauses until more is asked for: a slow reader is the sender's problem, never
   our memory's. Buffers grow from ``LEAST`` to ``MOST`` while the reader keeps pace, and are small again when it does
   not: a thousand slow clients of a store cost a thousand small ones. The first piece is small and pauses it too:
   somebody waits for it, and each further read of the socket would make every step of its way a millisecond longer.
4. Such a connection serves no second request: the client's parser has not seen where its body ended.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final, Protocol

KIB: Final = 1 << 10
LARGE: Final = 16 * 1024 * KIB
"""Bytes of a body from which this pays: for less, a connection that can be used again is worth more."""
MOST: Final = 1024 * KIB
LEAST: Final = 64 * KIB
ROOM: Final = 16 * KIB
"""What must be free of a buffer, else the next is begun: a call of the kernel for less is dear."""
PACE: Final = 0.05
"""Seconds within which a reader that keeps pace is back for more."""
FIRST: Final = 64 * KIB
TURN: Final = 256 * KIB
"""Bytes of one connection in one turn of the loop: with sixteen of them, more makes everybody late."""
LINGER: Final = 0.002
KEPT: Final = 6
"""Buffers that are used again: what the pump holds, and one to fill."""


class Source(Protocol):
    """The client's end of a connection: what must be told that it is gone."""

    def connection_lost(self, exc: BaseException | None) -> None: ...


class Intake(asyncio.BufferedProtocol):
    """Takes the next ``length`` bytes of a connection; what follows them is nobody's."""

    def __init__(
        self, transport: asyncio.Transport | None, source: Source, *, length: int, first: bytes = b""
    ) -> None:
        """``first`` of the ``length`` bytes came already; ``source`` is told of the connection's end."""
        self._transport = transport
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._ready = deque([memoryview(first)] if first else [])
        self._unread = len(first)
        self._rest = length - len(first)
        self._size = LEAST
        self._gave = 0.0
        self._memory: deque[bytearray] = deque()
        self._buffer = self._another()
        self._taken = 0
        self._filled = 0
        self._begun, self._given = bool(first), False
        self._paused = False
        self._lost: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        if transport is not None:
            transport.set_protocol(self)

    def __repr__(self) -> str:
        return f"<Intake {self._unread} bytes unread, {self._rest} to come>"

    async def read(self) -> bytes | memoryview:
        """The next bytes, b"" behind the last. Raises ConnectionError where the connection ended before them."""
        if self._given:
            self._pace()
        if self._given or not self._unread:
            self._go_on()
        if not self._unread and self._rest:
            self._raise_lost()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
                self._still()
            self._raise_lost()
        return self._next()

    def _raise_lost(self) -> None:
        if self._lost is not None and not self._unread:
            raise self._lost

    def _next(self) -> bytes | memoryview:
        if self._ready:
            piece = self._ready.popleft()
        elif self._filled > self._taken:
            piece = self._buffer[self._taken : self._filled]
            self._taken = self._filled
        else:
            return b""
        self._unread -= len(piece)
        self._given, self._gave = True, self._loop.time()
        return piece

    def _pace(self) -> None:
        kept = self._loop.time() - self._gave < PACE
        self._size = min(2 * self._size, MOST) if kept else LEAST

    def _go_on(self) -> None:
        if self._paused and self._rest and self._unread < self._size and self._transport is not None:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """As BufferedProtocol: what is free of the buffer, or of a new one."""
        del sizehint
        if len(self._buffer) - self._filled < min(ROOM, self._rest or 1):
            if self._filled > self._taken:
                self._ready.append(self._buffer[self._taken : self._filled])
            self._buffer = self._another()
            self._taken = self._filled = 0
        return self._buffer[self._filled : self._filled + (TURN if self._begun else FIRST)]

    def _another(self) -> memoryview:
        """Memory that nobody reads any more, else new: to have it zeroed each time is a tenth of the loop's work."""
        for _ in range(len(self._memory)):
            memory = self._memory.popleft()
            if len(memory) != self._size:
                continue  # of another pace
            self._memory.append(memory)
            with suppress(BufferError):
                memory.append(memory.pop())  # refused, by the language, while any view of it lives
                return memoryview(memory)
        memory = bytearray(self._size)
        if len(self._memory) < KEPT:
            self._memory.append(memory)
        return memoryview(memory)

    def buffer_updated(self, nbytes: int) -> None:
        """As BufferedProtocol. Bytes behind the announced length are dropped."""
        count = min(nbytes, self._rest)
        self._filled += count
        self._unread += count
        self._rest -= count
        if not self._rest or self._unread >= self._size or not self._begun:
            self._pause()
        if not self._rest or self._unread >= self._size or not self._begun:
            self._wake()
        elif self._linger is None and self._waiter is not None:
            self._linger = self._loop.call_later(LINGER, self._wake)
        self._begun = True

    def eof_received(self) -> bool:
        """As BufferedProtocol: the transport closes, and says so."""
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """As BaseProtocol: what came is read first, then the error."""
        if self._rest:
            self._lost = ConnectionResetError(f"{self._rest} bytes of it were still to come")
            self._lost.__cause__ = exc
        self._wake()
        self._source.connection_lost(exc)

    def _pause(self) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _wake(self) -> None:
        self._still()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _still(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
