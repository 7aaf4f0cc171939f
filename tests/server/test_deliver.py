"""server.deliver: a body that ends well is whole and right; anything else is cut."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from msrcache.oci.digest import Digest
from msrcache.oci.errors import UpstreamUnavailable
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Chunk, Elsewhere, FileSpan, Outcome
from msrcache.server.settings import Limits, ServerSettings
from tests.stage.files import open_file
from tests.stage.serving import RawClient, Served, serving, until

DATA = hashlib.shake_128(b"blob").digest(3_000_000)
LARGE = DATA * 8


def url(digest: Digest) -> str:
    """The path of a blob."""
    return f"/v2/team/app/blobs/{digest}"


async def test_a_whole_blob(served: Served) -> None:
    """200 with everything that describes it."""
    digest = served.registry.hold(DATA)
    reply = await (await served.connect()).ask(url(digest))
    assert (reply.status, reply.body == DATA) == (200, True)
    expected = {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Cache-Control": "max-age=31536000",
        "Accept-Ranges": "bytes",
        "X-Cache": "hit",
        "Docker-Distribution-Api-Version": "registry/2.0",
    }
    assert {name: reply[name] for name in expected} == expected
    assert reply.get("Content-Range") is None


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=2999999-", (2_999_999, 3_000_000)),
        ("bytes=-5", (2_999_995, 3_000_000)),
        ("bytes=-99999999", (0, 3_000_000)),
        ("bytes=0-99999999", (0, 3_000_000)),
        ("bytes=4095-1100000", (4095, 1_100_001)),
    ],
)
@pytest.mark.parametrize("kind", ["bytes", "file"])
async def test_ranges(served: Served, tmp_path: Path, kind: str, asked: str, span: tuple[int, int]) -> None:
    """206 with exactly the bytes asked for, from memory and from a file, and the connection goes on."""
    with open_file(tmp_path / "blob", DATA) as file:
        digest = served.registry.hold(DATA, file.whole if kind == "file" else None)
        client = await served.connect()
        for _ in range(2):
            reply = await client.ask(url(digest), headers=f"Range: {asked}\r\n")
            assert (reply.status, reply.body == DATA[slice(*span)]) == (206, True)
            assert reply["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/3000000"


@pytest.mark.parametrize("asked", ["bytes=3000000-", "bytes=-0", "bytes=99999999-999999999"])
async def test_ranges_beyond_the_end(served: Served, asked: str) -> None:
    """416 that tells the size."""
    digest = served.registry.hold(DATA)
    reply = await (await served.connect()).ask(url(digest), headers=f"Range: {asked}\r\n")
    assert (reply.status, reply["Content-Range"]) == (416, "bytes */3000000")


@pytest.mark.parametrize("asked", ["bytes=5-1", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes="])
async def test_ranges_that_are_none(served: Served, asked: str) -> None:
    """Malformed, of another unit, several: the whole blob."""
    digest = served.registry.hold(DATA)
    reply = await (await served.connect()).ask(url(digest), headers=f"Range: {asked}\r\n")
    assert (reply.status, len(reply.body)) == (200, 3_000_000)


async def test_if_range(served: Served) -> None:
    """A range of this very blob is a range; of another version, the whole."""
    digest = served.registry.hold(DATA)
    client = await served.connect()
    for tag, status in ((f'"{digest}"', 206), ('"sha256:other"', 200)):
        headers = f"Range: bytes=0-9\r\nIf-Range: {tag}\r\n"
        assert (await client.ask(url(digest), headers=headers)).status == status


async def test_an_empty_blob(served: Served) -> None:
    """200 with no byte; a range of it is 416."""
    digest = served.registry.hold(b"")
    client = await served.connect()
    reply = await client.ask(url(digest))
    assert (reply.status, reply["Content-Length"], reply.body) == (200, "0", b"")
    assert (await client.ask(url(digest), headers="Range: bytes=0-\r\n")).status == 416


async def test_bytes_and_files_in_turns(served: Served, tmp_path: Path) -> None:
    """Chunks of both kinds and odd sizes make one right body; keep-alive goes on after each."""
    with open_file(tmp_path / "blob", LARGE) as file:
        digest = served.registry.hold(LARGE, file.mixed)
        client = await served.connect()
        for _ in range(3):
            assert (await client.ask(url(digest))).body == LARGE
            assert (await client.ask("/v2/")).body == b"{}"
        assert served.count("bytes_total", outcome="hit") == 3 * len(LARGE)
        assert served.records.kept[0].bytes_sent == len(LARGE)


async def test_pipelined_files(served: Served, tmp_path: Path) -> None:
    """Requests that wait behind a sendfile do not mix with it."""
    with open_file(tmp_path / "blob", LARGE) as file:
        digest = served.registry.hold(LARGE, file.whole)
        client = await served.connect()
        await client.send(f"GET {url(digest)} HTTP/1.1\r\nHost: a\r\n\r\n" * 5)
        for _ in range(5):
            assert (await client.reply()).body == LARGE


async def test_a_slow_reader_gets_it_all(served: Served, tmp_path: Path) -> None:
    """A client with a small window, which is full most of the time, gets every byte in order."""
    with open_file(tmp_path / "blob", LARGE) as file:
        digest = served.registry.hold(LARGE, file.whole)
        client = await served.connect(limit=2048)
        await client.send(f"GET {url(digest)} HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.heading()
        found = hashlib.sha256()
        left = len(LARGE)
        while left:
            data = await client.reader.read(3001)
            found.update(data)
            left -= len(data)
            await asyncio.sleep(0)
        assert found.hexdigest() == hashlib.sha256(LARGE).hexdigest()


def breaking(data: bytes, error: BaseException | None, at: int) -> object:
    """A body that gives `at` bytes and then the error, or just ends."""

    async def body(span: Span) -> AsyncIterator[Chunk]:
        yield data[span.start : span.start + at]
        if error is not None:
            raise error

    return body


@pytest.mark.parametrize("at", [1, 2_999_999])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UpstreamUnavailable("gone"), "source"),
        (OSError(errno.EIO, "disk"), "source"),
        (RuntimeError("bug"), "source"),
        (ConnectionResetError("upstream"), "source"),
        (None, "short"),
    ],
)
async def test_what_breaks_is_cut(served: Served, error: Exception | None, reason: str, at: int) -> None:
    """After the first byte the connection ends short of the promised length, by a reset, and is counted."""
    digest = served.registry.hold(DATA, breaking(DATA, error, at))  # type: ignore[arg-type]
    client = await served.connect()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.ask(url(digest))
    assert served.count("delivery_cut_total", reason=reason) == 1
    assert served.records.kept[0].bytes_sent <= at


async def test_too_much_is_cut_before_the_end(served: Served) -> None:
    """A body longer than promised never ends well, not even at the promised length."""

    async def body(span: Span) -> AsyncIterator[Chunk]:
        yield DATA[:-1]
        yield b"xx"

    client = await served.connect()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.ask(url(served.registry.hold(DATA, body)))
    assert served.count("delivery_cut_total", reason="long") == 1


async def test_a_file_that_has_shrunk_is_cut(served: Served, tmp_path: Path) -> None:
    """A truncated file ends in a cut, not in a short body."""
    with open_file(tmp_path / "blob", DATA) as file:
        os.truncate(tmp_path / "blob", 2_000_000)
        client = await served.connect()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.ask(url(served.registry.hold(DATA, file.whole)))
        assert served.count("delivery_cut_total", reason="disk") == 1


@pytest.mark.parametrize("asked", ["", "Range: bytes=7-2500000\r\n"])
async def test_a_failing_disk_is_resumed_elsewhere(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """EIO under sendfile: the rest comes by blob.resume from the very next byte, and the client sees nothing of it."""
    sendfile, offsets = os.sendfile, []

    def failing(out: int, source: int, offset: int, count: int) -> int:
        if offset > 1_500_000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sendfile(out, source, offset, count)

    async def resume(offset: int) -> AsyncIterator[bytes]:
        offsets.append(offset)
        for start in range(offset, len(DATA), 100_000):
            yield DATA[start : start + 100_000]

    monkeypatch.setattr(os, "sendfile", failing)
    with open_file(tmp_path / "blob", DATA) as file:
        digest = served.registry.hold(DATA, file.whole)
        served.registry.blobs[digest].resume = resume
        client = await served.connect()
        reply = await client.ask(url(digest), headers=asked)
        assert reply.body == (DATA[7:2_500_001] if asked else DATA)
        assert len(offsets) == 1
        assert offsets[0] > 1_000_000
        assert (await client.ask("/v2/")).status == 200


async def test_a_resume_that_ends_early_is_cut(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other way breaks too: cut."""

    def failing(*_: int) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    async def resume(_: int) -> AsyncIterator[bytes]:
        yield b"x"

    monkeypatch.setattr(os, "sendfile", failing)
    with open_file(tmp_path / "blob", DATA) as file:
        digest = served.registry.hold(DATA, file.whole)
        served.registry.blobs[digest].resume = resume
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await (await served.connect()).ask(url(digest))


