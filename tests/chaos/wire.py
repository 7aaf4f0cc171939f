"""Wires between two parties that a run of chaos can spoil, and that lose nothing by themselves.

Every byte that was taken in is given out, in order, or both connections end. (Toxiproxy gives a reader that pauses five
seconds for each 32 KiB while a toxic is taken off its connection; then it drops them, and the stream goes on behind the
hole: what a cache and its clients can only notice by the digest.)

A process of its own: `python -m tests.chaos.wire PLAN.json`, told by lines of JSON on a Unix socket what is spoilt. Not
here: who starts it and tells it (`network`).
"""

import asyncio
import json
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, cast

import uvloop

from tests.chaos.ledger import Body, Watch

QUEUE: Final = 16 << 20
"""Bytes of a connection that wait for a delay or a limit; then its service waits."""
BUFFER: Final = 256 << 10
"""Bytes that were handed to the kernel's door: what is there when a wire is cut was not delivered."""


@dataclass(frozen=True, slots=True)
class Spoil:
    """What is wrong with a wire; nothing is, as it begins.

    `refused`: nobody listens, and what was open is reset. `silent`: nothing passes either way, and nothing ends.
    `delay`: seconds by which answers come later. `rate`: bytes a second of each connection's answers. `after`: bytes
    of answers, from now on, behind which a connection breaks: by an orderly end, or where `reset`, by RST.
    """

    refused: bool = False
    silent: bool = False
    delay: float = 0.0
    rate: int = 0
    after: int = 0
    reset: bool = False


