"""The peer port: who can't sign is told nothing, and who can gets a fill as it comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from msrcache.oci.digest import Digest
from msrcache.oci.errors import UpstreamUnavailable
from msrcache.oci.peers import NotFollowed, Sign
from msrcache.oci.signature import SALT, SIGNATURE, Said, content_of, said
from msrcache.server.binding import ListenFailed
from msrcache.server.peer import LARGEST, PeerAnswer, PeerPort, PeerRequest
from msrcache.server.settings import Limits, PeerSettings, ServerSettings
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics
from tests.stage.clock import FakeClock
from tests.stage.following import KIND, NONCE, SECRET, Fleet, fleet
from tests.stage.process import until
from tests.stage.serving import RawClient, Reply

DATA = bytes(range(256)) * 40
DIGEST = Digest.of(DATA)
QUICK = PeerSettings(served=ServerSettings(limits=Limits(header_timeout=0.2, path=256, headers=4096)))


@asynccontextmanager
async def client(port: PeerPort) -> AsyncIterator[RawClient]:
    """A connection to the port."""
    host, _, number = port.address.rpartition(":")
    connected = RawClient(*await asyncio.open_connection(host, int(number)))
    try:
        yield connected
    finally:
        await connected.close()


def asked(name: object = DIGEST, *, nonce: str = NONCE, span: str = "bytes=0-") -> Said:
    """A request for a fill, not sent yet."""
    return said("GET", f"/peer/v1/fills/{name}?nonce={nonce}", span=span)


def spelled(what: Said, secret: bytes = SECRET, **more: str) -> str:
    """Its header lines."""
    return "".join(f"{name}: {value}\r\n" for name, value in (what.headers(secret) | more).items())


async def send(port: PeerPort, what: Said, headers: str | None = None, body: bytes = b"") -> Reply:
    """One request on a connection of its own."""
    async with client(port) as connected:
        lines = spelled(what) if headers is None else headers
        if body:
            lines += f"Content-Length: {len(body)}\r\n"
        head = f"{what.method} {what.target} HTTP/1.1\r\nHost: peer\r\n{lines}\r\n"
        await connected.send(head.encode() + body)
        return await connected.reply()


async def test_a_fill_from_any_byte(tmp_path: Path) -> None:
    """206 with the total size and the media type, and exactly the rest."""
    async with fleet(tmp_path) as staged:
        _, growing = staged.fills.fill(DATA)
        growing.complete()
        for start in (0, 1, 5000, len(DATA) - 1):
            reply = await send(staged.port, asked(span=f"bytes={start}-"))
            assert (reply.status, reply.body) == (206, DATA[start:])
            assert reply["Content-Range"] == f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
            assert reply["Content-Type"] == KIND
        assert staged.count("peer_requests_total", kind="fills", status="206") == 4
        rests = len(DATA) + len(DATA) - 1 + len(DATA) - 5000 + 1
        assert staged.count("peer_bytes_total", direction="sent") == rests


async def test_nothing_is_left_from_there_on(tmp_path: Path) -> None:
    """416 tells the size, of an empty blob too."""
    async with fleet(tmp_path) as staged:
        staged.fills.fill(DATA)[1].complete()
        staged.fills.fill(b"")[1].complete()
        reply = await send(staged.port, asked(span=f"bytes={len(DATA)}-"))
        assert (reply.status, reply["Content-Range"]) == (416, f"bytes */{len(DATA)}")
        reply = await send(staged.port, asked(Digest.of(b"")))
        assert (reply.status, reply["Content-Range"]) == (416, "bytes */0")


async def test_headers_come_before_any_byte_and_the_last_byte_after_the_proof(tmp_path: Path) -> None:
    """The follower's clients must not wait for a header; a corrupt body must not look whole."""
    async with fleet(tmp_path) as staged, client(staged.port) as follower:
        _, growing = staged.fills.fill(DATA)
        what = asked()
        await follower.send(f"GET {what.target} HTTP/1.1\r\nHost: peer\r\n{spelled(what)}\r\n")
        status, headers = await follower.heading()
        assert (status, headers["content-length"]) == (206, [str(len(DATA))])
        growing.grow(100)
        assert await follower.reader.readexactly(100) == DATA[:100]
        growing.grow(len(DATA))
        assert await follower.reader.readexactly(len(DATA) - 101) == DATA[100:-1]
        growing.tail.verify()
        assert await follower.reader.readexactly(1) == DATA[-1:]


