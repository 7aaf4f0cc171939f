"""A blob's body that breaks goes on where it broke, and never ends well while it is wrong."""

import asyncio

import pytest

from msrcache.oci.errors import RangeInvalid, Unauthorized, UpstreamBroken, UpstreamUnavailable
from msrcache.oci.ranges import RangeRequest, Span
from msrcache.oci.registry import Credential
from msrcache.telemetry.metrics import Metrics
from tests.stage.images import noise
from tests.stage.serving import until
from tests.upstream.played import (
    Asked,
    CallersOwn,
    Played,
    Say,
    Waits,
    blob_pull,
    byte_ranges,
    played,
    read,
    upstream,
)

DATA = noise(100_000)


def first_then(first: Say, then: object = None) -> object:
    """Plays `first` once, then honest ranges or the given answer."""
    asked_before: list[Asked] = []

    def play(asked: Asked) -> Say:
        asked_before.append(asked)
        if len(asked_before) == 1:
            return first
        return then if isinstance(then, Say) else byte_ranges(DATA, asked)

    return play


async def pulled(server: Played, wanted: RangeRequest | None = None, **settings: object) -> bytes:
    """The bytes of one pull of DATA."""
    async with upstream(server, **settings) as client, client.blob(blob_pull(DATA, wanted)) as blob:
        return await read(blob)


async def test_a_whole_body_takes_one_request() -> None:
    """A pull that nothing disturbs costs the upstream one GET."""
    async with played(lambda asked: byte_ranges(DATA, asked)) as server:
        assert await pulled(server) == DATA
        assert server.asked() == [f"GET /v2/team/app/blobs/{blob_pull(DATA).digest}"]
        assert server.ledger[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("at", [0, 1, 65_536, 99_999])
async def test_a_body_that_breaks_is_resumed_at_that_byte(at: int) -> None:
    """A broken body goes on by Range at the byte reached, and the reader sees one whole body."""
    metrics = Metrics()
    async with played(first_then(Say(body=DATA, cut=at))) as server:  # type: ignore[arg-type]
        assert await pulled(server, metrics=metrics) == DATA
        assert [asked.range for asked in server.ledger] == ["", f"bytes={at}-"]
    assert metrics.registry.get_sample_value("msrcache_fill_resumes_total") == 1


async def test_if_range_is_sent_with_a_strong_tag_only() -> None:
    """A strong ETag guards the resumed part; a weak one must not (RFC 9110 13.1.5)."""
    for tag, expected in (('"abc"', '"abc"'), ('W/"abc"', None)):
        first = Say(body=DATA, cut=10, headers=(("ETag", tag),))
        async with played(first_then(first)) as server:  # type: ignore[arg-type]
            assert await pulled(server) == DATA
            assert server.ledger[1].headers.get("if-range") == expected


async def test_an_ignored_range_is_read_and_skipped() -> None:
    """An upstream that answers 200 to a Range is read again from the start, and what is known is skipped."""
    async with played(first_then(Say(body=DATA, cut=70_000), Say(body=DATA))) as server:  # type: ignore[arg-type]
        assert await pulled(server) == DATA
        assert len(server.ledger) == 2


async def test_a_stall_is_a_break() -> None:
    """A body that stops coming without ending is resumed on a new connection."""
    held = asyncio.Event()
    first = Say(body=DATA, cut=50_000, hold=held)
    async with played(first_then(first)) as server:  # type: ignore[arg-type]
        assert await pulled(server, stall_timeout=1.0) == DATA
        assert server.ledger[1].range == "bytes=50000-"


async def test_breaks_without_progress_end_it() -> None:
    """So many attempts in a row that bring no byte are an outage, which names upstream and byte."""
    waits = Waits()
    async with played(lambda _: Say(body=DATA, cut=0)) as server:
        with pytest.raises(UpstreamUnavailable, match=f"{server.host}.* stopped at byte 0 of 100000"):
            await pulled(server, retries=3, sleep=waits)
        assert len(server.ledger) == 4
        assert waits.waited == [0.1, 0.2], "the second attempt is at once, the others wait longer and longer"


async def test_progress_gives_new_patience() -> None:
    """An upstream that breaks again and again, but brings bytes each time, is read to the end."""

    def play(asked: Asked) -> Say:
        say = byte_ranges(DATA, asked)
        return Say(say.status, say.body, say.headers, cut=9_000)

    async with played(play) as server:
        assert await pulled(server, retries=1) == DATA
        assert len(server.ledger) == 12


async def test_what_came_before_the_break_is_not_lost() -> None:
    """Bytes that wait to be read when the connection breaks are read, not asked for again."""
    async with (
        played(first_then(Say(body=DATA, cut=9_000))) as server,  # type: ignore[arg-type]
        upstream(server) as client,
        client.blob(blob_pull(DATA)) as blob,
    ):
        await until(lambda: not server.tasks)
        assert await read(blob) == DATA
        assert server.ledger[1].range == "bytes=9000-"


async def test_another_total_size_is_broken() -> None:
    """A resumed part that belongs to content of another size is nonsense, not a retry."""
    other = Say(206, b"x", (("Content-Range", "bytes 10-10/11"),))
    async with played(first_then(Say(body=DATA, cut=10), other)) as server:  # type: ignore[arg-type]
        with pytest.raises(
            UpstreamBroken, match=f"{server.host} first gave the blob 100000 bytes and now 11"
        ):
            await pulled(server)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ((("Content-Range", "bytes 5-100003/100004"),), "now 100004"),
        ((("Content-Range", f"bytes 5-{len(DATA) - 1}/{len(DATA)}"),), "that is not the same"),
        ((("Content-Range", "rubbish"),), "without saying which"),
        ((), "without saying which"),
        ((("Content-Type", "multipart/byteranges; boundary=x"),), "several ranges"),
    ],
)
async def test_a_part_that_contradicts_itself_is_broken(
    headers: tuple[tuple[str, str], ...], words: str
) -> None:
    """A 206 whose Content-Range does not fit is UpstreamBroken with the upstream's name."""
    length = 99_999 if words.startswith("now") else 17
    other = Say(206, b"x" * length, headers)
    async with played(first_then(Say(body=DATA, cut=5), other)) as server:  # type: ignore[arg-type]
        with pytest.raises(UpstreamBroken, match=words) as caught:
            await pulled(server)
        assert server.host in caught.value.message


