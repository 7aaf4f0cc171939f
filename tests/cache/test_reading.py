"""Reading: each reader gets exactly its span or an error, whichever way the bytes come."""

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from msrcache.cache.reading import Reading, of_content, verified
from msrcache.cache.tail import Spilled, Tail
from msrcache.oci.digest import Digest, Hasher
from msrcache.oci.errors import ContentMismatch, UpstreamBroken, UpstreamUnavailable
from msrcache.oci.ranges import RangeRequest, Span
from msrcache.oci.registry import Chunk, FileSpan
from msrcache.storage.driver import FileContent, ObjectInfo, StreamContent
from tests.cache.kitchen import blob_pull
from tests.stage.upstream import FakeUpstream

DATA = random.Random(5).randbytes(200_000)
DIGEST = Digest.of(DATA)
SIZE = len(DATA)
WHOLE = Span(0, SIZE)
INFO = ObjectInfo(SIZE, 0.0)


async def _pieces(*pieces: bytes) -> AsyncIterator[Chunk]:
    for piece in pieces:
        yield piece


def _spilled(path: Path, written: int, data: bytes = DATA) -> Tail:
    """A tail that ended at that byte, over a real file."""
    path.write_bytes(data[:written])
    hasher = Hasher()
    hasher.update(data[:written])
    tail = Tail(os.open(path, os.O_RDONLY), SIZE)
    tail.advance(written)
    tail.end(Spilled(written, hasher, OSError(28, "full")))
    return tail


async def _read(body: AsyncIterator[Chunk]) -> bytes:
    data = b""
    async for chunk in body:
        if isinstance(chunk, FileSpan):
            chunk = os.pread(chunk.fd, chunk.stop - chunk.start, chunk.start)
        data += chunk
    return data


async def _collect(body: AsyncIterator[Chunk], given: list[Chunk]) -> None:
    async for chunk in body:
        given.append(chunk)  # noqa: PERF401  what came before the error is to be seen


def _upstream(data: bytes = DATA) -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.publish("team/a", DATA)
    if data != DATA:
        upstream.corrupt[DIGEST] = data
    return upstream


@pytest.mark.parametrize("span", [WHOLE, Span(0, 50_000), Span(50_000, SIZE), Span(150_000, 160_000)])
@pytest.mark.parametrize("written", [0, 1, 100_000, SIZE - 1, SIZE])
async def test_a_spilled_reader_goes_on_by_itself(tmp_path: Path, span: Span, written: int) -> None:
    """What is in the file, then the rest from the upstream: exactly the span, and no byte asked for twice."""
    upstream, tail = _upstream(), _spilled(tmp_path / "file", written)
    try:
        assert (
            await _read(Reading(upstream, blob_pull(DIGEST)).of_tail(tail, span))
            == DATA[span.start : span.stop]
        )
    finally:
        os.close(tail.fd)
    assert len(upstream.fetched()) <= 1
    if written == SIZE:
        assert not upstream.fetched()


async def test_a_spill_after_the_last_byte_costs_no_fetch(tmp_path: Path) -> None:
    """All came: the reader verifies it and gives out the byte that was held back."""
    upstream, tail = _upstream(), _spilled(tmp_path / "file", SIZE)
    try:
        assert await _read(Reading(upstream, blob_pull(DIGEST)).of_tail(tail, WHOLE)) == DATA
    finally:
        os.close(tail.fd)
    assert not upstream.ledger


async def test_a_spill_after_the_last_wrong_byte_cuts(tmp_path: Path) -> None:
    """All came and it is wrong: the last byte is never given out."""
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    tail, given = _spilled(tmp_path / "file", SIZE, wrong), list[Chunk]()
    try:
        with pytest.raises(ContentMismatch):
            await _collect(Reading(_upstream(), blob_pull(DIGEST)).of_tail(tail, WHOLE), given)
    finally:
        os.close(tail.fd)
    assert given == [FileSpan(tail.fd, 0, SIZE - 1)]


