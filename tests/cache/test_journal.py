"""What is written down of uses is read as it was meant, or not at all."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.cache.journal import (
    Unreadable,
    UseRecord,
    journal_text,
    merged_text,
    read_journal,
    read_merged,
)
from msrcache.oci.digest import Digest

DIGESTS = st.one_of(
    st.binary(max_size=8).map(Digest.of), st.binary(max_size=8).map(lambda data: Digest.of(data, "sha512"))
)
STAMPS = st.integers(0, 2**40).map(lambda stamp: stamp / 8)


@given(st.lists(DIGESTS, unique=True))
def test_a_journal_is_read_as_it_was_written(digests: list[Digest]) -> None:
    """Every digest comes back, in its order, from JSON Lines with a version."""
    data = journal_text(digests)
    assert read_journal(data) == digests
    assert [json.loads(line) for line in data.splitlines()] == [{"v": 1}, *(str(one) for one in digests)]


@given(st.dictionaries(DIGESTS, st.builds(UseRecord, STAMPS, STAMPS, st.integers(0, 2**50))))
def test_merged_records_are_read_as_they_were_written(records: dict[Digest, UseRecord]) -> None:
    """To the thousandth of a second."""
    assert read_merged(merged_text(records)) == records


@pytest.mark.parametrize("read", [read_journal, read_merged])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no JSON\n",
        b"[]\n",
        b'{"v": 2}\n',
        b'{"v": true}\n',
        b'{"v": "1"}\n',
        b'{"v": 1}\n"sha256:12',
        b'{"v": 1}\n[1]\n',
        b'{"v": 1}\n{}\n',
        b'{"v": 1}\n"sha256:12"\n',
        b'{"v": 1}\n["sha256:12", 1, 1, 1]\n',
        b'{"v": 1}\n7\n',
        b"\xff\xfe",
    ],
)
def test_what_cannot_be_read_is_not_guessed(read: object, data: bytes) -> None:
    """A torn record, another form or a later version is Unreadable, never half of it."""
    assert callable(read)
    with pytest.raises(Unreadable):
        read(data)


@given(st.binary(max_size=64))
def test_whatever_stands_there_is_read_or_unreadable(data: bytes) -> None:
    """No other error, whatever the bytes are."""
    for read in (read_journal, read_merged):
        for text in (data, b'{"v": 1}\n' + data):
            with contextlib.suppress(Unreadable):
                read(text)


def test_what_a_later_version_adds_is_ignored() -> None:
    """Fields more in the header and in a record."""
    digest = Digest.of(b"x")
    assert read_journal(f'{{"v": 1, "host": "a"}}\n"{digest}"\n'.encode()) == [digest]
    merged = f'{{"v": 1}}\n["{digest}", 3.0, 2.0, 1, "more"]\n'.encode()
    assert read_merged(merged) == {digest: UseRecord(3.0, 2.0, 1)}
