"""Following over real sockets: every byte from k on, and what is seen where that does not go."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from msrcache.oci.digest import Digest
from msrcache.oci.errors import UpstreamUnavailable
from msrcache.oci.peers import Holder, NotFollowed, Sign
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Outcome
from msrcache.server.peer import PeerAnswer, PeerRequest
from msrcache.sockets.mutual import MutualTls
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.peers import PeerQuestion, Peers, PeerUnreached
from tests.stage.certificates import Authority, authority
from tests.stage.following import KIND, NONCE, SECRET, fleet, poured
from tests.stage.process import free_port

DATA = bytes(range(256)) * 1200
DIGEST = Digest.of(DATA)


async def sign_of(peers: Peers, holder: Holder, start: int = 0) -> Sign:
    """What following the holder came to; it must not go well."""
    with pytest.raises(NotFollowed) as caught:
        async with peers.follow(DIGEST, holder, start) as blob:
            await poured(blob)
    assert holder.address in str(caught.value)
    assert SECRET.decode() not in str(caught.value)
    return caught.value.sign


async def test_from_any_byte(tmp_path: Path) -> None:
    """The blob's size and type, and its rest from there on; from its end on there is nothing."""
    async with fleet(tmp_path) as staged:
        staged.fills.fill(DATA)[1].complete()
        for start in (0, 1, 4095, len(DATA) - 1, len(DATA)):
            async with staged.peers.follow(DIGEST, staged.holder, start) as blob:
                assert (blob.descriptor.media_type, blob.descriptor.size) == (KIND, len(DATA))
                assert (blob.span, blob.outcome) == (Span(start, len(DATA)), Outcome.FOLLOWED)
                assert await poured(blob) == DATA[start:]
        assert [(digest, holder.nonce) for digest, holder, _ in staged.fills.asked] == [(DIGEST, NONCE)] * 5
        assert staged.count("follows_total", ours=True, ending="complete") == 5
        received = staged.count("peer_bytes_total", ours=True, direction="received")
        assert received == staged.count("peer_bytes_total", direction="sent")


async def test_a_large_one(tmp_path: Path) -> None:
    """It is taken past the HTTP client, whole, and on the next connection too."""
    data = bytes(range(251)) * (17 << 12)
    async with fleet(tmp_path) as staged:
        staged.fills.fill(data)[1].complete()
        for start in (0, 1 << 20):
            assert await staged.taken(Digest.of(data), start) == data[start:]


async def test_an_empty_one(tmp_path: Path) -> None:
    """Nothing comes, and that is all of it."""
    async with fleet(tmp_path) as staged:
        digest, growing = staged.fills.fill(b"")
        growing.complete()
        assert await staged.taken(digest) == b""


async def test_a_slow_holder(tmp_path: Path) -> None:
    """Bytes come as they are written, one by one, and the last when it is verified."""
    data = b"slowly"
    async with fleet(tmp_path) as staged:
        digest, growing = staged.fills.fill(data)
        async with staged.peers.follow(digest, staged.holder, 0) as blob:
            assert isinstance(blob.body, AsyncIterator)
            for size in range(1, len(data)):
                growing.grow(size)
                assert bytes(await anext(blob.body)) == data[size - 1 : size]  # type: ignore[arg-type]
            last = asyncio.ensure_future(anext(blob.body))
            growing.grow(len(data))
            assert not last.done()
            growing.tail.verify()
            assert bytes(await last) == data[-1:]  # type: ignore[arg-type]


async def test_signs(tmp_path: Path) -> None:
    """Refused, replaced, no fill: and a wrong secret is none of these."""
    async with fleet(tmp_path) as staged:
        assert await sign_of(staged.peers, staged.holder) is Sign.NOFILL
        assert await sign_of(staged.peers, replace(staged.holder, nonce="another")) is Sign.REPLACED
        nobody = replace(staged.holder, address=f"127.0.0.1:{free_port()}")
        assert await sign_of(staged.peers, nobody) is Sign.UNREACHED
        named = replace(nobody, address=nobody.address.replace("127.0.0.1", "localhost"))
        assert await sign_of(staged.peers, named) is Sign.UNREACHED
        for address in ("no-such-host.invalid:1", "127.0.0.1:99999", "", "a b:1", "127.0.0.1:port"):
            assert await sign_of(staged.peers, replace(staged.holder, address=address)) is Sign.BROKEN
        for ending in ("nofill", "replaced", "broken"):
            assert staged.count("follows_total", ours=True, ending=ending) >= 1
        assert staged.count("follows_total", ours=True, ending="unreached") == 2


async def test_a_wrong_secret(tmp_path: Path) -> None:
    """Nothing is followed, and the error says what to compare."""
    async with fleet(tmp_path, secret=b"another") as staged:
        staged.fills.fill(DATA)[1].complete()
        with pytest.raises(NotFollowed, match=r"http\.secret the same on both") as caught:
            await staged.taken(DIGEST)
        assert caught.value.sign is Sign.BROKEN