class Side(asyncio.Protocol):
    """One side of a connection: what it says is queued for the other side, as the wire lets it through."""

    def __init__(self, wire: "Wire", watch: Watch | None, *, answers: bool) -> None:
        self.wire = wire
        self.other: Side | None = None
        self.transport: asyncio.Transport | None = None
        self._watch = watch
        self._answers = answers
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued = 0
        self._ended = self._full = self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._passed = 0
        self._free = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As Protocol."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER)
        self.wire.sides.add(self)
        if self._answers:
            self.pump()
        else:
            self.transport.pause_reading()
            self._stopped = True
            self.wire.join(self)

    def data_received(self, data: bytes) -> None:
        """As Protocol."""
        if self._watch is not None and not self._answers:
            self._watch.asking(data)
        self._queue.append((time.monotonic(), bytes(data)))
        self._queued += len(data)
        self.pump()

    def eof_received(self) -> bool:
        """As Protocol: the other side may still have something to say."""
        self._ended = True
        self.pump()
        return True

    def pause_writing(self) -> None:
        """As Protocol: what is written to this side is not taken. Called from within the other's pump."""
        if self.other is not None:
            self.other._full = True

    def resume_writing(self) -> None:
        """As Protocol."""
        if self.other is not None:
            self.other._full = False
            self.other.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """As Protocol: what it had said is still given out, unless it was reset."""
        self.wire.sides.discard(self)
        self.transport = None
        if exc is not None:
            self.cut(reset=True)
            return
        self._ended = True
        self.pump()
        if self.other is not None and self.other.transport is not None:
            self.other._stop(stopped=True)  # nobody is left to hear it

    def spoilt(self) -> None:
        """The wire has changed."""
        self._passed, self._free = 0, time.monotonic()
        self.pump()

    def pump(self) -> None:
        """Give out what may go now, and see to it that the rest goes later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        target = self.other.transport if self.other is not None else None
        if target is not None and not target.is_closing():
            wait = self._give(target)
            if wait > 0:
                self._timer = asyncio.get_running_loop().call_later(wait, self.pump)
            if self._ended and not (self._queue or self.wire.spoil.silent or target.is_closing()):
                self._end(target)
        self._stop(stopped=self._queued > (QUEUE if self._answers and self.wire.spoil.delay else BUFFER))

    def _give(self, target: asyncio.Transport) -> float:
        """Seconds after which to go on; 0: when something happens."""
        spoil = self.wire.spoil
        while self._queue and not (self._full or spoil.silent or target.is_closing()):
            came, data = self._queue[0]
            if self._answers:
                now = time.monotonic()
                wait = max(
                    came + spoil.delay - now if spoil.delay else 0.0, self._free - now if spoil.rate else 0.0
                )
                if wait > 0:
                    return wait
                if spoil.rate:
                    data = data[: max(1, spoil.rate // 20)]
                    self._free = max(self._free, now - 0.05) + len(data) / spoil.rate
                if spoil.after and self._passed + len(data) >= spoil.after:
                    self._write(target, data[: spoil.after - self._passed])
                    self.cut(reset=spoil.reset)
                    return 0.0
            self._take(came, data)
            self._write(target, data)
        return 0.0

    def _take(self, came: float, data: bytes) -> None:
        _, whole = self._queue.popleft()
        if len(data) < len(whole):
            self._queue.appendleft((came, whole[len(data) :]))
        self._queued -= len(data)
        self._passed += len(data)

    def _write(self, target: asyncio.Transport, data: bytes) -> None:
        if self._answers and self._watch is not None:
            self._watch.answering(data)
        target.write(data)

    def _stop(self, *, stopped: bool) -> None:
        if self.transport is None or stopped == self._stopped or self.transport.is_closing():
            return
        self._stopped = stopped
        (self.transport.pause_reading if stopped else self.transport.resume_reading)()

    def _end(self, target: asyncio.Transport) -> None:
        """It has said all: the other side is told, and closed when it has said all, too."""
        other = self.other
        assert other is not None
        if self.transport is None or (other._ended and not other._queue):
            self._account(target)
            target.close()
            if self.transport is not None:
                self.transport.close()
        elif target.can_write_eof():
            target.write_eof()

    def _account(self, target: asyncio.Transport | None, *, lost: bool = False) -> None:
        if self._answers and self._watch is not None:
            self._watch.ended(target.get_write_buffer_size() if lost and target is not None else 0)

    def cut(self, *, reset: bool) -> None:
        """Both sides end, and what is queued is not given out; without `reset` what was given out still arrives."""
        for one, to in ((self, self.other), (self.other, self)):
            if one is None:
                continue
            one._account(to.transport if to is not None else None, lost=reset)
            one._queue.clear()
            one._queued = 0
            if one.transport is not None and not one.transport.is_closing():
                _close(one.transport, reset=reset)


def _close(transport: asyncio.Transport, *, reset: bool) -> None:
    if not reset:
        transport.close()
        return
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


@dataclass(slots=True)
class Wire:
    """One wire: a loopback port before another."""

    name: str
    front: int
    target: int
    ledger: Path | None = None
    """Where the bodies of its answers are written down."""
    spoil: Spoil = Spoil()
    sides: set[Side] = field(default_factory=set)
    _holder: socket.socket | None = None
    _server: asyncio.Server | None = None
    _joining: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        """Hold the port, and listen."""
        self._holder = self._bound()  # where nobody listens, it refuses, and nobody else is given it
        await self.turn(self.spoil)

    async def turn(self, spoil: Spoil) -> None:
        """From now on it is as bad as this; all at once, whoever is connected."""
        self.spoil = spoil
        if spoil.refused and self._server is not None:
            self._server.close()
            self._server = None
        if not spoil.refused and self._server is None:
            listener = self._bound()
            listener.listen(512)
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._front, sock=listener)
        for side in list(self.sides):
            if spoil.refused:
                side.cut(reset=True)
            else:
                side.spoilt()

    async def close(self) -> None:
        """Cut everybody off, and let go of the port."""
        await self.turn(Spoil(refused=True))
        if self._holder is not None:
            self._holder.close()

    def join(self, front: Side) -> None:
        """Connect a new one to the service."""
        task = asyncio.get_running_loop().create_task(self._join(front))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    def kept(self, body: Body) -> None:
        """Write it down."""
        assert self.ledger is not None
        with self.ledger.open("a") as file:
            file.write(json.dumps(asdict(body)) + "\n")

    def _front(self) -> Side:
        watch = Watch(self.kept, time.monotonic) if self.ledger is not None else None
        return Side(self, watch, answers=False)

    def _bound(self) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.front))
        sock.settimeout(0)
        return sock

    async def _join(self, front: Side) -> None:
        back = Side(self, front._watch, answers=True)
        try:
            await asyncio.get_running_loop().create_connection(lambda: back, "127.0.0.1", self.target)
        except OSError:
            front.cut(reset=True)
            return
        front.other, back.other = back, front
        if front.transport is None or self.spoil.refused:
            back.cut(reset=True)
            return
        front.pump()
        back.pump()


async def serve(plan: Path) -> None:
    """All wires of a plan, until the process is ended; ready when the socket is there."""
    told = json.loads(plan.read_text())
    wires = {
        name: Wire(name, one["front"], one["target"], Path(one["ledger"]) if one.get("ledger") else None)
        for name, one in told["wires"].items()
    }
    for wire in wires.values():
        await wire.open()

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            order = json.loads(line)
            for name in order["wires"]:
                await wires[name].turn(Spoil(**order["spoil"]))
            writer.write(b"done\n")
        writer.close()

    server = await asyncio.start_unix_server(obey, told["socket"])
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
