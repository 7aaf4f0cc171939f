"""A worker's half of what it and its supervisor say to each other, and the messages themselves.

A message is one packet of a socket pair (SOCK_SEQPACKET): whole or not there, so neither side ever waits for the
other. The worker says `ready`, `cannot` (with the sentence), `metrics?`, `snapshot` and `alive`; it hears `snapshot?`,
`metrics`, `crew` (how many serve), `alive?` and `hurry`. The end of the socket means that the other side is gone.
Not here: when workers are started and ended (workers), what a worker does (assembly).
"""

import asyncio
import json
import socket
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry

from msrcache.oci.errors import Unavailable
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.merging import plain, snapshot

LARGEST: Final = 1 << 20
PATIENCE: Final = 5.0
"""Seconds in which the supervisor has to answer."""

log = get_logger(__name__)


def say(sock: socket.socket, kind: str, told: object = None) -> bool:
    """Send one message; False where it cannot be had: the other side is gone, or reads nothing."""
    try:
        sock.send(zlib.compress(json.dumps([kind, told]).encode(), 1))
    except OSError as error:
        log.debug("message between worker and supervisor lost", message=kind, error=str(error))
        return False
    return True


def hear(sock: socket.socket) -> tuple[str, Any] | None:
    """The next message; None: the other side is gone. Raises BlockingIOError while there is none."""
    try:
        packet = sock.recv(LARGEST)
    except ConnectionError:
        return None
    if not packet:
        return None
    kind, told = json.loads(zlib.decompress(packet))
    return str(kind), told


class Seat:
    """One worker's place: its number, and its line to the supervisor."""

    def __init__(self, sock: socket.socket, number: int, of: int) -> None:
        self.number = number
        self.of = of
        self._sock = sock
        self._crew: Mapping[str, Any] = {}
        self._asked: asyncio.Future[bytes] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Seat {self.number} of {self.of}>"

    def listen(self, registry: CollectorRegistry, *, told: Mapping[str, Callable[[], object]]) -> None:
        """Answer the supervisor from now on, on this loop; `told`: what `hurry` and `gone` do."""
        asyncio.get_running_loop().add_reader(self._sock, self._hear, registry, told)

    def ready(self) -> None:
        """This worker serves."""
        say(self._sock, "ready")

    def cannot(self, sentence: str) -> None:
        """This worker can never serve as it is configured."""
        say(self._sock, "cannot", sentence)

    def trouble(self) -> str | None:
        """What is wrong with the others, in words."""
        ready = int(self._crew.get("ready", self.of))
        return f"{ready} of {self.of} workers serve{self._crew.get('why', '')}" if ready < self.of else None

    async def metrics(self) -> bytes:
        """The metrics of all workers together. Raises Unavailable when the supervisor does not answer."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().create_future()
            say(self._sock, "metrics?")
        try:
            return await asyncio.wait_for(asyncio.shield(self._asked), PATIENCE)
        except TimeoutError:
            self._asked = None
            raise Unavailable("the supervisor of the workers does not answer") from None

    def _hear(self, registry: CollectorRegistry, told: Mapping[str, Callable[[], object]]) -> None:
        try:
            message = hear(self._sock)
        except BlockingIOError:
            return
        if message is None:
            asyncio.get_running_loop().remove_reader(self._sock)
            told["gone"]()
            return
        kind, what = message
        if kind == "snapshot?":
            sending = asyncio.create_task(self._send(registry))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        elif kind == "alive?":
            say(self._sock, "alive")
        elif kind == "crew":
            self._crew = what
        elif kind == "metrics" and self._asked is not None and not self._asked.done():
            self._asked.set_result(str(what).encode())
        elif kind == "hurry":
            told[kind]()

    async def _send(self, registry: CollectorRegistry) -> None:
        # Collecting takes milliseconds: too long for the loop.
        say(self._sock, "snapshot", await asyncio.to_thread(lambda: plain(snapshot(registry))))
