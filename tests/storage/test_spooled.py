"""Reading the parts of a spool file: in pieces, as often as wanted, the same from the page cache and from a thread."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage import spooled
from msrcache.storage.spooled import PIECE, Part, Reading
from tests.contract.harness import pattern


@pytest.fixture(params=["page cache", "thread"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the bytes come from."""
    if request.param == "thread":
        monkeypatch.setattr(spooled, "_from_page_cache", lambda fd, span: None)
    return str(request.param)


@pytest.mark.parametrize("span", [Span(0, 0), Span(0, 1), Span(5, 5 + 3 * PIECE), Span(7, 8 * PIECE + 3)])
async def test_pieces_are_the_bytes_of_the_span(tmp_path: Path, way: str, span: Span) -> None:
    """At most 64 KiB at once, twice the same, and what is hashed is the same too."""
    del way
    data = pattern(9 * PIECE)
    (tmp_path / "file").write_bytes(data)
    with ThreadPoolExecutor(2) as pool, (tmp_path / "file").open("rb") as file:
        part = Part(span, file.fileno(), Reading(pool))
        first = [bytes(piece) async for piece in part]
        again = [bytes(piece) async for piece in part]
        assert b"".join(first) == data[span.start : span.stop]
        assert first == again
        assert all(0 < len(piece) <= PIECE for piece in first)
        hasher = hashlib.sha256()
        await part.hashed(hasher)
        assert hasher.digest() == hashlib.sha256(b"".join(first)).digest()


async def test_a_file_that_ends_early_is_an_error(tmp_path: Path, way: str) -> None:
    """Neither pieces nor hashes of less than was promised."""
    del way
    (tmp_path / "file").write_bytes(b"x" * PIECE)
    with ThreadPoolExecutor(2) as pool, (tmp_path / "file").open("rb") as file:
        part = Part(Span(0, PIECE + 1), file.fileno(), Reading(pool))
        with pytest.raises(OSError, match="ends at byte 65536"):
            assert [piece async for piece in part]
        with pytest.raises(OSError, match="ends at byte 65536"):
            await part.hashed(hashlib.sha256())


async def test_the_end_of_all_reads_can_be_waited_for(tmp_path: Path) -> None:
    """Also of one whose caller is gone, and of one that failed."""
    (tmp_path / "file").write_bytes(b"")
    with ThreadPoolExecutor(1) as pool, (tmp_path / "file").open("rb") as file:
        reading = Reading(pool)
        part = Part(Span(0, 1), file.fileno(), reading)
        with pytest.raises(OSError, match="ends"):
            await part.hashed(hashlib.sha256())
        await reading.ended()
        assert repr(reading) == "<Reading [0 reads]>"