async def test_a_fill_that_fails(tmp_path: Path) -> None:
    """What was read before is right; then it is broken."""
    async with fleet(tmp_path) as staged:
        _, growing = staged.fills.fill(DATA)
        growing.grow(len(DATA))
        async with staged.peers.follow(DIGEST, staged.holder, 0) as blob:
            assert isinstance(blob.body, AsyncIterator)
            first = await anext(blob.body)
            assert isinstance(first, bytes | memoryview)
            assert DATA.startswith(bytes(first))
            growing.tail.end(UpstreamUnavailable("gone", retry_after=None))
            with pytest.raises(NotFollowed) as caught:
                await poured(blob)
        assert caught.value.sign is Sign.BROKEN


@asynccontextmanager
async def played(answer: bytes, *, held: bool = False) -> AsyncIterator[Holder]:
    """A holder that says exactly this and closes; `held`: it says no more, and stays."""
    leaving = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if held:
            await leaving.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Holder("replica-1", NONCE, f"127.0.0.1:{port}")
    finally:
        leaving.set()
        server.close()


@asynccontextmanager
async def follower(**more: float) -> AsyncIterator[Peers]:
    """The following end alone."""
    peers = Peers(SECRET, metrics=Metrics(), clock=SystemClock(), **more)  # type: ignore[arg-type]
    try:
        yield peers
    finally:
        await peers.close()


