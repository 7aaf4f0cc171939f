"""The PROXY protocol, versions 1 and 2: a load balancer's word, before anything else, on who is calling.

`parse_v1` and `parse_v2` are pure; `read` takes exactly the header from a socket and not one byte of what
follows, because what follows may be a TLS handshake. Whether a peer is believed at all is decided by the
listener.
"""

import asyncio
import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_V1: Final = 107
LONGEST_V2: Final = 4096
"""Addresses and TLVs of a version 2 header; a TLV with a client certificate is about 2 KiB."""


class ProxyProtocolError(Exception):
    """What came is no PROXY header; the message says what was wrong, never what was sent."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who is behind the load balancer. None in its place: the balancer itself, or a kind unknown."""

    address: str
    port: int


def _source(family: int, address: str, port: str) -> Source:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise ProxyProtocolError("the PROXY header holds no valid address") from None
    if parsed.version != family or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ProxyProtocolError("the PROXY header holds no valid address and port")
    return Source(str(parsed), int(port))


def parse_v1(line: bytes) -> Source | None:
    """The source that a version 1 line names (with its CR LF); None for UNKNOWN."""
    if not line.endswith(b"\r\n") or len(line) > LONGEST_V1:
        raise ProxyProtocolError("the connection does not begin with a PROXY header")
    try:
        words = line[:-2].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyProtocolError("the PROXY header is not ASCII") from None
    match words:
        case ["PROXY", "UNKNOWN", *_]:
            return None
        case ["PROXY", "TCP4", source, _, port, _]:
            return _source(4, source, port)
        case ["PROXY", "TCP6", source, _, port, _]:
            return _source(6, source, port)
    raise ProxyProtocolError("the connection does not begin with a PROXY header")


def parse_v2(head: bytes, body: bytes) -> Source | None:
    """The source that a version 2 header names; None for LOCAL and for kinds without an IP address."""
    version_command, family = head[12], head[13]
    if head[:12] != SIGNATURE or version_command >> 4 != 2 or version_command & 15 > 1:
        raise ProxyProtocolError("the PROXY header is of no known version or command")
    if version_command & 15 == 0:
        return None
    width = {0x11: 4, 0x21: 16}.get(family)
    if width is None:
        return None
    if len(body) < 2 * width + 4:
        raise ProxyProtocolError("the PROXY header is too short for its addresses")
    (port,) = struct.unpack_from("!H", body, 2 * width)
    return Source(str(ipaddress.ip_address(body[:width])), port)


async def _exactly(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    found = b""
    while len(found) < size:
        data = await loop.sock_recv(sock, size - len(found))
        if not data:
            raise ProxyProtocolError("the connection ended before its PROXY header did")
        found += data
    return found


async def _line(sock: socket.socket, begun: bytes) -> bytes:
    """The rest of a version 1 line: looked at before it is taken, so that nothing behind it is."""
    found = begun
    while not found.endswith(b"\r\n"):
        if len(found) >= LONGEST_V1:
            raise ProxyProtocolError("the connection does not begin with a PROXY header")
        try:
            seen = sock.recv(LONGEST_V1 - len(found), socket.MSG_PEEK)
        except BlockingIOError:
            seen = b""
        end = seen.find(b"\n")
        found += await _exactly(sock, end + 1 if end >= 0 else max(len(seen), 1))
        if found.endswith(b"\n") and not found.endswith(b"\r\n"):
            break
    return found


async def read(sock: socket.socket) -> Source | None:
    """Take the PROXY header off a non-blocking socket. The caller sets the deadline."""
    begun = await _exactly(sock, len(SIGNATURE))
    if begun != SIGNATURE:
        if not begun.startswith(b"PROXY "):
            raise ProxyProtocolError("the connection does not begin with a PROXY header")
        return parse_v1(await _line(sock, begun))
    head = begun + await _exactly(sock, 4)
    (length,) = struct.unpack_from("!H", head, 14)
    if length > LONGEST_V2:
        raise ProxyProtocolError("the PROXY header is too long")
    return parse_v2(head, await _exactly(sock, length))
