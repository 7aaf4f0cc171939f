"""Listening sockets: an address or a path becomes sockets that listen, or one sentence that says why not."""

import asyncio
import errno
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

BACKLOG: Final = 4096
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""A client that vanished without a word is noticed in two minutes."""
TCP_NOTSENT_LOWAT: Final = 25
UNSENT: Final = 512 * 1024
"""Bytes that the kernel takes in advance for a client under TLS. It would take 4 MiB, in memory of its own:
1,000 slow clients then use up what all TCP of the machine may have, and nobody is served. A plain connection
needs no such bound, because sendfile lends the kernel pages of the file."""


class ListenFailed(Exception):
    """The address cannot be listened on: one sentence that says why and what to do."""


async def listen(
    addr: str, *, net: str = "tcp", frugal: bool = False, shared: bool = False
) -> list[socket.socket]:
    """Sockets that listen at host:port (each address of the host) or at a path; `frugal`: see UNSENT.

    `shared`: other processes of this user may listen there too, and the kernel gives each its part of the connections.
    Raises ListenFailed and leaves nothing open.
    """
    sockets: list[socket.socket] = []
    try:
        if net == "unix":
            return [await asyncio.to_thread(_at_path, addr)]
        await _everywhere(addr, sockets, partial(_at, frugal=frugal, shared=shared))
    except OSError as cause:
        for sock in sockets:
            sock.close()
        raise ListenFailed(_explain(addr, cause)) from cause
    return sockets


async def _everywhere(addr: str, sockets: list[socket.socket], make: Callable[..., socket.socket]) -> None:
    host, _, port = addr.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(
        host.strip("[]") or None, port or "0", type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    places = list(dict.fromkeys((entry[0], entry[4]) for entry in found))
    if host:
        sockets.extend(make(family, address) for family, address in places)
        return
    # With no host, one IPv6 socket takes both families, where the machine has IPv6.
    try:
        sockets.append(make(socket.AF_INET6, ("::", int(port or 0)), both=True))
    except OSError as cause:
        if cause.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        sockets.append(make(socket.AF_INET, ("", int(port or 0))))


def _at(
    family: int, address: tuple[object, ...], *, both: bool = False, frugal: bool, shared: bool
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
        # What is accepted inherits these.
        for option, value in (*KEEPALIVE, *(((TCP_NOTSENT_LOWAT, UNSENT),) if frugal else ())):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        return _listening(sock, address)
    except BaseException:
        sock.close()
        raise


def _at_path(path: str) -> socket.socket:
    """A socket at the path. One that nobody answers at is what a killed process left, and is replaced."""
    if Path(path).is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == errno.ECONNREFUSED:
                Path(path).unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        return _listening(sock, path)
    except BaseException:
        sock.close()
        raise


def _listening(sock: socket.socket, address: tuple[object, ...] | str) -> socket.socket:
    sock.settimeout(0)
    sock.bind(address)
    sock.listen(BACKLOG)
    return sock


async def prove_free(*addresses: str) -> None:
    """Nobody listens at these addresses. Raises ListenFailed.

    Where several processes share an address, another program of this user could share it too, unnoticed.
    """
    for addr in addresses:
        for sock in await listen(addr):
            sock.close()


def spelled(sock: socket.socket) -> str:
    """Where a socket listens: host:port, or its path."""
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return str(name)
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def _explain(addr: str, cause: OSError) -> str:
    if isinstance(cause, socket.gaierror):
        return f"cannot listen on {addr}: unknown host name: use an address of this machine"
    advice = {
        errno.EADDRINUSE: "another process has it: stop that one, or choose another address",
        errno.EACCES: "this user may not: choose a port above 1023, or a folder that it may write to",
        errno.EADDRNOTAVAIL: "this machine has no such address: choose another, or give the port alone",
        errno.ENOENT: "the folder of the socket does not exist: create it",
    }
    reason = cause.strerror or type(cause).__name__
    return f"cannot listen on {addr}: {reason}: {advice.get(cause.errno or 0, 'see the reason')}"
