"""Promises of telemetry.redaction: no credential survives, and sentences about credentials stay readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.telemetry.redaction import MASK, redact, redact_text


@pytest.mark.parametrize(
    "key",
    ["authorization", "Authorization", "proxy_password", "http.secret", "token", "Set-Cookie", "secretkey",
     "accesskey", "account_key", "credential", "private-key"],
)  # fmt: skip
def test_what_a_key_names_as_secret_is_masked(key: str) -> None:
    """Whatever form the value has."""
    for value in ("hush", b"hush", ["hush"], {"inner": "hush"}):
        assert redact(key, value) == MASK


def test_counts_and_absent_values_pass() -> None:
    """A number of tokens is no token; an empty one shows that it is empty."""
    assert [redact("tokens", value) for value in (3, 1.5, True, None, "")] == [3, 1.5, True, None, ""]


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hush.hush-hush_hush",
        "header was 'Basic hushhush=='",
        "BEARER hush~hush",
        "https://user:hush@proxy.example:3128/",
        "GET /v2/a/blobs/x?token=hush&n=1",
        "https://b.s3.example/o?X-Amz-Signature=hush&X-Amz-Credential=hush%2F1&X-Amz-Security-Token=hush",
        "https://acct.blob.example/c/o?sv=2020&sig=hush%3D",
        'answered {"access_token": "hush", "refresh_token":"hush"}',
        "password=hush",
    ],
)
def test_credentials_in_text_are_masked(text: str) -> None:
    """In headers, URLs, queries and the answers of token services."""
    masked = redact_text(text)
    assert "hush" not in masked
    assert MASK in masked


@pytest.mark.parametrize(
    "text",
    [
        'Bearer realm="https://msr.example/auth/token",service="msr",scope="repository:a/b:pull"',
        'Basic realm="Registry"',
        "the upstream wants Basic authentication",
        "a Bearer token that has expired",
        "https://msr.example:443/v2/a/b/manifests/1.2?ns=docker.io",
        "n=3 last=5",
    ],
)
def test_challenges_and_prose_stay_readable(text: str) -> None:
    """What the person at night needs is not masked."""
    assert redact_text(text) == text


def test_nested_values_are_masked_where_they_stand() -> None:
    """Mappings and lists are walked, without end only to a depth."""
    value: dict[str, object] = {
        "headers": {"Authorization": "hush", "Accept": "x"},
        "list": [b"Basic hushhush"],
    }
    assert redact("request", value) == {
        "headers": {"Authorization": MASK, "Accept": "x"},
        "list": [f"Basic {MASK}"],
    }
    endless: dict[str, object] = {"url": "https://u:hush@h/"}
    endless["self"] = endless
    assert "hush" not in repr(redact("loop", endless))


@given(st.text())
def test_any_text_can_be_redacted_again(text: str) -> None:
    """Redaction never fails, and a second pass changes nothing."""
    once = redact_text(text)
    assert redact_text(once) == once


@given(st.from_regex(r"[A-Za-z0-9+/]{6,40}={0,2}", fullmatch=True).map(lambda s: "Zz9" + s))
def test_no_basic_credential_survives(credential: str) -> None:
    """Base64 of any length is recognised."""
    assert credential not in redact_text(f"sent Basic {credential}, refused")
