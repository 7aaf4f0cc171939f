"""Promises of access.caller: keyed names for credentials, and expiries that are read but never trusted."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.access.caller import Fingerprints, expiry_of
from msrcache.oci.registry import Credential
from tests.access.upstream import jwt


def test_equal_credentials_have_one_name_and_others_another() -> None:
    """And everybody without a credential is one."""
    names = Fingerprints("secret")
    assert names.of(Credential("Bearer a")) == names.of(Credential("Bearer a"))
    assert len({names.of(Credential(header)) for header in ("Bearer a", "Bearer b", "bearer a", "")}) == 4
    assert names.shown(Credential("")) == "-"


def test_the_name_depends_on_a_secret() -> None:
    """Of the operator where there is one, so that replicas agree; else of the process."""
    credential = Credential("Bearer a")
    assert Fingerprints("one").of(credential) == Fingerprints("one").of(credential)
    assert Fingerprints("one").of(credential) != Fingerprints("two").of(credential)
    assert Fingerprints().of(credential) != Fingerprints().of(credential)


def test_a_header_that_is_no_text_has_a_name() -> None:
    """Bytes that a client sent arrive as lone surrogates."""
    assert len(Fingerprints("x").of(Credential("Bearer \udcff"))) == 32


@pytest.mark.parametrize(("end", "read"), [(1_700_000_000, 1.7e9), (1.5, 1.5), (-3, -3.0), (0, 0.0)])
def test_exp_is_read_from_a_token(end: float, read: float) -> None:
    """As a number of seconds, whole or not."""
    assert expiry_of(Credential(jwt(exp=end, sub="jane"))) == read
    assert expiry_of(Credential(jwt(exp=end).replace("Bearer ", "bearer   "))) == read


@pytest.mark.parametrize("end", [None, "1700000000", True, [1], float("inf"), float("nan"), 10**400])
def test_an_exp_that_is_none_is_left_alone(end: object) -> None:
    """It shortens nothing, and breaks nothing."""
    assert expiry_of(Credential(jwt(exp=end))) is None


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Bearer x", "Bearer a.b", "Bearer a.b.c", "Bearer a.b.c.d", "Basic YTpi", jwt(),
        f"Bearer a.{base64.urlsafe_b64encode(json.dumps([1]).encode()).decode()}.c",
        f"Bearer a.{base64.urlsafe_b64encode(b'[' * 30_000).decode()}.c",
        f"Bearer a.{'A' * 70_000}.c", "Bearer a.é.c", "Bearer a.\udcff.c", "Bearer a._w.c",
    ],
    ids=range(14),
)  # fmt: skip
def test_what_is_no_readable_token_has_no_expiry(header: str) -> None:
    """Opaque tokens, other schemes, hostile JSON."""
    assert expiry_of(Credential(header)) is None


@given(st.text())
def test_no_header_breaks_it(text: str) -> None:
    """Whatever is sent."""
    for header in (text, f"Bearer {text}", f"Bearer a.{text}.c"):
        expiry_of(Credential(header))