async def test_a_part_from_elsewhere_is_broken() -> None:
    """Bytes from another offset than asked for are refused, whatever they are."""
    other = Say(206, DATA[3:], (("Content-Range", f"bytes 3-{len(DATA) - 1}/{len(DATA)}"),))
    async with played(first_then(Say(body=DATA, cut=5), other)) as server:  # type: ignore[arg-type]
        with pytest.raises(UpstreamBroken, match="asked for bytes from 5 and sent those from 3"):
            await pulled(server)


def unframed(sent: bytes) -> object:
    """HEAD tells the length of DATA; GET sends other bytes without a length."""

    def play(asked: Asked) -> Say:
        return Say(length=len(DATA)) if asked.method == "HEAD" else Say(body=sent, length=None)

    return play


async def test_without_a_length_head_is_asked() -> None:
    """A chunked body is right when it has the length that HEAD tells."""
    async with played(unframed(DATA)) as server:  # type: ignore[arg-type]
        assert await pulled(server) == DATA
        assert [asked.method for asked in server.ledger] == ["GET", "HEAD"]


@pytest.mark.parametrize(
    ("sent", "words"), [(DATA[:-1], "ended a blob of 100000 bytes after 99999"), (DATA + b"x", "more than")]
)
async def test_a_body_of_another_length_is_broken(sent: bytes, words: str) -> None:
    """A body that ends well, but short or long, is never taken for whole."""
    async with played(unframed(sent)) as server:  # type: ignore[arg-type]
        with pytest.raises(UpstreamBroken, match=words):
            await pulled(server)


