"""What a Swift service says when it refuses, as StorageErrors that say what to do.

Swift answers with statuses only; what was asked decides what they mean. Pure: no library, no I/O.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from msrcache.storage.errors import (
    Denied,
    NoSpace,
    NotFound,
    ReadOnly,
    StorageError,
    Unavailable,
    Unusable,
)

NAME: Final = "swift"


class AlreadyThere(StorageError):
    """A condition was not met: something else stands there."""

    result = "exists"


class NoContainer(Unusable):
    """The container is not there."""


class OutOfRange(StorageError):
    """The span starts beyond the end; `size` where the service told it."""

    result = "range"

    def __init__(self, key: str, size: int | None) -> None:
        super().__init__(NAME, key, None, "the span starts beyond the end")
        self.size = size


class Spoiled(Unavailable):
    """What arrived is not what was sent."""


class Answered(Exception):
    """What the service said, as it said it."""


class CredentialsRefused(Unusable):
    """The credentials are not, or no longer, valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What came back instead of an answer."""

    operation: str
    """In words that an operator knows: GET of an object, listing, …"""
    method: str
    key: str
    container: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    said: str = ""
    """The first line of the answer's body."""

    @property
    def cause(self) -> Answered:
        """As an exception."""
        return Answered(f"{self.status} {self.said}".strip())

    @property
    def reads(self) -> bool:
        """Whether nothing was to be changed."""
        return self.method in ("GET", "HEAD")


_BUSY: Final = frozenset({408, 409, 425, 429, 498, 499})
"""Trying again may help; 498 is Swift's own for too many requests."""


def failure(refused: Refusal) -> StorageError:
    """The StorageError for it."""
    return _expected(refused) or _misconfigured(refused) or _unexpected(refused)


def unanswered(where: str, key: str, error: BaseException, *, asking: str = "") -> StorageError:
    """Nobody answers at a URL or host, or somebody whom we do not trust. `asking` is what was asked."""
    if (untrusted := _untrusted(error)) is not None:
        text = f"the certificate of {where} is not trusted ({untrusted}): give its CA as storage.swift.ca"
        return Unusable(NAME, key, None, text)
    text = f"{where} does not answer"
    return Unavailable(NAME, key, error, f"{asking}: {text}" if asking else text)


def _untrusted(error: BaseException) -> str | None:
    """What is wrong with a certificate, if that is it."""
    inner = getattr(error, "certificate_error", error)  # as the HTTP client wraps it
    return inner.verify_message if isinstance(inner, ssl.SSLCertVerificationError) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a service asks for; dates are not understood."""
    text = headers.get("Retry-After", "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def total_of(content_range: str) -> int | None:
    """The size in `bytes */10`, or None."""
    size = content_range.rpartition("/")[2]
    return int(size) if size.isascii() and size.isdigit() else None


def _expected(refused: Refusal) -> StorageError | None:
    """What callers reckon with."""
    key, cause = refused.key, refused.cause
    if refused.status == 404 and key and (refused.reads or refused.method == "DELETE"):
        return NotFound(NAME, key, cause)
    if refused.status == 404:
        text = (
            f"there is no container {refused.container}; create it (`swift post {refused.container}`), or correct"
            " storage.swift.container"
        )
        return NoContainer(NAME, key, cause, text)
    if refused.status == 412:
        return AlreadyThere(NAME, key, cause, "another object stands there")
    if refused.status == 416:
        return OutOfRange(key, total_of(refused.headers.get("Content-Range", "")))
    if refused.status == 422:
        text = f"what was sent with {refused.operation} did not arrive as it was: its checksum is another"
        return Spoiled(NAME, key, cause, text)
    return None


def _misconfigured(refused: Refusal) -> StorageError | None:
    """What somebody has to put right."""
    key, cause = refused.key, refused.cause
    if refused.status == 401:
        text = (
            "the service refuses the token that it was given a moment ago: look whether its clock, and the Keystone"
            " that it asks, are the right ones"
        )
        return CredentialsRefused(NAME, key, cause, text)
    if refused.status == 403:
        right = "read" if refused.reads else "write"
        text = (
            f"{refused.operation} in container {refused.container} is denied; give this user a role on the project, or"
            f" let the container's {right} ACL name it"
        )
        if refused.operation == "listing":
            text += " and .rlistings"
        return Denied(NAME, key, cause, text)
    if refused.status in (413, 507):
        text = "the service takes no more: the account's or container's quota, or its disks, are full"
        return NoSpace(NAME, key, cause, text)
    if refused.status == 405:
        return ReadOnly(NAME, key, cause, f"the service does not allow {refused.operation} there")
    return None


def _unexpected(refused: Refusal) -> StorageError:
    if refused.status in _BUSY or refused.status >= 500:
        text = f"the service cannot do {refused.operation} now"
        asked = retry_after(refused.headers)
        return Unavailable(NAME, refused.key, refused.cause, text, retry_after=asked)
    return StorageError(NAME, refused.key, refused.cause, f"the service refused {refused.operation}")
