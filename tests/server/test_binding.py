"""server.binding: where the cache listens."""

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from msrcache.server.binding import TCP_NOTSENT_LOWAT, UNSENT, ListenFailed, listen, prove_free
from msrcache.server.settings import ServerSettings
from tests.stage.serving import RawClient, Served, serving


async def test_a_unix_socket(tmp_path: Path) -> None:
    """net: unix: served at the path, replaced when a dead process left it, removed at the end."""
    path = tmp_path / "cache.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with serving(ServerSettings(addr=str(path), net="unix")) as served:
        assert served.service.addresses == [str(path)]
        client = RawClient(*await asyncio.open_unix_connection(str(path)))
        served.clients.append(client)
        assert (await client.ask("/v2/", headers="X-Forwarded-For: 192.0.2.1\r\n")).status == 200
        assert served.gate.callers[0].address == "192.0.2.1"
        with pytest.raises(ListenFailed, match="another process has it"):
            async with serving(ServerSettings(addr=str(path), net="unix")):
                pass
    assert not path.exists()


async def test_a_taken_port_is_said_in_a_sentence(served: Served) -> None:
    """Address, reason and advice; nothing stays open."""
    with pytest.raises(ListenFailed, match=rf"127.0.0.1:{served.port}: .*: another process has it"):
        async with serving(ServerSettings(addr=f"127.0.0.1:{served.port}")):
            pass


@pytest.mark.parametrize(
    ("addr", "words"), [("no.such.host.invalid:1", "unknown host"), ("192.0.2.1:1", "choose")]
)
async def test_other_addresses_that_cannot_be(addr: str, words: str) -> None:
    """Unknown names and addresses of other machines."""
    with pytest.raises(ListenFailed, match=words):
        async with serving(ServerSettings(addr=addr)):
            pass


async def test_no_host_means_every_address() -> None:
    """`:0` is reached by IPv4 whether or not the machine has IPv6; the client is logged by its IPv4 address."""
    async with serving(ServerSettings(addr=":0")) as served:
        assert (await (await served.connect()).ask("/v2/")).status == 200
        assert served.gate.callers[0].address == "127.0.0.1"


async def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host and no IPv6: every address of IPv4."""
    bind = socket.socket.bind

    def refusing(sock: socket.socket, address: tuple[object, ...]) -> None:
        if sock.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "no IPv6")
        bind(sock, address)

    monkeypatch.setattr(socket.socket, "bind", refusing)
    (sock,) = await listen(":0")
    assert sock.getsockname()[0] == "0.0.0.0"
    sock.close()


async def test_under_tls_the_kernel_is_frugal() -> None:
    """What is accepted under TLS inherits the bound of unsent bytes; what is plain has none."""
    for frugal in (True, False):
        (sock,) = await listen("127.0.0.1:0", frugal=frugal)
        with sock, socket.create_connection(sock.getsockname()):
            accepted, _ = sock.accept()
            with accepted:
                found = accepted.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT)
                assert (found == UNSENT) is frugal


async def test_an_address_can_be_shared_and_is_then_not_free() -> None:
    """Two that share it both listen; one that would have it alone is refused, and so is the proof that it is free."""
    (first,) = await listen("127.0.0.1:0", shared=True)
    addr = f"127.0.0.1:{first.getsockname()[1]}"
    (second,) = await listen(addr, shared=True)
    for alone in (listen(addr), prove_free("127.0.0.1:0", addr)):
        with pytest.raises(ListenFailed, match="another process has it"):
            await alone
    first.close()
    second.close()
    await prove_free(addr)