async def test_a_client_that_leaves_frees_everything(served: Served, tmp_path: Path) -> None:
    """Gone in mid-body, while being sent to and while waiting for the source: the body is closed, nothing is left."""
    closed: list[str] = []

    async def waiting(span: Span) -> AsyncIterator[Chunk]:
        try:
            yield LARGE[: span.size // 2]
            await asyncio.Event().wait()
        finally:
            closed.append("body")

    with open_file(tmp_path / "blob", LARGE) as file:
        for body, read in ((waiting, len(LARGE) // 2), (file.whole, 1000), (waiting, 1000)):
            digest = served.registry.hold(LARGE, body)
            client = await served.connect(limit=4096)
            await client.send(f"GET {url(digest)} HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.heading()
            await client.reader.readexactly(read)
            client.writer.transport.abort()
        await until(lambda: served.count("connections") == 0)
        await until(lambda: served.count("delivery_cut_total", reason="client") == 3)
    assert closed == ["body", "body"]


async def test_a_client_that_takes_nothing_is_cut(tmp_path: Path) -> None:
    """A reader that stands still for the stall time loses its connection, counted as its own doing."""
    with open_file(tmp_path / "blob", LARGE) as file:
        async with serving(ServerSettings(limits=Limits(stall=0.1))) as served:
            digest = served.registry.hold(LARGE, file.whole)
            client = await served.connect(limit=1024)
            await client.send(f"GET {url(digest)} HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: served.count("delivery_cut_total", reason="stalled") == 1)
            assert len(await client.rest()) < len(LARGE)


async def test_headers_go_before_the_body_is_there(served: Served) -> None:
    """The client has the headers while the source still waits for its first byte."""
    gate = asyncio.Event()

    async def body(span: Span) -> AsyncIterator[Chunk]:
        await gate.wait()
        yield DATA

    digest = served.registry.hold(DATA, body)
    client = await served.connect()
    await client.send(f"GET {url(digest)} HTTP/1.1\r\nHost: a\r\n\r\n")
    status, headers = await client.heading()
    assert (status, headers["content-length"]) == (200, ["3000000"])
    gate.set()
    assert await client.reader.readexactly(3_000_000) == DATA


async def test_elsewhere(served: Served) -> None:
    """307 to the store, not to be remembered; HEAD is answered here."""
    digest = served.registry.hold(DATA)
    served.registry.blobs[digest].elsewhere = Elsewhere("https://bucket.test/key?signature=x")
    client = await served.connect()
    reply = await client.ask(url(digest))
    assert (reply.status, reply["Location"]) == (307, "https://bucket.test/key?signature=x")
    assert (reply["Cache-Control"], reply["Docker-Content-Digest"]) == ("no-cache", str(digest))
    assert (reply.body, reply.get("ETag"), reply.get("Accept-Ranges")) == (b"", None, None)
    assert served.count("bytes_total", outcome="hit") == 0
    assert (served.records.kept[0].status, served.records.kept[0].outcome) == (307, "hit")
    assert "signature" not in repr(served.records.kept)
    head = await client.ask(url(digest), method="HEAD")
    assert (head.status, head["Content-Length"]) == (200, "3000000")


async def test_the_outcome_is_told(served: Served) -> None:
    """X-Cache, the log and the metric have the same word."""
    digest = served.registry.hold(DATA)
    served.registry.blobs[digest].outcome = Outcome.FOLLOWED
    reply = await (await served.connect()).ask(url(digest))
    assert reply["X-Cache"] == "followed"
    assert served.records.kept[0].outcome == "followed"
    assert served.count("pulls_total", kind="blob", outcome="followed", status="200") == 1


async def test_head_and_conditions(served: Served) -> None:
    """HEAD tells the length and sends nothing; a known ETag is 304; another one gets the blob."""
    digest = served.registry.hold(DATA)
    client: RawClient = await served.connect()
    head = await client.ask(url(digest), method="HEAD", headers="Range: bytes=0-1\r\n")
    assert (head.status, head["Content-Length"], head["Accept-Ranges"]) == (200, "3000000", "bytes")
    for tag in (f'"{digest}"', str(digest), f'"x", W/"{digest}"', "*"):
        reply = await client.ask(url(digest), headers=f"If-None-Match: {tag}\r\n")
        assert (reply.status, reply.body, reply["ETag"]) == (304, b"", f'"{digest}"')
    reply = await client.ask(url(digest), headers='If-None-Match: "other"\r\n')
    assert (reply.status, reply.body == DATA) == (200, True)


async def test_the_span_of_a_file_is_its_own(served: Served, tmp_path: Path) -> None:
    """A FileSpan may lie anywhere in its file: offsets are the file's, not the blob's."""
    with open_file(tmp_path / "packed", b"x" * 12_345 + DATA + b"y" * 99) as file:

        async def body(span: Span) -> AsyncIterator[Chunk]:
            yield FileSpan(file.fd, 12_345 + span.start, 12_345 + span.stop)

        digest = served.registry.hold(DATA, body)
        assert (await (await served.connect()).ask(url(digest))).body == DATA
