"""The operator's name servers: asked in their order, by UDP and by TCP, and not fooled by stray packets."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.upstream.nameserver import NameServers, question, read_reply
from tests.upstream.played import Say, blob_pull, played, upstream

A, AAAA = 1, 28
HOST = "msr.example.com"


def reply(
    asked: bytes, *addresses: str, code: int = 0, cut: bool = False, identity: int | None = None
) -> bytes:
    """A server's packet: an alias first, as many real answers begin, then the addresses."""
    number = int.from_bytes(asked[:2]) if identity is None else identity
    alias = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 2) + b"\xc0\x0c"
    records = alias + b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", AAAA if ":" in a else A, 1, 60, len(data)) + data
        for a in addresses
        if (data := socket.inet_pton(socket.AF_INET6 if ":" in a else socket.AF_INET, a))
    )
    flags = 0x8180 | code | (0x0200 if cut else 0)
    return struct.pack("!HHHHHH", number, flags, 1, 1 + len(addresses), 0, 0) + asked[12:] + records


def kind_of(asked: bytes) -> int:
    """A or AAAA."""
    return int.from_bytes(asked[-4:-2])


Play = Callable[[bytes], list[bytes]]


@dataclass(slots=True)
class Server(asyncio.DatagramProtocol):
    """A name server on loopback: answers by UDP, and the same port by TCP."""

    play: Play
    by_tcp: Play
    asked: list[bytes] = field(default_factory=list)
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        assert self.transport is not None
        for packet in self.play(data):
            self.transport.sendto(packet, addr)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question by TCP."""
        asked = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        for packet in self.by_tcp(asked):
            writer.write(len(packet).to_bytes(2) + packet)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def name_server(
    play: Play, by_tcp: Play = lambda _: []
) -> AsyncIterator[tuple[Server, tuple[str, int]]]:
    """A running one and its address."""
    server = Server(play, by_tcp)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    where = listener.sockets[0].getsockname()[:2]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, local_addr=where)
    try:
        async with listener:
            yield server, where
    finally:
        transport.close()


def both(asked: bytes) -> list[bytes]:
    """An address of each kind."""
    return [reply(asked, "2001:db8::7" if kind_of(asked) == AAAA else "10.9.8.7")]


async def test_both_families() -> None:
    """A and AAAA are asked for at once, or the one that is wanted."""
    async with name_server(both) as (server, where):
        names = NameServers([where])
        assert await names.addresses(HOST, socket.AF_UNSPEC) == ["10.9.8.7", "2001:db8::7"]
        assert await names.addresses(HOST, socket.AF_INET6) == ["2001:db8::7"]
        assert len(server.asked) == 3


async def test_one_family_is_enough() -> None:
    """A host without AAAA is reached by its A."""
    play: Play = lambda asked: [reply(asked)] if kind_of(asked) == AAAA else both(asked)  # noqa: E731
    async with name_server(play) as (_, where):
        assert await NameServers([where]).addresses(HOST, socket.AF_UNSPEC) == ["10.9.8.7"]


async def test_the_next_one_where_one_is_silent_or_ill() -> None:
    """In their order: no answer, SERVFAIL, then the one that knows."""
    async with (
        name_server(lambda _: []) as (silent, first),
        name_server(lambda asked: [reply(asked, code=2)]) as (ill, second),
        name_server(both) as (_, third),
    ):
        names = NameServers([first, second, third], wait=1.0)
        assert await names.addresses(HOST, socket.AF_INET) == ["10.9.8.7"]
        assert (len(silent.asked), len(ill.asked)) == (1, 1)


async def test_no_such_name_is_an_answer() -> None:
    """NXDOMAIN is final: nobody else is asked."""
    async with name_server(lambda a: [reply(a, code=3)]) as (_, first), name_server(both) as (other, second):
        with pytest.raises(OSError, match="does not exist"):
            await NameServers([first, second]).addresses(HOST, socket.AF_UNSPEC)
        assert other.asked == []


async def test_nobody_answers() -> None:
    """Why, in words."""
    async with name_server(lambda asked: [reply(asked, code=5)]) as (_, where):
        with pytest.raises(OSError, match=r"no name server can tell.*code 5"):
            await NameServers([where]).addresses(HOST, socket.AF_INET)
    with pytest.raises(OSError, match="no name server"):
        await NameServers([where], wait=0.05).addresses(HOST, socket.AF_INET)


async def test_a_name_without_addresses() -> None:
    """An empty answer is no address."""
    async with name_server(lambda asked: [reply(asked)]) as (_, where):
        with pytest.raises(OSError, match="has no address"):
            await NameServers([where]).addresses(HOST, socket.AF_INET)


async def test_a_cut_answer_is_asked_for_by_tcp() -> None:
    """Truncated by UDP, whole by TCP; a server that hangs up there is passed over."""
    many = [f"10.0.0.{n}" for n in range(1, 60)]
    async with name_server(lambda a: [reply(a, cut=True)], lambda a: [reply(a, *many)]) as (_, where):
        assert await NameServers([where]).addresses(HOST, socket.AF_INET) == many
    async with name_server(lambda a: [reply(a, cut=True)]) as (_, where):
        with pytest.raises(OSError, match="hung up"):
            await NameServers([where]).addresses(HOST, socket.AF_INET)


async def test_strangers_packets_are_passed_over() -> None:
    """Wrong number, wrong question, no answer at all: the right packet counts, though it comes last."""

    def play(asked: bytes) -> list[bytes]:
        other = question(int.from_bytes(asked[:2]), "evil.example.com", A)
        strange = int.from_bytes(asked[:2]) ^ 1
        return [
            b"",
            b"\0",
            asked,
            reply(asked, "6.6.6.6", identity=strange),
            reply(other, "6.6.6.6"),
            *both(asked),
        ]

    async with name_server(play) as (_, where):
        assert await NameServers([where]).addresses(HOST, socket.AF_INET) == ["10.9.8.7"]


@pytest.mark.parametrize("host", ["", "a..b", "x" * 64 + ".example", "." * 3])
def test_a_name_that_cannot_be_asked(host: str) -> None:
    """An OSError, as for any other name without an address."""
    with pytest.raises(OSError, match="no name of a host"):
        question(1, host, A)


@given(st.binary(max_size=200), st.booleans())
def test_any_packet_is_read_without_an_error(data: bytes, echo: bool) -> None:  # noqa: FBT001
    """Nonsense behind a right beginning, or from the first byte on."""
    asked = question(7, HOST, A)
    packet = struct.pack("!HHHHHH", 7, 0x8180, 1, 9, 0, 0) + asked[12:] + data if echo else data
    read_reply(asked, packet)


async def test_a_pull_by_the_operators_name_server() -> None:
    """The whole way: the name is unknown to the system, and known to the server that the settings name."""
    async with (
        name_server(lambda asked: [reply(asked, *(["127.0.0.1"] if kind_of(asked) == A else []))]) as (
            _,
            where,
        ),
        played(lambda _: Say(body=b"abc")) as registry,
        upstream(
            registry, url=f"http://{HOST}:{registry.port}", resolver=(f"{where[0]}:{where[1]}",)
        ) as client,
    ):
        assert (await client.resolve(blob_pull(b"abc"))).descriptor.size == 3
