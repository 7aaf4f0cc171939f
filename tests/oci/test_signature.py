"""Requests between replicas: a signature is of one request, and of one secret."""

import hmac
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from msrcache.oci.signature import CONTENT, SALT, SIGNATURE, Said, content_of, is_signed, said, sign

SECRET = b"equal on all replicas"
FIELDS = ("method", "target", "range", "content", "salt")
TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=40)
requests = st.builds(
    lambda method, target, span, body: said(method, target, span=span, body=body),
    st.sampled_from(["GET", "POST"]),
    TEXT,
    TEXT,
    st.binary(max_size=100),
)


@given(what=requests)
def test_what_was_said_is_signed(what: Said) -> None:
    """The signature that goes along is the request's own."""
    told = what.headers(SECRET)
    assert is_signed(SECRET, what, told[SIGNATURE])
    assert (told[SALT], told[CONTENT], told.get("Range", "")) == (what.salt, what.content, what.range)


@given(what=requests, field=st.sampled_from(FIELDS), other=TEXT)
def test_each_part_is_signed(what: Said, field: str, other: str) -> None:
    """Whatever is changed, by one character or wholly, the signature is not its."""
    right = sign(SECRET, what)
    for text in (other, getattr(what, field) + "0", getattr(what, field)[1:]):
        if text != getattr(what, field):
            assert not is_signed(SECRET, replace(what, **{field: text}), right)


@given(what=requests, cut=st.integers(1, 20))
def test_no_byte_moves_from_one_part_to_the_next(what: Said, cut: int) -> None:
    """A target that ends where another's range begins is another request."""
    assume(len(what.target) >= cut)
    moved = replace(what, target=what.target[:-cut], range=what.target[-cut:] + what.range)
    assert sign(SECRET, moved) != sign(SECRET, what)


@given(what=requests, secret=st.binary(max_size=80))
def test_another_secret_is_another_fleet(what: Said, secret: bytes) -> None:
    """Nobody signs without the secret."""
    assume(secret.rstrip(b"\0") != SECRET)  # HMAC fills keys up with zeros
    assert not is_signed(SECRET, what, sign(secret, what))


@given(
    parts=st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT),
    told=st.text(max_size=80),
    bytes_=st.binary(max_size=20),
)
def test_nothing_that_a_stranger_sends_raises(
    parts: tuple[str, str, str, str, str], told: str, bytes_: bytes
) -> None:
    """Whatever stands in the headers, bytes that are no UTF-8 included: no, and no error."""
    odd = bytes_.decode("utf-8", "surrogateescape")
    method, target, span, content, salt = parts
    what = Said(method=method, target=target + odd, range=span, content=content, salt=salt)
    assert not is_signed(SECRET, what, told)
    assert not is_signed(SECRET, said("GET", odd), told)
    assert not is_signed(SECRET, said("GET", "/"), odd + told)


@pytest.mark.parametrize("salt", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32])
def test_a_salt_is_spelled_in_one_way(salt: str) -> None:
    """Two spellings of one salt would be good twice."""
    what = Said(method="GET", target="/", content=content_of(b""), salt=salt)
    assert not is_signed(SECRET, what, sign(SECRET, what))


def test_salts_do_not_repeat() -> None:
    """Each request has its own."""
    assert len({said("GET", "/").salt for _ in range(1000)}) == 1000


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the function that is made for it, over all of both."""
    compared = []

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac_compare(one, other)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", spy)
    what = said("GET", "/")
    assert not is_signed(SECRET, what, "0" * 64)
    assert compared == [(sign(SECRET, what).encode(), b"0" * 64)]
