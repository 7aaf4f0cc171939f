"""TLS between replicas: who has a certificate of the fleet's authority is one of them."""

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest

from msrcache.sockets.mutual import MutualTls, MutualTlsProblem
from tests.stage.certificates import Authority, authority


def replica(fleet: Authority, label: str) -> MutualTls:
    """A replica with a certificate for a name that nobody has."""
    pair = fleet.issue(label, "nowhere.example.com")
    return MutualTls(str(pair.certificate), str(pair.key), [str(fleet.bundle)], named="cache.peer.tls")


async def met(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """Whether a byte comes through."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(await reader.read(1))
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            writer.write(b"!")
            met = await reader.read(1) == b"!"
            writer.close()
            return met
    except OSError:
        return False
    finally:
        listening.close()


async def test_replicas_of_one_authority_meet(tmp_path: Path) -> None:
    """Whatever names stand in their certificates."""
    fleet = authority(tmp_path / "fleet")
    one, other = replica(fleet, "one"), replica(fleet, "other")
    await one.load()
    await other.load()
    assert await met(one.current, other.client)


async def test_strangers_do_not(tmp_path: Path) -> None:
    """Not as a server, not as a client, and not without a certificate."""
    one = replica(authority(tmp_path / "fleet"), "one")
    stranger = replica(authority(tmp_path / "others"), "stranger")
    await one.load()
    await stranger.load()
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    assert not await met(one.current, stranger.client)
    assert not await met(stranger.current, one.client)
    assert not await met(one.current, nobody)


async def test_files_that_do_not_load_are_named(tmp_path: Path) -> None:
    """And what was loaded before stays."""
    fleet = authority(tmp_path / "fleet")
    tls = replica(fleet, "one")
    with pytest.raises(MutualTlsProblem, match="has not been loaded"):
        _ = tls.current
    await tls.load()
    before = tls.current
    (tmp_path / "fleet" / "one.key").write_text("no key")
    with pytest.raises(MutualTlsProblem, match=r"cache\.peer\.tls: .*one\.pem and .*one\.key do not load"):
        await tls.load()
    assert tls.current is before
    fleet.bundle.unlink()
    with pytest.raises(MutualTlsProblem, match=r"cache\.peer\.tls\.ca: cannot load .*test-ca\.pem"):
        await tls.load()


async def test_other_files_are_taken(tmp_path: Path) -> None:
    """A certificate that was renewed is shown from then on."""
    fleet = authority(tmp_path / "fleet")
    tls = replica(fleet, "one")
    await tls.load()
    before = tls.current
    replica(fleet, "one")
    await tls.load()
    assert tls.current is not before
