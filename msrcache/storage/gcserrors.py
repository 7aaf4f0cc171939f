"""What Google Cloud Storage says when it refuses, as StorageErrors that say what to do.

A refusal is a status, and mostly a JSON document with a reason and a message; bodies of objects are refused with the
message alone. Pure: no SDK, no I/O.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from msrcache.storage.errors import (
    Denied,
    NoSpace,
    NotFound,
    StorageError,
    Unavailable,
    Unusable,
)

NAME: Final = "gcs"
LONGEST: Final = 300
"""Signs of the service's own message that are told."""


class AlreadyThere(StorageError):
    """A condition was not met: something else stands there."""

    result = "exists"


class NoSuchUpload(StorageError):
    """The upload is not known: it was ended, cancelled, or is older than a week."""

    result = "noupload"


class OutOfRange(StorageError):
    """The span starts beyond the end; `size` where the service told it."""

    result = "range"

    def __init__(self, key: str, size: int | None) -> None:
        super().__init__(NAME, key, None, "the span starts beyond the end")
        self.size = size


class Answered(Exception):
    """What the service said, as it said it."""


class CredentialsRefused(Unusable):
    """The credentials are not, or no longer, valid: look for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What came back instead of an answer."""

    operation: str
    """As its permission is called: objects.get, objects.create, …"""
    key: str
    bucket: str
    status: int
    reason: str = ""
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    session: bool = False
    """Whether an upload that was begun was spoken to."""

    @property
    def cause(self) -> Answered:
        """For the error's text."""
        said = " ".join(self.message.split())[:LONGEST]
        return Answered(" ".join(filter(None, (str(self.status), self.reason, said))))


_PERMISSION: Final = re.compile(r"storage\.[a-z]+\.[a-zA-Z]+")
_LATER: Final = frozenset(
    {
        "rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "backendError", "internalError", "slowDown",
        "dailyLimitExceeded", "limitExceeded", "badDigest",
    }
)  # fmt: skip
"""Trying again may help, whatever the status."""
_OF_OBJECTS: Final = ("objects.get", "objects.delete")
"""What can miss an object; the others miss their bucket."""
_SPOILED: Final = re.compile(r"(?i)(crc32c|md5|hash|checksum).*(match|mismatch|invalid)|doesn't match")
_NOT_ALLOWED: Final = {
    "retentionPolicyNotMet": "a retention policy or hold keeps the object; the cache cannot delete or replace it",
    "objectUnderActiveHold": "a hold keeps the object; the cache cannot delete or replace it",
}
_MISUSED: Final = {
    "accountDisabled": "the project's billing is disabled; enable it",
    "projectNotFound": "the project of the bucket is not there any more",
    "userProjectMissing": "the bucket makes its readers pay, which this cache does not; switch requester pays off",
    "required": "the bucket makes its readers pay, which this cache does not; switch requester pays off",
    "accessNotConfigured": "the Cloud Storage API is disabled in the project; enable it",
    "SERVICE_DISABLED": "the Cloud Storage API is disabled in the project; enable it",
}


def refusal_of(body: bytes) -> tuple[str, str]:
    """Reason and message of an error's body; the text itself where it is no document."""
    text = body.decode(errors="replace")
    try:
        error = json.loads(text)["error"]
        if isinstance(error, str):  # as token services answer
            return error, str(json.loads(text).get("error_description", ""))
        first = (error.get("errors") or [{}])[0]
        return str(first.get("reason", "")), str(error.get("message") or first.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", text


def failure(refused: Refusal) -> StorageError:
    """The StorageError for it."""
    return _expected(refused) or _later(refused) or _misconfigured(refused) or _unexpected(refused)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a service asks for; dates are not understood."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def _expected(refused: Refusal) -> StorageError | None:
    """What callers reckon with."""
    key, cause, status = refused.key, refused.cause, refused.status
    if refused.session and status in (404, 410, 499):
        return NoSuchUpload(NAME, key, cause, "the upload is not known any more")
    if status == 412:
        return AlreadyThere(NAME, key, cause, "something else stands there")
    if status == 416:
        size = refused.headers.get("content-range", "").rpartition("/")[2]
        return OutOfRange(key, int(size) if size.isdigit() else None)
    if status == 404 and refused.operation in _OF_OBJECTS and not _of_bucket(refused):
        return NotFound(NAME, key, cause)
    return None


def _later(refused: Refusal) -> StorageError | None:
    spoiled = refused.status == 400 and _SPOILED.search(refused.message) is not None
    if (
        not spoiled
        and refused.reason not in _LATER
        and refused.status not in (408, 409, 429)
        and not 500 <= refused.status != 507
    ):
        return None
    what = "the bytes were spoiled on their way" if spoiled else refused.reason or f"status {refused.status}"
    text = f"the service cannot do {refused.operation} now: {what}"
    return Unavailable(NAME, refused.key, refused.cause, text, retry_after=retry_after(refused.headers))


def _misconfigured(refused: Refusal) -> StorageError | None:
    """What somebody has to put right."""
    key, cause, bucket = refused.key, refused.cause, refused.bucket
    if refused.status == 404:
        text = f"there is no bucket {bucket}; create it, or correct storage.gcs.bucket"
        return Unusable(NAME, key, cause, text)
    if refused.status == 401:
        text = "the credentials are not valid, or no longer; new ones are looked for with the next request"
        return CredentialsRefused(NAME, key, cause, text)
    if refused.reason in _MISUSED:
        return Unusable(NAME, key, cause, f"bucket {bucket}: {_MISUSED[refused.reason]}")
    if refused.status in (413, 507):
        return NoSpace(NAME, key, cause, "the service takes no more")
    if refused.reason in _NOT_ALLOWED:
        return Denied(NAME, key, cause, _NOT_ALLOWED[refused.reason])
    if refused.status == 403:
        return Denied(NAME, key, cause, _denied(refused))
    return None


def _unexpected(refused: Refusal) -> StorageError:
    said = refused.reason or f"status {refused.status}"
    return StorageError(NAME, refused.key, refused.cause, f"the service refused {refused.operation}: {said}")


def _of_bucket(refused: Refusal) -> bool:
    return "bucket does not exist" in refused.message.lower()


def _denied(refused: Refusal) -> str:
    told = _PERMISSION.search(refused.message)
    permission = told[0] if told else f"storage.{refused.operation}"
    text = f"{refused.operation} on bucket {refused.bucket} is denied; allow {permission}"
    if permission == "storage.objects.get":
        text += ", and storage.objects.list, without which the service also says so of what is not there"
    if permission == "storage.objects.delete" and refused.operation == "objects.create":
        text += ", without which nothing that stands can be replaced"
    return text