async def test_a_spilled_readers_rest_is_verified(tmp_path: Path) -> None:
    """Wrong bytes after the spill are found, because the hasher stands where the file ends."""
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    tail = _spilled(tmp_path / "file", 100_000)
    try:
        with pytest.raises(ContentMismatch):
            await _read(Reading(_upstream(wrong), blob_pull(DIGEST)).of_tail(tail, WHOLE))
    finally:
        os.close(tail.fd)


async def test_many_readers_share_one_spilled_hasher(tmp_path: Path) -> None:
    """Each goes on with a copy: the second finds the hasher as the first did."""
    tail = _spilled(tmp_path / "file", 100_000)
    reading = Reading(_upstream(), blob_pull(DIGEST))
    try:
        for _ in range(3):
            assert await _read(reading.of_tail(tail, WHOLE)) == DATA
    finally:
        os.close(tail.fd)


async def test_a_broken_tail_cuts(tmp_path: Path) -> None:
    """The upstream is away: no reader asks it once more."""
    (tmp_path / "file").write_bytes(DATA)
    upstream, tail = _upstream(), Tail(99, SIZE)
    tail.advance(10)
    tail.end(UpstreamUnavailable("gone"))
    with pytest.raises(UpstreamUnavailable):
        await _read(Reading(upstream, blob_pull(DIGEST)).of_tail(tail, WHOLE))
    assert not upstream.ledger


async def test_straight_from_the_upstream_asks_for_the_span() -> None:
    """All of it without a Range, a part of it with one."""
    upstream = _upstream()
    reading = Reading(upstream, blob_pull(DIGEST))
    assert await _read(reading.direct(WHOLE, SIZE, Hasher())) == DATA
    assert await _read(reading.direct(Span(7, 19), SIZE, None)) == DATA[7:19]
    assert [pull.range for pull in upstream.fetched()] == [None, RangeRequest(7, 18)]


async def test_another_size_than_before_is_refused() -> None:
    """The upstream has something else now: no byte of it is given."""
    with pytest.raises(UpstreamBroken, match="asked for"):
        await _read(Reading(_upstream(DATA + b"more"), blob_pull(DIGEST)).direct(WHOLE, SIZE, Hasher()))


@pytest.mark.parametrize(
    "pieces",
    [
        (DATA,),
        (DATA[:1], DATA[1:]),
        (DATA[:-1], DATA[-1:]),
        (b"", DATA, b""),
        (DATA[:100_000], DATA[100_000:]),
    ],
)
async def test_a_verified_body_is_whole(pieces: tuple[bytes, ...]) -> None:
    """However it is cut into pieces."""
    assert await _read(verified(_pieces(*pieces), blob_pull(DIGEST), Hasher(), SIZE)) == DATA


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"!", DATA[:-1] + b"\0\0", b""])
async def test_a_wrong_body_is_never_given_whole(data: bytes) -> None:
    """The last byte is held back: a wrong body always looks cut."""
    given: list[Chunk] = []
    with pytest.raises(ContentMismatch):
        await _collect(verified(_pieces(data), blob_pull(DIGEST), Hasher(), SIZE), given)
    assert given == [data[:-1]][: len(data)]


async def test_stored_content_as_it_stands() -> None:
    """A file is given as a part of it, a stream as its pieces; an empty object gives nothing."""
    span = Span(5, 10)
    found = [chunk async for chunk in of_content(FileContent(INFO, span, 9), span)]
    assert found == [FileSpan(9, 5, 10)]
    assert not [chunk async for chunk in of_content(FileContent(INFO, Span(0, 0), 9), Span(0, 0))]
    stream = StreamContent(INFO, span, _bytes(b"ab", b"cde"))
    assert [chunk async for chunk in of_content(stream, span)] == [b"ab", b"cde"]


async def _bytes(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