async def test_a_length_that_nobody_tells_is_broken() -> None:
    """Neither GET nor HEAD tells the length: no answer can be made of that."""
    async with played(lambda _: Say(body=DATA, length=None)) as server:
        with pytest.raises(UpstreamBroken, match="does not tell how long"):
            await pulled(server)


@pytest.mark.parametrize("obeys", [True, False])
@pytest.mark.parametrize(
    ("wanted", "span"),
    [
        (RangeRequest(10, 19), Span(10, 20)),
        (RangeRequest(99_990, None), Span(99_990, 100_000)),
        (RangeRequest(0, 0), Span(0, 1)),
    ],
)
async def test_a_range_is_honoured_by_any_upstream(wanted: RangeRequest, span: Span, *, obeys: bool) -> None:
    """The span asked for arrives, whether the upstream knows Range or sends everything."""
    async with (
        played(lambda asked: byte_ranges(DATA, asked) if obeys else Say(body=DATA)) as server,
        upstream(server) as client,
        client.blob(blob_pull(DATA, wanted)) as blob,
    ):
        assert (blob.span, blob.descriptor.size) == (span, len(DATA))
        assert await read(blob) == DATA[span.start : span.stop]


async def test_a_range_that_breaks_is_resumed_within_itself() -> None:
    """Only the rest of the span is asked for again."""

    def play(asked: Asked) -> Say:
        say = byte_ranges(DATA, asked)
        return Say(say.status, say.body, say.headers, cut=50)

    async with played(play) as server:
        assert await pulled(server, RangeRequest(100, 219)) == DATA[100:220]
        assert [a.range for a in server.ledger] == ["bytes=100-219", "bytes=150-219", "bytes=200-219"]


@pytest.mark.parametrize("at", [50, 101])
async def test_a_range_from_elsewhere_is_broken(at: int) -> None:
    """A first answer that begins at another byte than asked for is refused before it is read."""
    told = (("Content-Range", f"bytes {at}-219/{len(DATA)}"),)
    async with played(lambda _: Say(206, DATA[at:220], told)) as server:
        with pytest.raises(UpstreamBroken, match=f"sent those from {at}"):
            await pulled(server, RangeRequest(100, 219))


async def test_a_range_beyond_the_end_is_refused_with_the_size() -> None:
    """416 of an upstream, and a 200 that is too short for the range, are both RangeInvalid."""
    told = Say(416, headers=(("Content-Range", f"bytes */{len(DATA)}"),))
    for say in (told, Say(body=DATA)):
        async with played(lambda _, say=say: say) as server:  # type: ignore[misc]
            with pytest.raises(RangeInvalid) as caught:
                await pulled(server, RangeRequest(200_000, None))
            assert caught.value.size == len(DATA)


async def test_an_empty_blob_is_an_empty_body() -> None:
    """A blob of no bytes ends well at once."""
    async with (
        played(lambda _: Say()) as server,
        upstream(server) as client,
        client.blob(blob_pull(b"")) as blob,
    ):
        assert (blob.span.size, await read(blob)) == (0, b"")


async def test_a_refusal_in_the_middle_is_raised() -> None:
    """A caller whose credential is refused while the body is resumed gets that refusal, not an outage."""
    refusal = Say(401, headers=(("WWW-Authenticate", 'Bearer realm="http://t/"'),))
    right = CallersOwn(Credential("Bearer once"))
    async with (
        played(first_then(Say(body=DATA, cut=9), refusal)) as server,  # type: ignore[arg-type]
        upstream(server) as client,
        client.blob(blob_pull(DATA, right=right)) as blob,
    ):
        with pytest.raises(Unauthorized) as caught:
            await read(blob)
    assert caught.value.challenges == ('Bearer realm="http://t/"',)


async def test_who_leaves_early_leaves_no_connection() -> None:
    """Leaving the context in the middle of a body hangs up at once."""
    async with played(lambda _: Say(body=DATA, cut=10, hold=asyncio.Event())) as server:
        async with upstream(server) as client, client.blob(blob_pull(DATA)) as blob:
            assert await anext(blob.body) == DATA[:10]  # type: ignore[arg-type]
        assert len(server.ledger) == 1