async def test_a_failed_fill_cuts(tmp_path: Path) -> None:
    """The connection ends short of what was promised."""
    async with fleet(tmp_path) as staged, client(staged.port) as follower:
        _, growing = staged.fills.fill(DATA)
        what = asked()
        await follower.send(f"GET {what.target} HTTP/1.1\r\nHost: peer\r\n{spelled(what)}\r\n")
        await follower.heading()
        growing.grow(len(DATA))
        assert await follower.reader.readexactly(10) == DATA[:10]
        growing.tail.end(UpstreamUnavailable("gone", retry_after=None))
        assert len(await follower.rest()) < len(DATA) - 10


async def test_signs(tmp_path: Path) -> None:
    """410 for a nonce of another process, 404 where there is no fill, 502 for whatever else: no reason goes out."""
    async with fleet(tmp_path) as staged:
        assert (await send(staged.port, asked(nonce="another"))).status == 410
        reply = await send(staged.port, asked())
        assert (reply.status, reply.body) == (404, b"")
        for failure in (
            UpstreamUnavailable("the upstream is away", retry_after=None),
            NotFollowed(Sign.BROKEN, "why"),
        ):
            staged.fills.failure = failure
            reply = await send(staged.port, asked())
            assert (reply.status, reply.body) == (502, b"")
        staged.fills.failure = RuntimeError("a bug")
        assert (await send(staged.port, asked())).status == 500


async def test_before_it_serves_every_nonce_is_of_a_process_before_it(tmp_path: Path) -> None:
    """The port is open before the first lease is written."""
    port = PeerPort(PeerSettings(), secret=SECRET, metrics=Metrics(), clock=SystemClock())
    await port.open()
    try:
        assert (await send(port, asked())).status == 410
    finally:
        await port.close()


@pytest.mark.parametrize("nonce", [NONCE, "another"])
async def test_strangers_learn_nothing(tmp_path: Path, nonce: str) -> None:
    """403 and no more, the same whether there is such a fill or not; and the fills are not asked."""
    async with fleet(tmp_path) as staged:
        staged.fills.fill(DATA)[1].complete()
        what = asked(nonce=nonce)
        replies = [
            await send(staged.port, what, ""),
            await send(staged.port, what, spelled(what, b"another secret")),
            await send(staged.port, said("GET", "/"), ""),
            await send(staged.port, said("GET", "/v2/"), ""),
            await send(staged.port, said("GET", "/metrics")),
            await send(staged.port, what, f"{SALT}: {what.salt}\r\n{SIGNATURE}: \xff\r\n"),
        ]
        told = [sorted(set(reply.headers) - {"date"}) for reply in replies]
        assert [reply.status for reply in replies] == [403] * 6
        assert {reply.body for reply in replies} == {b""}
        assert all(names == ["connection", "content-length"] for names in told)
        assert staged.fills.asked == []
        assert staged.count("peer_requests_total", kind="none", status="403") == 6


async def test_each_part_of_a_request_is_protected(tmp_path: Path) -> None:
    """What was signed for one request serves no other."""
    async with fleet(tmp_path) as staged:
        staged.fills.fill(DATA)[1].complete()
        staged.fills.fill(b"other")[1].complete()
        what = asked()
        headers = spelled(what)
        other = asked(Digest.of(b"other"))
        tampered = [
            (replace(what, method="POST"), headers),
            (other, headers),
            (replace(what, target=what.target + "&more=1"), headers),
            (what, headers.replace("bytes=0-", "bytes=1-")),
            (what, headers.replace("Range: bytes=0-\r\n", "")),
            (what, headers + "Range: bytes=0-\r\n"),
            (what, headers.replace(what.salt, other.salt)),
            (what, headers.replace(what.content, content_of(b"!"))),
            (what, headers + f"{SALT}: {other.salt}\r\n"),
        ]
        for changed, lines in tampered:
            assert (await send(staged.port, changed, lines)).status == 403
        assert staged.fills.asked == []
        assert (await send(staged.port, what, headers)).status == 206


