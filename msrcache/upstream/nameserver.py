"""A and AAAA records from name servers of the operator's choosing: RFC 1035 over UDP, over TCP where an
answer is cut.

A stub resolver, no more: it asks servers that do the searching themselves, in their order, each for two
seconds. It reads neither /etc/hosts nor /etc/resolv.conf and has no search list: names of upstreams are full
names.
"""

import asyncio
import ipaddress
import secrets
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_A, _AAAA, _IN = 1, 28, 1
_WAIT = 2.0  # seconds for one server's answer
_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_RECURSE, _ANSWER, _CUT, _CODE = 0x0100, 0x8000, 0x0200, 0x000F
_NO_SUCH_NAME = 3


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: addresses found, or why none."""

    addresses: tuple[str, ...]
    code: int
    cut: bool


def question(identity: int, host: str, kind: int) -> bytes:
    """The packet that asks for one kind of record. OSError for a name that can't be asked."""
    try:
        labels = host.rstrip(".").encode("idna").split(b".")
    except UnicodeError:
        raise OSError(None, f"{host} is no name of a host") from None
    if not all(0 < len(label) < 64 for label in labels):
        raise OSError(None, f"{host} is no name of a host")
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return _HEADER.pack(identity, _RECURSE, 1, 0, 0, 0) + name + struct.pack("!HH", kind, _IN)


def read_reply(asked: bytes, packet: bytes) -> Reply | None:
    """What a packet says to the question; None where it is no answer to it (late, or forged). Pure."""
    try:
        identity, flags, questions, answers, _, _ = _HEADER.unpack_from(packet)
        mine = asked[_HEADER.size :]
        ours = packet[_HEADER.size : _HEADER.size + len(mine)].lower() == mine.lower()
        if identity != int.from_bytes(asked[:2]) or not flags & _ANSWER or questions != 1 or not ours:
            return None
        found = tuple(_addresses(packet, _HEADER.size + len(mine), answers))
        return Reply(found, flags & _CODE, bool(flags & _CUT))
    except (struct.error, IndexError, ValueError):
        return None


def _addresses(packet: bytes, at: int, count: int) -> Iterator[str]:
    for _ in range(count):
        at = _past_name(packet, at)
        kind, _, _, length = _RECORD.unpack_from(packet, at)
        at += _RECORD.size
        data = packet[at : at + length]
        at += length
        if (kind, length) in {(_A, 4), (_AAAA, 16)}:
            yield str(ipaddress.ip_address(data))


def _past_name(packet: bytes, at: int) -> int:
    while (length := packet[at]) != 0:
        if length >= 0xC0:  # a pointer ends the name
            return at + 2
        at += 1 + length
    return at + 1


class _Listener(asyncio.DatagramProtocol):
    def __init__(self, asked: bytes, reply: asyncio.Future[Reply]) -> None:
        self._asked = asked
        self._reply = reply

    def datagram_received(self, data: bytes, addr: object) -> None:
        found = read_reply(self._asked, data)
        if found is not None and not self._reply.done():
            self._reply.set_result(found)

    def error_received(self, exc: Exception) -> None:
        if not self._reply.done():
            self._reply.set_exception(exc)


class NameServers:
    """Several servers (address, port), asked in their order until one answers."""

    def __init__(self, servers: Sequence[tuple[str, int]], *, wait: float = _WAIT) -> None:
        self._servers = tuple(servers)
        self._wait = wait

    async def addresses(self, host: str, family: socket.AddressFamily) -> list[str]:
        """All addresses of the family (AF_UNSPEC: both). OSError where there are none or nobody answers."""
        kinds = {socket.AF_INET: (_A,), socket.AF_INET6: (_AAAA,)}.get(family, (_A, _AAAA))
        replies = await asyncio.gather(*(self._ask(host, kind) for kind in kinds), return_exceptions=True)
        found = [text for reply in replies if isinstance(reply, tuple) for text in reply]
        failed = next((reply for reply in replies if isinstance(reply, BaseException)), None)
        if found:
            return found
        raise failed or OSError(None, f"{host} has no address")

    async def _ask(self, host: str, kind: int) -> tuple[str, ...]:
        why = "no answer"
        for server in self._servers:
            try:
                async with asyncio.timeout(self._wait):
                    reply = await self._exchange(server, question(secrets.randbits(16), host, kind))
            except TimeoutError:
                continue
            except OSError as error:
                why = error.strerror or str(error)
                continue
            if reply.code == _NO_SUCH_NAME:
                raise OSError(None, f"{host} does not exist, says the name server {server[0]}")
            if reply.code == 0:
                return reply.addresses
            why = f"code {reply.code}"
        raise OSError(None, f"no name server can tell the address of {host} ({why})")

    async def _exchange(self, server: tuple[str, int], asked: bytes) -> Reply:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Listener(asked, reply), remote_addr=server
        )
        try:
            transport.sendto(asked)
            found = await reply
        finally:
            transport.close()
        return await _by_tcp(server, asked) if found.cut else found


async def _by_tcp(server: tuple[str, int], asked: bytes) -> Reply:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(asked).to_bytes(2) + asked)
        size = int.from_bytes(await reader.readexactly(2))
        found = read_reply(asked, await reader.readexactly(size))
    except asyncio.IncompleteReadError:
        raise OSError(None, "the name server hung up") from None
    finally:
        writer.close()
    if found is None:
        raise OSError(None, "the name server's answer can't be read")
    return found
