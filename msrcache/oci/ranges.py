"""Spans of bytes, and how HTTP writes them: Range and Content-Range of RFC 9110 14, one range at a time.

A request for several ranges is answered whole, as the RFC allows: no client of registries asks so.
"""

import re
from dataclasses import dataclass
from typing import Final

from msrcache.oci.errors import RangeInvalid, shown

_LARGEST: Final = 2**63 - 1
_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t,]*([0-9]*)-([0-9]*)[ \t,]*", re.IGNORECASE)
_CONTENT_RANGE: Final = re.compile(
    r"[ \t]*bytes[ \t]+([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)[ \t]*", re.IGNORECASE
)


class ContentRangeInvalid(ValueError):
    """Text that should be a Content-Range is none, or names no bytes."""


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes [start, stop) of something; 0 <= start <= stop, else ValueError."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"no span: [{self.start}, {self.stop})")

    @classmethod
    def whole(cls, size: int) -> "Span":
        """All of `size` bytes."""
        return cls(0, size)

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.stop - self.start

    def intersect(self, other: "Span") -> "Span":
        """What both hold; an empty span where they do not meet."""
        start = max(self.start, other.start)
        return Span(start, max(start, min(self.stop, other.stop)))

    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})"


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """One range as a client asks for it, both ends inclusive.

    `bytes=a-b` is (a, b), `bytes=a-` is (a, None), and `bytes=-n`, the last n bytes, is (None, n). What is
    none of these is a ValueError.
    """

    first: int | None
    last: int | None

    def __post_init__(self) -> None:
        first, last = self.first, self.last
        if first is None and last is None:
            raise ValueError("a range needs an end")
        if (first is not None and first < 0) or (last is not None and last < (first or 0)):
            raise ValueError(f"no range: {first} to {last}")

    def resolve(self, size: int) -> Span:
        """These bytes of content of `size` bytes; what lies beyond is cut. None left: RangeInvalid."""
        last = size - 1 if self.last is None else self.last
        if self.first is None:  # a suffix: longer than the content means all of it
            span = Span(max(0, size - last), size)
        else:
            span = Span(self.first, max(self.first, min(last + 1, size)))
        if not span.size:
            raise RangeInvalid(size)
        return span

    def __str__(self) -> str:
        """As the Range header says it."""
        first = "" if self.first is None else self.first
        return f"bytes={first}-{'' if self.last is None else self.last}"


def parse_range(header: str | None) -> RangeRequest | None:
    """One range of bytes; None where none is to obey: no header, another unit, several ranges, malformed.

    Then the answer is the whole content (RFC 9110 14.2). Never raises.
    """
    match = _RANGE.fullmatch(header.strip(" \t")) if header else None
    if match is None:
        return None
    first, last = _number(match[1]), _number(match[2])
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        return None
    return RangeRequest(first, last)


def content_range(span: Span, size: int) -> str:
    """The Content-Range of a 206. ContentRangeInvalid for an empty span or one beyond `size`."""
    if not span.size or span.stop > size:
        raise ContentRangeInvalid(f"{span} of {size} bytes cannot be written as Content-Range")
    return f"bytes {span.start}-{span.stop - 1}/{size}"


def parse_content_range(text: str) -> tuple[Span, int | None]:
    """The span that an answer carries, and the size of the whole if it is told. Raises ContentRangeInvalid.

    `bytes */size` of a 416 carries no span and raises too.
    """
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:
        raise ContentRangeInvalid(f"{shown(text)} is no Content-Range")
    first, last = int(match[1]), int(match[2])
    size = None if match[3] == "*" else int(match[3])
    if last < first or last >= min(_LARGEST, _LARGEST if size is None else size):
        raise ContentRangeInvalid(f"{shown(text)} names no bytes")
    return Span(first, last + 1), size


def _number(digits: str) -> int | None:
    """Numbers beyond 2^63-1 become that: no content is so large. int() would refuse thousands of digits."""
    if not digits:
        return None
    significant = digits.lstrip("0") or "0"
    return min(int(significant), _LARGEST) if len(significant) < 20 else _LARGEST