async def test_a_request_said_again_is_refused(tmp_path: Path) -> None:
    """While the first is still being answered too, and after it; a new salt is a new request."""
    async with fleet(tmp_path) as staged, client(staged.port) as follower:
        _, growing = staged.fills.fill(DATA)
        what = asked()
        await follower.send(f"GET {what.target} HTTP/1.1\r\nHost: peer\r\n{spelled(what)}\r\n")
        await follower.heading()
        assert (await send(staged.port, what)).status == 403
        growing.complete()
        assert await follower.reader.readexactly(len(DATA)) == DATA
        assert (await send(staged.port, what)).status == 403
        assert (await send(staged.port, asked())).status == 206


async def test_no_clock_is_asked(tmp_path: Path) -> None:
    """A holder whose clock is an hour off, either way, and set in between, serves as any other."""
    clock = FakeClock()
    async with fleet(tmp_path, clock=clock) as staged:
        staged.fills.fill(DATA)[1].complete()
        for seconds in (3600.0, -7200.0):
            clock.jump(seconds)
            assert (await send(staged.port, asked())).status == 206


@pytest.mark.parametrize(
    ("what", "status"),
    [
        (asked("sha256:short"), 400),
        (asked(span="bytes=0-9"), 400),
        (asked(span="bytes=-9"), 400),
        (asked(span=""), 400),
        (said("GET", "/peer/v1/unknown/x"), 404),
        (said("DELETE", "/peer/v1/fills/x"), 404),
        (said("GET", "/v2/"), 403),
    ],
)
async def test_what_nobody_asks(tmp_path: Path, what: Said, status: int) -> None:
    """Signed, and still nothing that is answered."""
    async with fleet(tmp_path) as staged:
        assert (await send(staged.port, what)).status == status


async def test_limits(tmp_path: Path) -> None:
    """Long paths, large headers, slow headers: refused as on the main listener."""
    async with fleet(tmp_path, settings=QUICK) as staged:
        assert (await send(staged.port, said("GET", f"/peer/v1/fills/{'x' * 300}"))).status == 403
        what = asked()
        assert (await send(staged.port, what, spelled(what, More="x" * 5000))).status == 431
        async with client(staged.port) as slow:
            await slow.send("GET / HTTP/1.1\r\n")
            assert (await slow.reply()).status == 408


async def test_connections_are_bounded(tmp_path: Path) -> None:
    """One too many is told to come again."""
    async with fleet(tmp_path, settings=PeerSettings(connections=2)) as staged:
        async with client(staged.port) as one, client(staged.port) as two:
            for held in (one, two):
                await held.send("GET / HTTP/1.1\r\n")
            await until_crowded(staged)
        await served_again(staged)


async def until_crowded(staged: Fleet) -> None:
    """Returns when a further connection finds no place."""

    async def crowded() -> bool:
        async with client(staged.port) as third:
            await third.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return (await third.reply()).status == 503

    await until(crowded, what="no place to be left")


async def served_again(staged: Fleet) -> None:
    """Returns when there is a place again."""

    async def free() -> bool:
        return (await send(staged.port, asked())).status == 404

    await until(free, what="a place")


async def test_other_questions(tmp_path: Path) -> None:
    """Handlers get what stands behind the kind, the query and the body; their requests are good once too."""
    heard: list[PeerRequest] = []

    async def beat(request: PeerRequest) -> PeerAnswer:
        heard.append(request)
        return PeerAnswer(200, b'{"seen":1}')

    async with fleet(tmp_path) as staged:
        staged.port.add("POST", "beats", beat)
        body = b'{"beat":7}'
        what = said("POST", "/peer/v1/beats/replica-2?for=a%20b", body=body)
        reply = await send(staged.port, what, body=body)
        assert (reply.status, reply.body) == (200, b'{"seen":1}')
        assert heard == [PeerRequest(name="replica-2", query={"for": "a b"}, body=body)]
        assert (await send(staged.port, what, body=body)).status == 403
        assert staged.count("peer_requests_total", kind="beats", status="200") == 1
        assert (await send(staged.port, said("GET", "/peer/v1/beats/x"))).status == 404


