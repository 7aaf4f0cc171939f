"""The accept loop: socket -> limits -> PROXY protocol -> TLS -> a connection on the loop.

One listener is one address (every socket it resolves to) or one unix socket. Own rather than the loop's,
because a limit, a PROXY header and a descriptor famine must be met before a transport exists.
Not here: requests (connection, app), which addresses are whose (settings).

What a connection meets, in this order: no place in all -> 503 and closed; not a PROXY header from a
trusted peer -> closed; too many of its address -> 503 and closed; no TLS handshake in time -> closed. All
are counted by reason.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Final, Protocol

from msrcache.server import proxyprotocol
from msrcache.server.binding import listen, spelled
from msrcache.server.limits import ConnectionLimits, Place
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

AT_ONCE: Final = 64
"""Connections accepted before the loop sees to something else."""
AWAY: Final = 64 * 1024
PAUSE: Final = 0.5
"""Seconds without accepting when the process or the machine is out of descriptors or memory."""
FAMINE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: 95\r\n\r\n"
    b'{"errors":[{"code":"UNAVAILABLE","message":"too many connections: try again in a few seconds"}]}'
)

Networks = Sequence[IPv4Network | IPv6Network]
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a connection is from: whom a trusted PROXY header names. Empty address: a unix socket."""

    address: str
    trusted: bool
    secure: bool


class Contexts(Protocol):
    """Whose `current` context a new connection is given."""

    @property
    def current(self) -> ssl.SSLContext:
        """The context that was loaded last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """How a listener lets connections in."""

    addr: str
    net: str = "tcp"
    shared: bool = False
    trusted: Networks = ()
    proxy_protocol: bool = False
    tls: Contexts | None = None
    handshake_timeout: float = 10.0


def plain_address(address: str) -> str:
    """An address as it is compared and logged: IPv4 in IPv6 as IPv4, without a scope."""
    address = address.partition("%")[0]
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def is_trusted(address: str, networks: Networks) -> bool:
    """Whether the address is one of the operator's proxies. A unix socket's peer is: its mode decided."""
    if not address:
        return True
    if not networks:
        return False
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


class Listener:
    """Accepts on one address and makes a protocol of each connection that may stay."""

    def __init__(
        self,
        door: Door,
        *,
        make: Callable[[Peer, Place], asyncio.Protocol],
        limits: ConnectionLimits,
        metrics: Metrics,
    ) -> None:
        self._door = door
        self._make = make
        self._limits = limits
        self._metrics = metrics
        self._sockets: list[socket.socket] = []
        self._welcomes: set[asyncio.Task[None]] = set()
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        return f"<Listener {self._door.addr} [{len(self._sockets)} sockets, {len(self._welcomes)} arriving]>"

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as host:port or the path of the unix socket."""
        return [spelled(sock) for sock in self._sockets]

    async def open(self) -> None:
        """Bind and begin to accept. Raises ListenFailed and leaves nothing open."""
        door = self._door
        self._sockets = await listen(door.addr, net=door.net, frugal=door.tls is not None, shared=door.shared)
        for sock in self._sockets:
            self._accept_on(sock)

    def close(self) -> None:
        """Stop accepting. Connections stay; those that are still arriving are let in."""
        loop = asyncio.get_running_loop()
        for timer in self._paused.values():
            timer.cancel()
        self._paused.clear()
        for sock in self._sockets:
            loop.remove_reader(sock)
            path = sock.getsockname() if sock.family == socket.AF_UNIX else ""
            sock.close()
            if isinstance(path, str) and path:
                Path(path).unlink(missing_ok=True)
        self._sockets.clear()

    async def wait_closed(self) -> None:
        """Give up connections that have not arrived: a half-sent PROXY header, an unfinished handshake."""
        for task in self._welcomes:
            task.cancel()
        await asyncio.gather(*self._welcomes, return_exceptions=True)

    def _accept_on(self, sock: socket.socket) -> None:
        self._paused.pop(sock, None)
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as cause:
                self._pause(listening, cause)
                return
            sock.settimeout(0)
            self._arrive(sock, address)

    def _pause(self, listening: socket.socket, cause: OSError) -> None:
        if cause.errno not in FAMINE:
            log.warning("cannot accept a connection", address=self._door.addr, error=str(cause))
            return
        # The socket stays readable: without a pause the loop would do nothing but fail to accept.
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._paused[listening] = loop.call_later(PAUSE, self._accept_on, listening)
        self._metrics.connections_refused_total.labels("descriptors").inc()
        log.error(
            "out of file descriptors or memory: new connections wait; raise the limit of open files",
            address=self._door.addr,
            error=str(cause),
            open=self._limits.open,
        )

    def _arrive(self, sock: socket.socket, address: object) -> None:
        place = self._limits.take()
        if place is None:
            self._refuse(sock, "connections")
            return
        host = address[0] if isinstance(address, tuple) else ""
        task = asyncio.get_running_loop().create_task(self._welcome(sock, plain_address(host), place))
        self._welcomes.add(task)
        task.add_done_callback(partial(self._welcomed, sock, place))

    def _welcomed(self, sock: socket.socket, place: Place, task: asyncio.Task[None]) -> None:
        self._welcomes.discard(task)
        if task.cancelled():  # perhaps before its first step, so that nothing in it could close the socket
            sock.close()
            place.release()

    async def _welcome(self, sock: socket.socket, address: str, place: Place) -> None:
        reason = "socket"
        try:
            reason = "proxy_header"
            address = await self._behind(sock, address)
            reason = "per_address"
            if place.claim(address):
                reason = "tls" if self._door.tls else "socket"
                await self._hand_over(sock, address, place)
                return
            self._refuse(sock, reason)
        except (OSError, ssl.SSLError, TimeoutError, proxyprotocol.ProxyProtocolError) as cause:
            self._metrics.connections_refused_total.labels(reason).inc()
            log.info("connection refused", reason=reason, client=address, error=_reason(cause))
            sock.close()
        place.release()

    async def _behind(self, sock: socket.socket, address: str) -> str:
        """The address that a trusted peer's PROXY header names; any other peer speaks for itself."""
        if not self._door.proxy_protocol or not is_trusted(address, self._door.trusted):
            return address
        async with asyncio.timeout(self._door.handshake_timeout):
            source = await proxyprotocol.read(sock)
        return plain_address(source.address) if source else address

    async def _hand_over(self, sock: socket.socket, address: str, place: Place) -> None:
        tls = self._door.tls
        peer = Peer(address, is_trusted(address, self._door.trusted), tls is not None)
        loop = asyncio.get_running_loop()
        if tls is None:
            await loop.connect_accepted_socket(lambda: self._make(peer, place), sock)
        else:
            await loop.connect_accepted_socket(
                lambda: self._make(peer, place),
                sock,
                ssl=tls.current,
                ssl_handshake_timeout=self._door.handshake_timeout,
            )

    def _refuse(self, sock: socket.socket, reason: str) -> None:
        self._metrics.connections_refused_total.labels(reason).inc()
        try:
            if self._door.tls is None:
                sock.send(REFUSAL)
                sock.shutdown(socket.SHUT_WR)
                # What stays unread would turn our close into a reset, and the words were lost.
                sock.recv(AWAY)
        except OSError:
            pass  # it is gone already, which is what was wanted
        sock.close()


def _reason(cause: BaseException) -> str:
    if isinstance(cause, TimeoutError):
        return "time is up"
    told = getattr(cause, "reason", None) or getattr(cause, "strerror", None) or str(cause)
    return str(told or type(cause).__name__)