def answered(*, status: str = "206 X", span: str, length: int, body: bytes = b"") -> bytes:
    """An answer as it stands on the wire."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {KIND}\r\nContent-Range: {span}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode() + body


async def until_broken(peers: Peers, holder: Holder, digest: Digest) -> tuple[bytes, Sign | None]:
    """What was given before it broke, and the sign."""
    found = bytearray()
    try:
        async with peers.follow(digest, holder, 0) as blob:
            assert isinstance(blob.body, AsyncIterator)
            async for piece in blob.body:
                assert isinstance(piece, bytes | memoryview)
                found += piece
    except NotFollowed as error:
        return bytes(found), error.sign
    return bytes(found), None


async def test_cut_at_any_byte() -> None:
    """Wherever the answer is cut, nothing beyond it is given, nothing of it is wrong, and the sign is BROKEN."""
    data = b"0123456789"
    whole = answered(span="bytes 0-9/10", length=10, body=data)
    async with follower() as peers:
        for cut in range(len(whole)):
            async with played(whole[:cut]) as holder:
                found, sign = await until_broken(peers, holder, Digest.of(data))
            assert sign is Sign.BROKEN
            assert data.startswith(found)
            assert len(found) <= max(0, cut - len(whole) + len(data))
        async with played(whole) as holder:
            assert await until_broken(peers, holder, Digest.of(data)) == (data, None)


@pytest.mark.parametrize(
    "answer",
    [
        answered(span="bytes 4-9/10", length=6, body=b"456789"),
        answered(span="bytes 5-8/10", length=4, body=b"5678"),
        answered(span="bytes 5-9/*", length=5, body=b"56789"),
        answered(span="bytes 5-9/10", length=4, body=b"5678"),
        answered(span="bytes 6-9/10", length=5, body=b"56789"),
        answered(span="nonsense", length=5, body=b"56789"),
        answered(status="200 OK", span="bytes 5-9/10", length=5, body=b"56789"),
        answered(status="416 X", span="bytes */4", length=0),
        answered(status="302 X", span="bytes 5-9/10", length=5, body=b"56789"),
        answered(status="503 X", span="", length=0),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 206 X\r\nContent-Range: bytes 5-9/10\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n56789\r\n0\r\n\r\n",
    ],
)
async def test_answers_to_another_question(answer: bytes) -> None:
    """A rest that begins or ends elsewhere, or that is no answer of ours: BROKEN, and no byte is taken."""
    async with follower() as peers, played(answer) as holder:
        with pytest.raises(NotFollowed) as caught:
            async with peers.follow(DIGEST, holder, 5):
                pytest.fail("it was followed")
        assert caught.value.sign is Sign.BROKEN


async def test_waiting_for_headers_ends_when_the_caller_says() -> None:
    """There is no time limit, and a cancellation lets the connection go."""
    async with follower() as peers, played(b"", held=True) as holder:

        async def wait() -> None:
            async with peers.follow(DIGEST, holder, 0):
                pytest.fail("there was an answer")

        waiting = asyncio.create_task(wait())
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_connecting_has_a_time_limit() -> None:
    """TLS included: a host that takes the connection and never shakes hands is BROKEN soon."""
    context = ssl.create_default_context()
    peers = Peers(SECRET, metrics=Metrics(), clock=SystemClock(), tls=lambda: context, connect_within=0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with asyncio.timeout(20):
            holder = Holder("replica-1", NONCE, f"127.0.0.1:{silent.getsockname()[1]}")
            assert await sign_of(peers, holder) is Sign.BROKEN
    await peers.close()


def mutual(issuer: Authority, label: str) -> MutualTls:
    """The TLS of a replica whose certificate names nobody."""
    pair = issuer.issue(label, "nobody.example.com")
    return MutualTls(str(pair.certificate), str(pair.key), [str(issuer.bundle)], named="cache.peer.tls")


async def test_over_tls_with_an_authority_of_its_own(tmp_path: Path) -> None:
    """Whole, small and large; and a replica of another authority, or without TLS, follows nobody."""
    tls, stranger = mutual(authority(tmp_path / "a"), "one"), mutual(authority(tmp_path / "b"), "two")
    await tls.load()
    await stranger.load()
    data = DATA * 60
    async with fleet(tmp_path, tls=tls) as staged:
        for content in (DATA, data):
            staged.fills.fill(content)[1].complete()
            assert await staged.taken(Digest.of(content)) == content
        for context in (lambda: stranger.client, None):
            other = Peers(SECRET, metrics=Metrics(), clock=SystemClock(), tls=context)
            assert await sign_of(other, staged.holder) is Sign.BROKEN
            await other.close()


async def test_many_followers_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred at once, each from its own byte, each gets all: from the file by sendfile, not through memory."""
    sent = 0
    sendfile = os.sendfile

    def counting(out: int, source: int, offset: int, count: int) -> int:
        nonlocal sent
        done = sendfile(out, source, offset, count)
        sent += done
        return done

    monkeypatch.setattr(os, "sendfile", counting)
    async with fleet(tmp_path) as staged:
        _, growing = staged.fills.fill(DATA)
        starts = [number * 1009 for number in range(100)]
        taking = [asyncio.create_task(staged.taken(DIGEST, start)) for start in starts]
        while len(staged.fills.asked) < len(starts):
            await asyncio.sleep(0.002)
        growing.grow(len(DATA) // 2)
        growing.complete()
        async with asyncio.timeout(60):
            assert await asyncio.gather(*taking) == [DATA[start:] for start in starts]
        assert sent > 0.5 * sum(len(DATA) - start for start in starts)


async def test_small_questions(tmp_path: Path) -> None:
    """A body goes there, an answer comes back; a replica that is not there is told apart from one that fails."""

    async def beat(request: PeerRequest) -> PeerAnswer:
        told = f"{request.name} {request.query['k']} ".encode()
        return PeerAnswer(201, told + request.body)

    question = PeerQuestion(kind="leases", name="sha256:ab/0", query={"k": "a b&c"}, body=b"{}")
    async with fleet(tmp_path) as staged:
        staged.port.add("POST", "leases", beat)
        reply = await staged.peers.ask("replica-1", staged.port.address, question)
        assert (reply.status, reply.body) == (201, b"sha256:ab/0 a b&c {}")
        with pytest.raises(
            PeerUnreached, match=r"replica-2 at .* did not answer: connection refused"
        ) as caught:
            await staged.peers.ask("replica-2", f"127.0.0.1:{free_port()}", question)
        assert caught.value.refused
        assert list(staged.peers.reach.unreached()) == ["replica-2"]
    async with follower() as peers, played(b"no HTTP") as holder:
        with pytest.raises(PeerUnreached) as caught:
            await peers.ask(holder.replica, holder.address, question)
        assert not caught.value.refused


async def test_a_small_question_is_not_waited_for_long() -> None:
    """A replica that stands still takes the question and never answers: it is told as not reached."""
    over = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, follower() as peers:
        with pytest.raises(PeerUnreached, match="does not answer in time") as caught:
            await peers.ask("replica-1", address, PeerQuestion(kind="beats", name="x"), within=0.05)
        assert not caught.value.refused
        assert peers.reach.unreached() == {"replica-1": "it does not answer in time"}
        over.set()


async def test_who_is_not_reached_is_told(tmp_path: Path) -> None:
    """By replica and reason, until it is reached again; a fill that is not there is no reason."""
    async with fleet(tmp_path) as staged:
        nobody = replace(staged.holder, address=f"127.0.0.1:{free_port()}")
        await sign_of(staged.peers, nobody)
        assert staged.peers.reach.unreached() == {"replica-1": "connection refused"}
        assert staged.count("peers_unreached", ours=True) == 1
        assert await sign_of(staged.peers, staged.holder) is Sign.NOFILL
        assert staged.peers.reach.unreached() == {}
    async with fleet(tmp_path, secret=b"another") as staged:
        await sign_of(staged.peers, staged.holder)
        assert "http.secret" in staged.peers.reach.unreached()["replica-1"]
