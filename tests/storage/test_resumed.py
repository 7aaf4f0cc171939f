"""A body that goes on where its connection breaks: the right bytes of one object, or an error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage import resumed as module
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import NotFound, StorageError, Unavailable
from msrcache.storage.resumed import Found, Resuming, asking_for, brought

DATA = bytes(range(100))
WHOLE = Found(ObjectInfo(100, 0.0, "one"), Span(0, 100))


class Another(StorageError):
    """Another object stands there."""


@dataclass(slots=True)
class Service:
    """Answers with so many bytes each time, then breaks; or says no."""

    gives: list[int | StorageError]
    asked: list[tuple[Span, str | None]] = field(default_factory=list)
    open: int = 0

    @asynccontextmanager
    async def rest(self, span: Span, etag: str | None) -> AsyncIterator[Any]:
        """As Rest."""
        self.asked.append((span, etag))
        turn = self.gives.pop(0)
        if isinstance(turn, StorageError):
            raise turn
        self.open += 1
        try:
            yield DATA[span.start : span.start + turn]
        finally:
            self.open -= 1


@pytest.fixture(autouse=True)
def bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response is its bytes here; when they are gone the connection breaks."""

    async def body_of(response: bytes) -> AsyncIterator[bytes]:
        if response:
            yield response
        raise ConnectionResetError

    monkeypatch.setattr(module, "body_of", body_of)


async def body(service: Service, first: int, found: Found = WHOLE, **how: Any) -> bytes:
    """What comes of an object whose first answer breaks after so many bytes."""
    going_on = Resuming("store", "a/key", service.rest, replaced=Another, **how)
    response: Any = DATA[found.span.start : found.span.start + first]
    try:
        return b"".join([bytes(chunk) async for chunk in going_on.body(found, response)])
    finally:
        assert service.open == 0


async def test_the_rest_is_asked_of_the_same_object() -> None:
    """From the byte where it broke, each time, with the etag of the first bytes."""
    service = Service([20, 0, 50])
    assert await body(service, 30) == DATA
    assert service.asked == [(Span(30, 100), "one"), (Span(50, 100), "one"), (Span(50, 100), "one")]


async def test_a_span_ends_where_it_ends() -> None:
    """More than was wanted is cut off, also after a resume."""
    assert await body(Service([]), 100, Found(WHOLE.info, Span(10, 60))) == DATA[10:60]
    assert await body(Service([90]), 10, Found(WHOLE.info, Span(10, 60))) == DATA[10:60]


async def test_resumes_in_vain_end() -> None:
    """As many as there are pauses; a byte between makes the service worth all of them again."""
    service = Service([0, 0, 1, 0, 0, 0])
    with pytest.raises(Unavailable, match="the body broke at byte 31 of 100"):
        await body(service, 30, pauses=(0.0, 0.0, 0.0))
    assert len(service.asked) == 6


async def test_another_object_is_never_mixed_in() -> None:
    """It is told, and not asked for again."""
    service = Service([Another("store", "a/key", None, "no")])
    with pytest.raises(StorageError, match="another object was put there while this one was read"):
        await body(service, 30)
    with pytest.raises(NotFound):
        await body(Service([NotFound("store", "a/key")]), 30)


@pytest.mark.parametrize("outages", [True, False])
async def test_a_service_that_cannot_be_asked(outages: bool) -> None:  # noqa: FBT001
    """It ends the body, unless the driver knows that it comes back."""
    away = Unavailable("store", "a/key", ConnectionRefusedError(), "away")
    service = Service([away, 70])
    if outages:
        assert await body(service, 30, outages=True) == DATA
    else:
        with pytest.raises(Unavailable, match="away"):
            await body(service, 30)


def test_an_empty_span_asks_for_a_byte() -> None:
    """HTTP has no empty range, and the start must be checked."""
    assert [asking_for(span) for span in (Span(0, 10), Span(7, 7))] == ["bytes=0-9", "bytes=7-7"]


@pytest.mark.parametrize("told", ["", "bytes 5-9", "bytes 0-9/*", "bytes 1-9/100", "bytes 0-4/100"])
def test_an_answer_that_brings_something_else_is_an_error(told: str) -> None:
    """Without saying which, without the size, from elsewhere, or too little."""
    with pytest.raises(StorageError, match="the service"):
        brought("store", "a/key", told, Span(0, 10))


def test_what_an_answer_brings_is_clamped() -> None:
    """To the object's end, and to what was wanted."""
    assert brought("store", "a/key", "bytes 5-9/10", Span(5, 1000)) == (Span(5, 10), 10)
    assert brought("store", "a/key", "bytes 5-99/100", Span(5, 10)) == (Span(5, 10), 100)
