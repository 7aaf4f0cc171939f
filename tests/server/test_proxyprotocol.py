"""server.proxyprotocol: who is behind a load balancer."""

import asyncio
import socket
import struct
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.server.proxyprotocol import SIGNATURE, ProxyProtocolError, Source, parse_v1, parse_v2, read


def version_2(source: str, port: int, *, command: int = 1, extra: bytes = b"") -> bytes:
    """A version 2 header from that source."""
    address = ip_address(source).packed
    family = 0x11 if len(address) == 4 else 0x21
    body = address + address + struct.pack("!HH", port, 443) + extra
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(body)) + body


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", Source("192.0.2.7", 56324)),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n", Source("2001:db8::7", 1)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    ],
)
def test_version_1(line: bytes, source: Source | None) -> None:
    """The line names the source; UNKNOWN names none."""
    assert parse_v1(line) == source


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 99999 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 x 443\r\n",
        b"PROXY TCP4 \xff 198.51.100.1 1 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443",
        b"PROXY TCP4 " + b"1" * 200 + b"\r\n",
    ],
)
def test_what_is_no_version_1_line(line: bytes) -> None:
    """Anything else is refused, and the message does not repeat it."""
    with pytest.raises(ProxyProtocolError) as caught:
        parse_v1(line)
    assert "192.0.2.7" not in str(caught.value)


def test_version_2() -> None:
    """Both families, with extensions behind them; LOCAL and unknown families name nobody."""
    for address in ("192.0.2.7", "2001:db8::7"):
        header = version_2(address, 4711, extra=b"\x04\x00\x01x")
        assert parse_v2(header[:16], header[16:]) == Source(address, 4711)
    local = version_2("192.0.2.7", 1, command=0)
    assert parse_v2(local[:16], local[16:]) is None
    assert parse_v2(SIGNATURE + b"\x21\x31\x00\x00", b"") is None


@pytest.mark.parametrize(
    "head", [SIGNATURE + b"\x11\x11\x00\x00", SIGNATURE + b"\x22\x11\x00\x00", b"x" * 16]
)
def test_what_is_no_version_2_header(head: bytes) -> None:
    """Another version, an unknown command, another signature."""
    with pytest.raises(ProxyProtocolError):
        parse_v2(head, b"")


def test_version_2_without_room_for_its_addresses() -> None:
    """A body shorter than the family's addresses is refused."""
    with pytest.raises(ProxyProtocolError, match="too short"):
        parse_v2(SIGNATURE + b"\x21\x11\x00\x04", b"\x01\x02\x03\x04")


@given(st.binary(max_size=120))
def test_no_line_raises_anything_else(line: bytes) -> None:
    """Whatever comes: a source, nobody, or the documented error."""
    with suppress(ProxyProtocolError):
        parse_v1(line)


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=60))
def test_no_header_raises_anything_else(head: bytes, body: bytes) -> None:
    """Whatever comes: a source, nobody, or the documented error."""
    with suppress(ProxyProtocolError):
        parse_v2(SIGNATURE + head[12:], body)


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", version_2("192.0.2.7", 56324)]
)
@pytest.mark.parametrize("piece", [1, 5, 1000])
async def test_exactly_the_header_is_taken(header: bytes, piece: int) -> None:
    """In pieces of any size: the source is found, and what follows stays for the one who reads next."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        theirs.settimeout(0)
        task = asyncio.create_task(read(ours))
        stream = header + b"\x16\x03\x01follows"
        loop = asyncio.get_running_loop()
        for start in range(0, len(stream), piece):
            await loop.sock_sendall(theirs, stream[start : start + piece])
            await asyncio.sleep(0)
        assert await task == Source("192.0.2.7", 56324)
        assert await loop.sock_recv(ours, 100) == b"\x16\x03\x01follows"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"GET /v2/ HTTP/1.1\r\n", "does not begin"),
        (b"PROXY TCP4 " + b"1" * 120, "does not begin"),
        (b"PROXY TCP4 192.0.2.7 x\n", "does not begin"),
        (b"PROXY ", "ended before"),
        (SIGNATURE + b"\x21\x11\xff\xff", "too long"),
    ],
)
async def test_what_is_not_read(sent: bytes, words: str) -> None:
    """Other protocols, endless lines, early ends and oversized headers end in words."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(0)
        theirs.sendall(sent)
        theirs.close()
        with pytest.raises(ProxyProtocolError, match=words):
            await read(ours)
