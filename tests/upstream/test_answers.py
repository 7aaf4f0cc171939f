"""What an upstream's status means, always with its name."""

import json

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from msrcache.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    UpstreamBroken,
    UpstreamUnavailable,
)
from msrcache.upstream.answers import Whole, content_length, elsewhere, media_type, refusal


def answer(status: int, body: bytes = b"", *headers: tuple[str, str]) -> Whole:
    """An answer read whole."""
    return Whole(status, CIMultiDictProxy(CIMultiDict(headers)), body)


def said(code: str, message: str = "why") -> bytes:
    """A registry's error body."""
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


@pytest.mark.parametrize(
    ("found", "kind", "error"),
    [
        (answer(403), "blob", Denied),
        (answer(404), "blob", BlobUnknown),
        (answer(404), "manifest", ManifestUnknown),
        (answer(404), "tags", NameUnknown),
        (answer(404, said("NAME_UNKNOWN")), "manifest", NameUnknown),
        (answer(404, said("MANIFEST_UNKNOWN")), "blob", ManifestUnknown),
        (answer(404, said("STRANGE")), "blob", BlobUnknown),
        (answer(404, b"<html>"), "blob", BlobUnknown),
        (answer(429), "blob", TooManyRequests),
        (answer(408), "blob", UpstreamUnavailable),
        (answer(500), "blob", UpstreamUnavailable),
        (answer(599), "blob", UpstreamUnavailable),
        (answer(204), "blob", UpstreamBroken),
        (answer(304), "blob", UpstreamBroken),
    ],
)
def test_status_to_error(found: Whole, kind: str, error: type[RegistryError]) -> None:
    """By status, by code where the body has a known one, by the pull's kind where not."""
    made = refusal(found, host="reg.example", kind=kind, now=0)
    assert type(made) is error
    assert "reg.example" in made.message


def test_401_keeps_every_challenge() -> None:
    """Values verbatim, in their order."""
    values = ('Bearer realm="x",scope="a"', "Basic realm=y")
    found = answer(401, b"", *(("WWW-Authenticate", value) for value in values))
    made = refusal(found, host="h", kind="blob", now=0)
    assert isinstance(made, Unauthorized)
    assert made.challenges == values


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_is_kept(status: int) -> None:
    """What the upstream asked for is known to whoever tries again."""
    assert refusal(answer(status, b"", ("Retry-After", "7")), host="h", kind="blob", now=0).retry_after == 7
    assert refusal(answer(status), host="h", kind="blob", now=0).retry_after is None


def test_another_4xx_passes_as_it_is() -> None:
    """Status and code of the upstream, whatever they are."""
    made = refusal(answer(451, said("LEGAL", "not here")), host="h", kind="blob", now=0)
    assert (made.status, made.code) == (451, "LEGAL")
    assert json.loads(made.body())["errors"][0] == {
        "code": "LEGAL",
        "message": "the upstream h says 451: not here",
    }


@pytest.mark.parametrize("body", [b"[]", b'{"errors":[]}', b'{"errors":[3]}', b"{", b"\xff", b"[" * 9000])
def test_nonsense_is_no_code(body: bytes) -> None:
    """An error body that is none changes nothing."""
    assert refusal(answer(410, body), host="h", kind="blob", now=0).code == "UNKNOWN"


def test_another_origins_refusal_is_no_verdict() -> None:
    """A bucket's 403 or 404 must not become Denied or BlobUnknown."""
    for status in (401, 403, 404, 410):
        made = elsewhere(answer(status), host="reg.example", target="bucket.example", now=0)
        assert type(made) is UpstreamBroken
        assert "reg.example" in made.message
        assert "bucket.example" in made.message
    for status in (408, 429, 500, 503):
        made = elsewhere(answer(status), host="reg.example", target="bucket.example", now=0)
        assert type(made) is UpstreamUnavailable


def test_headers() -> None:
    """Types without parameters, lengths only where they are numbers."""
    headers = answer(200, b"", ("Content-Type", "Text/HTML; charset=x"), ("Content-Length", "12")).headers
    assert (media_type(headers), content_length(headers)) == ("text/html", 12)
    for text in ("", "-1", "1e3", "٣", "9" * 30):
        assert content_length(answer(200, b"", ("Content-Length", text)).headers) is None
