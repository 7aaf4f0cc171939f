"""The address of this machine that other replicas are told: given by the operator, or found.

Found means: the host that the port listens on where it is a certain one, else the address of the interface that a
route goes out by (no packet is sent), else what the machine's own name stands for.
"""

import asyncio
import socket
from typing import Final

OUTSIDE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that nobody has (RFC 5737, RFC 3849): only the way to them is looked up."""
ANYWHERE: Final = frozenset({"", "0.0.0.0", "[::]", "::"})  # noqa: S104 - recognised, not listened on


async def advertised(listening: str, *, given: str = "", addr: str = "") -> str:
    """host:port for others; `listening` is where the port is bound, `addr` how the operator wrote that."""
    if given:
        return given
    port = listening.rpartition(":")[2]
    host = addr.rpartition(":")[0]
    if host in ANYWHERE:
        host = await asyncio.to_thread(own_address)
    return f"{host}:{port}"


def own_address() -> str:
    """An address of this machine as others may reach it, IPv6 in brackets. May ask a name server: not for the loop."""
    for family, target in OUTSIDE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((target, 9))
                return _bracketed(sock.getsockname()[0])
        except OSError:
            continue  # no such family here, or no route
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    return _bracketed(str(found[0][4][0])) if found else "127.0.0.1"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
