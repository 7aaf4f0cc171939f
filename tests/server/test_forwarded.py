"""server.forwarded: whose word is believed on who is calling."""

from ipaddress import ip_network

import pytest

from msrcache.server.settings import ServerSettings
from tests.stage.serving import Served, serving

LOOPBACK = ip_network("127.0.0.0/8")
TRUSTING = ServerSettings(trusted=(LOOPBACK, ip_network("10.0.0.0/8")))


async def test_a_stranger_speaks_for_nobody_else(served: Served) -> None:
    """From an address that is not trusted, none of these headers is believed."""
    client = await served.connect()
    spoken = (
        "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\n"
        "Forwarded: for=192.0.2.2;proto=https;host=evil.test\r\nX-Request-Id: mine\r\n"
    )
    reply = await client.ask("/v2/", headers=spoken)
    caller = served.gate.callers[0]
    assert (caller.address, caller.scheme, caller.host) == ("127.0.0.1", "http", "cache.test")
    assert reply["X-Request-Id"] == caller.request_id != "mine"
    assert served.records.kept[0].address == "127.0.0.1"


@pytest.mark.parametrize(
    ("headers", "address", "scheme", "host"),
    [
        ("", "127.0.0.1", "http", "cache.test"),
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1", "http", "cache.test"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.1.2.3\r\n", "192.0.2.1", "http", "cache.test"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1", "http", "cache.test"),
        ("X-Forwarded-For: 192.0.2.1, nonsense\r\n", "127.0.0.1", "http", "cache.test"),
        ("X-Forwarded-For: [2001:db8::1]:4711\r\n", "2001:db8::1", "http", "cache.test"),
        ("X-Forwarded-For: 192.0.2.1:4711\r\n", "192.0.2.1", "http", "cache.test"),
        ("X-Forwarded-For: 10.0.0.1\r\n", "10.0.0.1", "http", "cache.test"),
        ("X-Forwarded-Proto: HTTPS\r\nX-Forwarded-Host: a.test:443\r\n", "127.0.0.1", "https", "a.test:443"),
        ("X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a/../b\r\n", "127.0.0.1", "http", "cache.test"),
        (
            'Forwarded: for=6.6.6.6, for="[2001:db8::1]:80";proto=https;host=a.test\r\n',
            "2001:db8::1",
            "https",
            "a.test",
        ),
        ("Forwarded: for=_hidden\r\n", "127.0.0.1", "http", "cache.test"),
    ],
)
async def test_a_trusted_proxy_is_believed(headers: str, address: str, scheme: str, host: str) -> None:
    """The client is the last address of the chain that is not one of ours; nonsense ends the chain."""
    async with serving(TRUSTING) as served:
        await (await served.connect()).ask("/v2/", headers=headers)
        caller = served.gate.callers[0]
        assert (caller.address, caller.scheme, caller.host) == (address, scheme, host)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("req-1.a_b:c/d+e=f@g", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ('a"b', False)],
)
async def test_request_ids(given: str, kept: bool) -> None:  # noqa: FBT001 - pytest's parameter
    """A proxy's id is kept where it is well-formed, and replaced where it could forge a log line."""
    async with serving(TRUSTING) as served:
        reply = await (await served.connect()).ask("/v2/", headers=f"X-Request-Id: {given}\r\n")
        assert (reply["X-Request-Id"] == given) is kept
        assert served.records.kept[0].request_id == reply["X-Request-Id"]


async def test_ids_are_not_repeated(served: Served) -> None:
    """Each request has an id of its own, in the answer, the log and the error."""
    client = await served.connect()
    replies = [await client.ask("/v2/a/manifests/absent") for _ in range(3)]
    assert len({reply["X-Request-Id"] for reply in replies}) == 3
    assert all(reply["X-Request-Id"].encode() in reply.body for reply in replies)
