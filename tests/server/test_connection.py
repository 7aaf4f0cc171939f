"""server.connection: what a stranger may send before it is a request."""

import asyncio

import pytest

from msrcache.server.settings import Limits, ServerSettings
from tests.stage.serving import Served, serving, until

SECRET = "dG9wLXNlY3JldA"


async def test_long_tokens_are_let_through(served: Served) -> None:
    """A header of 40 KiB is a real token of a user with many rights."""
    reply = await (await served.connect()).ask("/v2/", headers=f"Authorization: Bearer {SECRET * 3000}\r\n")
    assert reply.status == 200


@pytest.mark.parametrize("shape", ["one field", "many fields", "endless", "too many", "long path"])
async def test_header_bombs(served: Served, shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    """More than 64 KiB of headers end in a refusal in JSON that repeats nothing; other connections go on."""
    client = await served.connect()
    sent = {
        "one field": f"Authorization: Bearer {SECRET * 5000}\r\n\r\n",
        "many fields": "".join(f"X-{n}: {SECRET * 100}\r\n" for n in range(60)) + "\r\n",
        "endless": "".join(f"X-{n}: {SECRET * 300}\r\n" for n in range(20)),
        "too many": "".join(f"X-{n}: {SECRET}\r\n" for n in range(400)) + "\r\n",
        "long path": "\r\n",
    }[shape]
    target = "/v2/" + SECRET * 6000 if shape == "long path" else "/v2/"
    await client.send(f"GET {target} HTTP/1.1\r\nHost: cache.test\r\n{sent}")
    reply = await client.reply()
    assert reply.status == 431
    assert reply.body.startswith(b'{"errors":[{"code":"UNKNOWN"')
    assert reply["Connection"] == "close"
    assert SECRET.encode() not in reply.body
    assert SECRET not in "".join(capsys.readouterr())
    assert (await (await served.connect()).ask("/v2/")).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        "nonsense\r\n\r\n",
        f"GET /v2/ HTTP/1.1\r\nHost: a\r\nbad header {SECRET}\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET /v2/ HTTP/9.9\r\nHost: a\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_no_request(served: Served, sent: str, capsys: pytest.CaptureFixture[str]) -> None:
    """400 in the specification's JSON, one log line, no traceback, nothing repeated; the connection ends."""
    client = await served.connect()
    await client.send(sent.encode("latin-1"))
    reply = await client.reply()
    assert reply.status in (400, 413)
    assert reply.body.startswith(b'{"errors":[{"code":"UNKNOWN","message":"')
    assert await client.rest() == b""
    told = "".join(capsys.readouterr())
    assert "Traceback" not in told
    assert SECRET not in told
    assert SECRET.encode() not in reply.body


async def test_a_bomb_behind_a_request(served: Served) -> None:
    """Headers without end behind a request that is still being answered: that one is answered, and no more."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def before(_: object) -> None:
        asked.set()
        await go.wait()

    served.registry.before = before
    served.registry.hold_manifest("v1", b"{}")
    client = await served.connect()
    await client.send("GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: a\r\n\r\n")
    await asked.wait()
    await client.send("GET /v2/ HTTP/1.1\r\n" + "".join(f"X-{n}: {SECRET * 300}\r\n" for n in range(20)))
    await until(lambda: served.count("connections_refused_total", reason="headers") == 1)
    go.set()
    assert (await client.reply()).body == b"{}"
    assert await client.rest() == b""


async def test_many_requests_in_one_read_are_no_bomb(served: Served) -> None:
    """Limits are for one header block: a crowd of pipelined requests is served."""
    client = await served.connect()
    await client.send(f"GET /v2/ HTTP/1.1\r\nHost: a\r\nX-Token: {SECRET * 100}\r\n\r\n" * 100)
    assert {(await client.reply()).status for _ in range(100)} == {200}


async def test_slow_headers_are_cut_off() -> None:
    """A client that sends its headers byte by byte is answered 408 after the time for headers, and counted."""
    async with serving(ServerSettings(limits=Limits(header_timeout=0.1))) as served:
        client = await served.connect()
        await client.send("GET /v2/ HTTP/1.1\r\nHost: cache.test\r\nX-Slow: ")
        reply = await client.reply()
        assert (reply.status, await client.rest()) == (408, b"")
        assert served.count("connections_refused_total", reason="headers") == 1
        assert served.gate.callers == []


async def test_more_bytes_buy_no_more_time() -> None:
    """The time for headers runs from their first byte, however many follow."""
    async with serving(ServerSettings(limits=Limits(header_timeout=0.2))) as served:
        client = await served.connect()
        await client.send("GET /v2/ HTTP/1.1\r\n")
        answered = asyncio.create_task(client.reply())
        number = 0
        while not answered.done():
            number += 1
            client.writer.write(f"X-{number}: a\r\n".encode() if number < 200 else b"")
            await asyncio.sleep(0)
        assert (await answered).status == 408


async def test_idle_connections_end() -> None:
    """A connection without a request ends after the idle time, before its first and after its last one."""
    async with serving(ServerSettings(limits=Limits(idle=1.0))) as served:
        silent, served_once = await served.connect(), await served.connect()
        assert (await served_once.ask("/v2/")).status == 200
        assert await silent.rest() == await served_once.rest() == b""
        await until(lambda: served.count("connections") == 0)


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    """Requests sent without waiting get their answers one after the other."""
    digests = [served.registry.hold(bytes([number]) * 1000) for number in range(20)]
    client = await served.connect()
    await client.send("".join(f"GET /v2/a/blobs/{one} HTTP/1.1\r\nHost: a\r\n\r\n" for one in digests))
    assert [(await client.reply()).body[0] for _ in digests] == list(range(20))


async def test_a_half_closed_client_is_gone(served: Served) -> None:
    """After the client's end of sending its connection goes, with nothing left behind."""
    client = await served.connect()
    assert (await client.ask("/v2/")).status == 200
    client.writer.write_eof()
    assert await client.rest() == b""
    await until(lambda: served.count("connections") == 0)


async def test_bodies_are_refused_unread(served: Served) -> None:
    """A GET with a body: 413, and the body is not taken for the next request."""
    client = await served.connect()
    await client.send(
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: smuggled\r\n\r\n"
    )
    reply = await client.reply()
    assert (reply.status, reply["Connection"], await client.rest()) == (413, "close", b"")
    assert served.gate.callers == []


async def test_a_push_with_a_body_ends_its_connection(served: Served) -> None:
    """405 with Connection: close; the layer that was to be pushed is not read."""
    client = await served.connect()
    await client.send("PUT /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nxxx")
    reply = await client.reply()
    assert (reply.status, reply["Allow"], reply["Connection"]) == (405, "GET, HEAD", "close")
    assert await client.rest() == b""


async def test_http_1_0_without_keep_alive(served: Served) -> None:
    """A load balancer's HTTP/1.0 probe is answered and closed."""
    client = await served.connect()
    await client.send("GET / HTTP/1.0\r\n\r\n")
    reply = await client.reply()
    assert (reply.status, await client.rest()) == (200, b"")


async def test_an_upgrade_is_not_taken(served: Served) -> None:
    """h2c and websockets are offered by some clients; the answer is plain HTTP/1.1, and the next one too."""
    client = await served.connect()
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    assert (await client.ask("/v2/", headers=offer)).status == 200
    assert (await client.ask("/v2/")).status == 200
    assert (await client.ask("/v2/", headers="Connection: Upgrade\r\nUpgrade: websocket\r\n")).status == 200
