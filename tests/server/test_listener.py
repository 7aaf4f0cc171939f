"""server.listener: who gets in."""

import errno
import os
import socket
from ipaddress import ip_network

import pytest

from msrcache.server import listener as module
from msrcache.server.listener import is_trusted, plain_address
from msrcache.server.settings import Limits, ServerSettings
from tests.server.test_proxyprotocol import version_2
from tests.stage.serving import serving, until

LOOPBACK = ip_network("127.0.0.0/8")


async def test_beyond_the_limit_is_refused_in_words() -> None:
    """The connection beyond the limit gets 503 with Retry-After at once and is counted; the others go on."""
    async with serving(ServerSettings(limits=Limits(connections=2))) as served:
        held = [await served.connect() for _ in range(2)]
        assert [(await client.ask("/v2/")).status for client in held] == [200, 200]
        refused = await (await served.connect()).reply()
        assert (refused.status, refused["Retry-After"], refused["Connection"]) == (503, "5", "close")
        assert b'"UNAVAILABLE"' in refused.body
        assert served.count("connections_refused_total", reason="connections") == 1
        assert served.count("connections") == 2
        await held[0].close()
        await until(lambda: served.count("connections") == 1)
        assert (await (await served.connect()).ask("/v2/")).status == 200


async def test_one_address_cannot_take_all() -> None:
    """The limit per address counts the address behind the PROXY header."""
    settings = ServerSettings(trusted=(LOOPBACK,), proxy_protocol=True, limits=Limits(per_address=1))
    async with serving(settings) as served:
        statuses = []
        for source in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            client = await served.connect()
            await client.send(version_2(source, 1) + b"GET /v2/ HTTP/1.1\r\nHost: cache.test\r\n\r\n")
            statuses.append((await client.reply()).status)
        assert statuses == [200, 503, 200]
        assert served.count("connections_refused_total", reason="per_address") == 1


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", version_2("192.0.2.7", 1)]
)
async def test_the_proxy_protocol_names_the_client(header: bytes) -> None:
    """Version 1 and 2, the request right behind: the caller and the log have the client's address."""
    async with serving(ServerSettings(trusted=(LOOPBACK,), proxy_protocol=True)) as served:
        client = await served.connect()
        await client.send(header + b"GET /v2/ HTTP/1.1\r\nHost: cache.test\r\n\r\n")
        assert (await client.reply()).status == 200
        assert served.gate.callers[0].address == served.records.kept[0].address == "192.0.2.7"


async def test_without_its_header_a_trusted_peer_is_closed() -> None:
    """A peer that must speak the PROXY protocol and does not is closed without an answer, and counted."""
    async with serving(ServerSettings(trusted=(LOOPBACK,), proxy_protocol=True)) as served:
        client = await served.connect()
        await client.send("GET /v2/ HTTP/1.1\r\nHost: cache.test\r\n\r\n")
        assert await client.rest() == b""
        assert served.count("connections_refused_total", reason="proxy_header") == 1


async def test_a_proxy_header_that_never_comes_is_given_up() -> None:
    """A slow PROXY header ends after the time for headers."""
    limits = Limits(header_timeout=0.05)
    async with serving(ServerSettings(trusted=(LOOPBACK,), proxy_protocol=True, limits=limits)) as served:
        client = await served.connect()
        await client.send("PROXY ")
        assert await client.rest() == b""
        assert served.count("connections_refused_total", reason="proxy_header") == 1


async def test_a_stranger_cannot_name_another() -> None:
    """From an address that is not trusted a PROXY header is no HTTP, and is refused as such."""
    async with serving(ServerSettings(trusted=(ip_network("10.0.0.0/8"),), proxy_protocol=True)) as served:
        client = await served.connect()
        await client.send(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET /v2/ HTTP/1.1\r\n\r\n")
        assert (await client.reply()).status == 400
        assert served.gate.callers == []


async def test_a_famine_of_descriptors_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE pauses accepting instead of spinning; the client that waited is then served."""
    monkeypatch.setattr(module, "PAUSE", 0.02)
    accept, famines = socket.socket.accept, [errno.EMFILE, errno.ENFILE, errno.ENOBUFS]

    def starving(listening: socket.socket) -> tuple[socket.socket, object]:
        if famines:
            cause = famines.pop()
            raise OSError(cause, os.strerror(cause))
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", starving)
    async with serving() as served:
        assert (await (await served.connect()).ask("/v2/")).status == 200
        assert served.count("connections_refused_total", reason="descriptors") == 3


def test_addresses_as_compared() -> None:
    """IPv4 in IPv6 is IPv4, scopes go, networks decide; a unix peer is trusted, a name never."""
    assert plain_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain_address("fe80::1%eth0") == "fe80::1"
    assert is_trusted("127.0.0.1", (LOOPBACK,))
    assert not is_trusted("192.0.2.1", (LOOPBACK,))
    assert not is_trusted("127.0.0.1", ())
    assert not is_trusted("name", (LOOPBACK,))
    assert is_trusted("", ())
