"""An upstream's answer that is no content, as the error it means. Pure.

A refusal of the upstream (401, 403, 404 and other 4xx) is passed on as what it is; 5xx is an outage; what a
registry would never say is UpstreamBroken. Every message names the host, so that one reads at once who said
no.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from multidict import CIMultiDictProxy

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
from msrcache.upstream.retry import parse_retry_after

_LONGEST_CODE: Final = 64
_UNKNOWN: Final[Mapping[str, type[RegistryError]]] = {
    kind.code: kind for kind in (NameUnknown, ManifestUnknown, BlobUnknown)
}
_ABSENT: Final[Mapping[str, type[RegistryError]]] = {"manifest": ManifestUnknown, "blob": BlobUnknown}


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer read whole."""

    status: int
    headers: CIMultiDictProxy[str] = field(repr=False)
    body: bytes = field(repr=False)


def media_type(headers: CIMultiDictProxy[str]) -> str:
    """The Content-Type without its parameters, in lower case; "" where there is none."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def content_length(headers: CIMultiDictProxy[str]) -> int | None:
    """The length as the header says it; None where it says none."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def refusal(answer: Whole, *, host: str, kind: str, now: float) -> RegistryError:
    """The error that a status other than 200 and 206 means to a pull of this kind."""
    code, message = _said(answer.body)
    text = f"the upstream {host} says {answer.status}" + (f": {message}" if message else "")
    status = answer.status
    retry_after = parse_retry_after(answer.headers.get("Retry-After"), now)
    match status:
        case 401:
            return Unauthorized(text, tuple(answer.headers.getall("WWW-Authenticate", ())))
        case 403:
            return Denied(text)
        case 404:
            return _UNKNOWN.get(code, _ABSENT.get(kind, NameUnknown))(text)
        case 408:
            return UpstreamUnavailable(text, retry_after=retry_after)
        case 429:
            return TooManyRequests(retry_after, text)
        case _ if status >= 500:
            return UpstreamUnavailable(text, retry_after=retry_after)
        case _ if status < 400:
            return UpstreamBroken(f"the upstream {host} says {status}, which answers no pull")
    return _passed_on(status, code)(text)


def elsewhere(answer: Whole, *, host: str, target: str, now: float) -> RegistryError:
    """The same, where the upstream sent us to another origin: what that one says is no verdict of the registry."""
    text = f"the upstream {host} sent us to {target}, which says {answer.status}"
    if answer.status >= 500 or answer.status in {408, 429}:
        retry_after = parse_retry_after(answer.headers.get("Retry-After"), now)
        return UpstreamUnavailable(text, retry_after=retry_after)
    return UpstreamBroken(text)


def _said(body: bytes) -> tuple[str, str]:
    """Code and message of the first error of a registry's error body; empty where it is none."""
    try:
        entry = json.loads(body)["errors"][0]
        code, message = entry.get("code"), entry.get("message")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "", ""
    return (
        code[:_LONGEST_CODE] if isinstance(code, str) else "",
        message[:300] if isinstance(message, str) else "",
    )


def _passed_on(status: int, code: str) -> type[RegistryError]:
    # Code and status are the class's in this tree; another 4xx of an upstream is a class of its own for a moment.
    return type("PassedOn", (RegistryError,), {"status": status, "code": code or "UNKNOWN"})
