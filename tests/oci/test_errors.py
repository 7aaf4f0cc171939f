"""The tree of errors: codes, statuses, bodies, and that nothing in them can hurt a log."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.oci import errors
from msrcache.oci.digest import Digest
from msrcache.oci.errors import (
    STATUSES,
    ContentMismatch,
    Denied,
    RangeInvalid,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unsupported,
    UpstreamBroken,
    UpstreamUnavailable,
    is_refusal,
    shown,
)

A, B = Digest.of(b"a"), Digest.of(b"b")


def every_error() -> list[RegistryError]:
    """One of each class in the module."""
    special: dict[type[RegistryError], RegistryError] = {
        RangeInvalid: RangeInvalid(10),
        ContentMismatch: ContentMismatch(A, B, 1),
    }
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RegistryError)
    ]
    return [special[kind] if kind in special else kind() for kind in kinds]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_every_error_says_what_clients_expect(error: RegistryError) -> None:
    """The specification's JSON with a known code and words, and a status that fits the code."""
    document = json.loads(error.body())
    assert document == {"errors": [{"code": error.code, "message": error.message}]}
    assert error.message
    assert str(error) == error.message
    if isinstance(error, UpstreamBroken):
        assert (error.code, error.status) == ("UNKNOWN", 502)
    else:
        assert STATUSES[error.code] == error.status


def test_the_table_is_that_of_the_registries() -> None:
    """Codes and statuses as the specification and Docker Registry have them."""
    assert {
        **dict.fromkeys(["DIGEST_INVALID", "NAME_INVALID", "TAG_INVALID", "MANIFEST_INVALID"], 400),
        "PAGINATION_NUMBER_INVALID": 400,
        "UNAUTHORIZED": 401,
        "DENIED": 403,
        **dict.fromkeys(["NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"], 404),
        "UNSUPPORTED": 405,
        "RANGE_INVALID": 416,
        "TOOMANYREQUESTS": 429,
        "UNKNOWN": 500,
        "UNAVAILABLE": 503,
    } == STATUSES


def test_only_answers_about_the_caller_are_refusals() -> None:
    """What a joiner must never inherit, and nothing besides."""
    refusals = {type(error).__name__ for error in every_error() if is_refusal(error)}
    assert refusals == {"Unauthorized", "Denied", "NameUnknown", "ManifestUnknown", "BlobUnknown"}
    assert not is_refusal(ValueError())


def test_a_body_is_made_once() -> None:
    """A flood of equal errors costs one encoding each."""
    error = Denied("no", detail={"why": ["é", 1]})
    assert error.body() is error.body()
    assert json.loads(error.body())["errors"][0]["detail"] == {"why": ["é", 1]}


def looped() -> list[object]:
    """A detail without end."""
    detail: list[object] = []
    detail.append(detail)
    return detail


def deep() -> list[object]:
    """A detail deeper than the encoder goes."""
    detail: list[object] = []
    for _ in range(100_000):
        detail = [detail]
    return detail


@pytest.mark.parametrize("detail", [object(), {1, 2}, {(1, 2): 3}, math.nan, looped(), b"bytes"], ids=repr)
def test_a_detail_that_is_no_json_is_left_out(detail: object) -> None:
    """Code and message arrive whatever an upstream said."""
    document = json.loads(RegistryError("words", detail=detail).body())
    assert document["errors"] == [{"code": "UNKNOWN", "message": "words"}]


def test_a_detail_without_bottom_is_left_out() -> None:
    """Depth ends in an answer, not in a RecursionError."""
    assert b'"words"' in RegistryError("words", detail=deep()).body()


@given(st.text())
def test_an_error_is_one_line_of_printable_text(text: str) -> None:
    """No stranger writes a line of the log, turns the terminal's colours or breaks its encoding."""
    error = RegistryError(text)
    assert str(error).isprintable()
    assert len(str(error).splitlines()) == 1
    str(error).encode()
    assert json.loads(error.body())["errors"][0]["message"] == error.message


def test_a_long_text_is_cut() -> None:
    """Neither a message nor what it quotes grows with what was sent."""
    assert len(str(RegistryError("x" * 10_000))) == 1001
    assert shown("y" * 10_000) == '"' + "y" * 80 + '…"'
    assert shown("a\r\nb") == '"a��b"'


def test_challenges_are_kept_verbatim_and_out_of_the_log() -> None:
    """Several values, in their order; no header repeats them and no message shows them."""
    challenges = ('Bearer realm="https://msr/auth/token",service="msr"', 'Basic realm="x"')
    error = Unauthorized("who are you", challenges)
    assert error.challenges == challenges
    assert "realm" not in str(error)
    assert dict(error.headers) == {}
    assert Unauthorized().challenges == ()


def test_what_to_do_instead_stands_in_headers() -> None:
    """Allow of a 405, Content-Range of a 416, Retry-After in whole seconds, never rounded down."""
    assert dict(Unsupported().headers) == {"Allow": "GET, HEAD"}
    assert dict(Unsupported(allow="").headers) == {"Allow": ""}
    assert dict(RangeInvalid(7).headers) == {"Content-Range": "bytes */7"}
    assert RangeInvalid(7).size == 7
    assert dict(Unavailable("later", retry_after=1.2).headers) == {"Retry-After": "2"}
    assert dict(TooManyRequests(30).headers) == {"Retry-After": "30"}
    assert dict(RegistryError(headers={"X": "y"}, retry_after=0).headers) == {"Retry-After": "0", "X": "y"}


@pytest.mark.parametrize(
    ("given_", "kept"), [(None, None), (math.nan, None), (-1.0, 0.0), (math.inf, 86_400.0), (2.5, 2.5)]
)
def test_a_wait_is_bounded(given_: float | None, kept: float | None) -> None:
    """An upstream's Retry-After may be anything; ours is between nothing and a day."""
    error = Unavailable(retry_after=given_)
    assert error.retry_after == kept
    assert ("Retry-After" in error.headers) == (kept is not None)


def test_an_outage_is_unavailable_and_a_mismatch_is_broken() -> None:
    """The tree that handlers and flights match on."""
    assert isinstance(UpstreamUnavailable(), Unavailable)
    assert UpstreamUnavailable().retry_after == 5.0
    assert isinstance(ContentMismatch(A, B, 1), UpstreamBroken)


def test_a_mismatch_tells_the_length_only_where_it_is_wrong() -> None:
    """`received 3 of 4 bytes` against `received 3 bytes`."""
    assert "received 3 of 4 bytes" in str(ContentMismatch(A, B, 3, wanted=4))
    assert "received 3 bytes" in str(ContentMismatch(A, B, 3, wanted=3))
    assert "received 3 bytes" in str(ContentMismatch(A, B, 3))
