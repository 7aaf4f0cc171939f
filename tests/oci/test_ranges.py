"""Spans, Range and Content-Range."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.oci.errors import RangeInvalid
from msrcache.oci.ranges import (
    ContentRangeInvalid,
    RangeRequest,
    Span,
    content_range,
    parse_content_range,
    parse_range,
)

LARGEST = 2**63 - 1
SIZES = st.integers(0, 40)


def spans(size: int = 40) -> st.SearchStrategy[Span]:
    """Every span of something of that size."""
    return st.tuples(st.integers(0, size), st.integers(0, size)).map(lambda ends: Span(min(ends), max(ends)))


@given(spans(), spans())
def test_the_intersection_holds_what_both_hold(one: Span, other: Span) -> None:
    """Byte by byte, in either order, and empty where they do not meet."""
    both = set(range(one.start, one.stop)) & set(range(other.start, other.stop))
    for met in (one.intersect(other), other.intersect(one)):
        assert set(range(met.start, met.stop)) == both
        assert met.size == len(both)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, -1)])
def test_a_span_cannot_be_made_wrong(start: int, stop: int) -> None:
    """Neither before the beginning nor backwards."""
    with pytest.raises(ValueError, match="no span"):
        Span(start, stop)


def test_a_span_tells_itself() -> None:
    """Half-open, as it is meant; and whole means all."""
    assert str(Span.whole(5)) == "[0, 5)"
    assert Span.whole(0).size == 0


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-0", RangeRequest(0, 0)),
        ("bytes=5-", RangeRequest(5, None)),
        ("bytes=-5", RangeRequest(None, 5)),
        ("bytes=-0", RangeRequest(None, 0)),
        ("Bytes=1-2", RangeRequest(1, 2)),
        (" bytes=1-2\t", RangeRequest(1, 2)),
        ("bytes=, 1-2 ,", RangeRequest(1, 2)),
        ("bytes=0001-0002", RangeRequest(1, 2)),
        ("bytes=0-" + "9" * 30, RangeRequest(0, LARGEST)),
        ("bytes=" + "9" * 9000 + "-", RangeRequest(LARGEST, None)),
        ("bytes=0-9223372036854775808", RangeRequest(0, LARGEST)),
    ],
)
def test_one_range_is_understood(header: str, wanted: RangeRequest) -> None:
    """All forms of RFC 9110, and numbers of any length."""
    assert parse_range(header) == wanted


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=2-1",
        "bytes=1",
        "bytes=0-1,3-4",
        "items=0-1",
        "bytes=0-1;q=1",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes=0x1-2",
        "bytes=\N{ARABIC-INDIC DIGIT ONE}-",
        "0-1",
    ],
)
def test_what_is_no_single_range_asks_for_everything(header: str | None) -> None:
    """Malformed, of other units, or several: ignored, as RFC 9110 14.2 allows."""
    assert parse_range(header) is None


@given(st.text(max_size=40) | st.from_regex(r"bytes=[0-9]{0,3}-[0-9]{0,3}[ ,x]?"))
def test_no_range_header_raises(header: str) -> None:
    """Whatever it holds, there is a range or none."""
    wanted = parse_range(header)
    assert wanted is None or parse_range(str(wanted)) == wanted


@given(st.none() | st.integers(0, 50), st.none() | st.integers(0, 50), SIZES)
def test_a_range_resolves_to_the_bytes_it_names(first: int | None, last: int | None, size: int) -> None:
    """Against the plain reading of RFC 9110: the bytes named that exist; none is a 416 that tells it."""
    try:
        wanted = RangeRequest(first, last)
    except ValueError:
        assert last is None or first is not None
        assert (first is None and last is None) or (first or 0) > (last or 0)
        return
    if first is None:
        named = list(range(size))[-last:] if last else []
    else:
        named = [at for at in range(size) if at >= first and (last is None or at <= last)]
    if named:
        span = wanted.resolve(size)
        assert list(range(span.start, span.stop)) == named
    else:
        with pytest.raises(RangeInvalid) as caught:
            wanted.resolve(size)
        assert caught.value.size == size


@pytest.mark.parametrize(
    ("header", "size", "span"),
    [
        ("bytes=0-0", 1, Span(0, 1)),
        ("bytes=0-", 10, Span(0, 10)),
        ("bytes=9-", 10, Span(9, 10)),
        ("bytes=9-100", 10, Span(9, 10)),
        ("bytes=-100", 10, Span(0, 10)),
        ("bytes=-1", 10, Span(9, 10)),
        ("bytes=10-", 10, None),
        ("bytes=10-20", 10, None),
        ("bytes=-0", 10, None),
        ("bytes=0-0", 0, None),
        ("bytes=0-", 0, None),
        ("bytes=-5", 0, None),
    ],
)
def test_the_edges_of_a_range(header: str, size: int, span: Span | None) -> None:
    """The stop is clamped, a start beyond the end is none, and nothing has no bytes."""
    wanted = parse_range(header)
    assert wanted is not None
    if span is None:
        with pytest.raises(RangeInvalid):
            wanted.resolve(size)
    else:
        assert wanted.resolve(size) == span


def test_a_range_is_written_as_it_is_read() -> None:
    """str() is the header that an upstream is sent."""
    for header in ("bytes=0-0", "bytes=5-", "bytes=-5"):
        assert str(parse_range(header)) == header


@pytest.mark.parametrize(("first", "last"), [(None, None), (-1, None), (None, -1), (3, 2), (-2, -1)])
def test_a_range_cannot_be_made_wrong(first: int | None, last: int | None) -> None:
    """What HTTP cannot write is no range."""
    with pytest.raises(ValueError, match="range"):
        RangeRequest(first, last)


@given(spans(), st.integers(0, 5))
def test_content_range_is_read_as_it_is_written(span: Span, more: int) -> None:
    """Writing and reading are inverse for every span that has bytes."""
    size = span.stop + more
    if span.size:
        assert parse_content_range(content_range(span, size)) == (span, size)
    else:
        with pytest.raises(ContentRangeInvalid):
            content_range(span, size)


def test_a_span_beyond_the_size_is_not_written() -> None:
    """A 206 never claims bytes that do not exist."""
    with pytest.raises(ContentRangeInvalid):
        content_range(Span(0, 11), 10)


def test_an_unknown_size_is_told_as_none() -> None:
    """`*` is what a server says that does not know."""
    assert parse_content_range("bytes 0-9/*") == (Span(0, 10), None)
    assert parse_content_range(" Bytes 5-5/6 ") == (Span(5, 6), 6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes */10",
        "bytes 0-9",
        "bytes 5-4/10",
        "bytes 0-10/10",
        "bytes 0-0/0",
        "items 0-1/2",
        "0-1/2",
        "bytes 0-9/-1",
        "bytes=0-9/10",
        f"bytes 0-{LARGEST}/*",
        f"bytes 0-{LARGEST}/9999999999999999999",
        "bytes 0-9/10, bytes 0-9/10",
        "bytes 0-" + "9" * 5000 + "/*",
    ],
)
def test_what_is_no_content_range_is_refused(text: str) -> None:
    """An upstream that answers so is not believed."""
    with pytest.raises(ContentRangeInvalid):
        parse_content_range(text)


@given(st.text(max_size=40) | st.from_regex(r"bytes [0-9]{1,2}-[0-9]{1,2}/([0-9]{1,2}|\*)"))
def test_no_content_range_raises_anything_else(text: str) -> None:
    """Whatever an upstream sends; and what is read has bytes inside the size."""
    with suppress(ContentRangeInvalid):
        span, size = parse_content_range(text)
        assert span.size > 0
        assert size is None or span.stop <= size
