"""Digests and the incremental hasher."""

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.oci.digest import Digest, Hasher
from msrcache.oci.errors import ContentMismatch, DigestInvalid

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HEX = EMPTY.removeprefix("sha256:")


@given(st.binary(max_size=200), st.sampled_from(["sha256", "sha512"]))
def test_the_digest_of_bytes_is_what_hashlib_says_and_reads_back(data: bytes, algorithm: str) -> None:
    """Digest.of agrees with an independent hash, and parse undoes str."""
    digest = Digest.of(data, algorithm)
    assert str(digest) == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        HEX,
        "sha256:",
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY + "\n",
        "sha256:" + HEX.upper(),
        "SHA256:" + HEX,
        "sha512:" + HEX,
        "sha384:" + "0" * 96,
        "md5:" + "0" * 32,
        "sha256:" + "g" * 64,
        "sha256:" + "\N{ARABIC-INDIC DIGIT ZERO}" * 64,
        "sha256:../" + "0" * 61,
        " " + EMPTY,
        "sha256::" + HEX,
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    """Other algorithms, lengths, upper case and foreign digits are DIGEST_INVALID."""
    with pytest.raises(DigestInvalid) as caught:
        Digest.parse(text)
    assert caught.value.status == 400


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    """A parser of strangers' text has one error, and what it accepts it gives back."""
    with suppress(DigestInvalid):
        assert str(Digest.parse(text)) == text


def test_a_digest_cannot_be_made_wrong() -> None:
    """The constructor is no way around the grammar: a digest becomes part of a key."""
    with pytest.raises(DigestInvalid):
        Digest("sha256", "../../etc/passwd")


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_pieces_hash_like_the_whole(pieces: list[bytes]) -> None:
    """Whatever the pieces and their types, size and digest are those of the whole."""
    hasher = Hasher("sha512")
    for number, piece in enumerate(pieces):
        kinds = (piece, bytearray(piece), memoryview(piece))
        hasher.update(kinds[number % 3])
    whole = b"".join(pieces)
    assert hasher.size == len(whole)
    assert hasher.digest() == Digest.of(whole, "sha512")
    hasher.verify(Digest.of(whole, "sha512"), len(whole))


def test_a_view_counts_bytes_not_items() -> None:
    """The length of a view of wider items is not its size."""
    hasher = Hasher()
    hasher.update(memoryview(b"12345678").cast("I"))
    hasher.verify(Digest.of(b"12345678"), 8)


def test_a_copy_goes_its_own_way() -> None:
    """What one takes after copying, the other never sees."""
    first = Hasher()
    first.update(b"one")
    second = first.copy()
    second.update(b"two")
    first.verify(Digest.of(b"one"), 3)
    second.verify(Digest.of(b"onetwo"), 6)


def test_wrong_bytes_are_a_mismatch_that_tells_both_digests() -> None:
    """ContentMismatch carries what was expected and what came."""
    hasher = Hasher()
    hasher.update(b"other")
    with pytest.raises(ContentMismatch) as caught:
        hasher.verify(Digest.parse(EMPTY))
    error = caught.value
    assert (error.expected, error.actual, error.size) == (Digest.parse(EMPTY), Digest.of(b"other"), 5)
    assert EMPTY in str(error)
    assert str(error.actual) in str(error)


def test_a_wrong_size_is_a_mismatch_even_where_the_digest_agrees() -> None:
    """A descriptor that lies about the size is refused as the digest is."""
    hasher = Hasher()
    hasher.update(b"data")
    with pytest.raises(ContentMismatch, match="received 4 of 5 bytes"):
        hasher.verify(Digest.of(b"data"), 5)


def test_an_unknown_algorithm_cannot_hash() -> None:
    """md5 exists in hashlib, and is refused all the same."""
    with pytest.raises(DigestInvalid):
        Hasher("md5")
    with pytest.raises(DigestInvalid):
        Digest.of(b"", "sha1")


def test_a_hasher_tells_its_state() -> None:
    """For /debug and failing tests: algorithm and bytes so far."""
    hasher = Hasher()
    hasher.update(b"abc")
    assert repr(hasher) == "<Hasher sha256 [3 bytes]>"