async def test_a_body_is_signed_and_bounded(tmp_path: Path) -> None:
    """Another body, none, or too much of it: the handler does not hear of it."""

    async def never(request: PeerRequest) -> PeerAnswer:
        raise AssertionError(request)

    async with fleet(tmp_path) as staged:
        staged.port.add("POST", "beats", never)
        what = said("POST", "/peer/v1/beats/", body=b"right")
        assert (await send(staged.port, what, body=b"wrong")).status == 403
        assert (await send(staged.port, what)).status == 403
        large = said("POST", "/peer/v1/beats/", body=bytes(LARGEST + 1))
        assert (await send(staged.port, large, body=bytes(LARGEST + 1))).status == 413
    async with fleet(tmp_path, settings=QUICK) as staged:
        staged.port.add("POST", "beats", never)
        slow = spelled(what) + "Content-Length: 5\r\n"
        assert (await send(staged.port, what, slow)).status == 408


async def test_a_wrong_secret_is_told_once_a_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator is told what to compare; a stranger without any signature is not remarked on."""
    clock = FakeClock()
    async with fleet(tmp_path, clock=clock) as staged:
        what = asked()
        await send(staged.port, what, "")
        for seconds in (0.0, 1.0, 61.0):
            clock.advance(seconds)
            await send(staged.port, what, spelled(what, b"another secret"))
    said_so = capsys.readouterr()
    assert (said_so.out + said_so.err).count("http.secret must be the same on all replicas") == 2


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """One that was asked for must be had; else any other does, and is told."""
    async with fleet(tmp_path) as staged:
        taken = PeerSettings(addr=staged.port.address)
        port = PeerPort(taken, secret=SECRET, metrics=Metrics(), clock=SystemClock())
        with pytest.raises(ListenFailed, match="another process has it"):
            await port.open()
        await port.close()
        taken = replace(taken, elsewhere=True)
        port = PeerPort(taken, secret=SECRET, metrics=Metrics(), clock=SystemClock())
        await port.open()
        assert port.address.rpartition(":")[2] not in ("0", staged.port.address.rpartition(":")[2])
        await port.close()
        assert port.address == ""


async def test_closing_cuts_and_silence_waits(tmp_path: Path) -> None:
    """Who follows is let end where there is time, else cut: a follower goes on elsewhere."""
    async with fleet(tmp_path) as staged, client(staged.port) as one, client(staged.port) as other:
        _, growing = staged.fills.fill(DATA)
        _, endless = staged.fills.fill(DATA + b"!")
        await staged.port.silence()
        for follower, what in ((one, asked()), (other, asked(Digest.of(endless.data)))):
            await follower.send(f"GET {what.target} HTTP/1.1\r\nHost: peer\r\n{spelled(what)}\r\n")
            await follower.heading()
        waiting = asyncio.create_task(staged.port.silence())
        growing.complete()
        assert await one.reader.readexactly(len(DATA)) == DATA
        assert not waiting.done()
        await staged.port.close()
        await waiting
        assert await other.rest() == b""


@pytest.mark.parametrize(
    "said_so",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT other:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://other/peer/v1/fills/x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /peer/v1/fills/%0a%00%ff?nonce=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /peer/v1/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET //peer/v1/fills/x HTTP/1.0\r\n\r\n",
        b"POST /peer/v1/leases/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        b"POST /peer/v1/leases/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Msrcache-Signature: " + b"\xe9" * 64 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ],
)
async def test_whatever_a_stranger_says(
    tmp_path: Path, said_so: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused without a trace of a fault, and the port serves on."""
    async with fleet(tmp_path) as staged:
        async with client(staged.port) as stranger:
            await stranger.send(said_so)
            status, _ = await stranger.heading()
            assert status in (400, 403)
        staged.fills.fill(DATA)[1].complete()
        assert (await send(staged.port, asked())).body == DATA
        assert len(staged.fills.asked) == 1
    told = capsys.readouterr()
    assert "[error" not in told.out + told.err
