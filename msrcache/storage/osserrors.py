"""What OSS says when it refuses, as StorageErrors that say what to do.

Codes are those of Alibaba Cloud's documentation; a HEAD is refused with the code in a header, which the SDK reads.
Pure: no SDK, no I/O.
"""

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

NAME: Final = "oss"


class AlreadyThere(StorageError):
    """A condition was not met: something stands there."""

    result = "exists"


class NoSuchUpload(StorageError):
    """The upload is not known: it was completed, aborted, or swept."""

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
    """By the API's name, such as GetObject."""
    key: str
    bucket: str
    code: str
    status: int
    where: str = ""
    """The configured endpoint."""
    region: str = ""
    details: Mapping[str, object] = field(default_factory=dict)
    """All elements of the error document."""
    headers: Mapping[str, str] = field(default_factory=dict)
    cause: BaseException | None = None

    def detail(self, name: str) -> str:
        """An element of the error document, "" without it."""
        return str(self.details.get(name) or "")


_PERMISSIONS: Final = {
    "GetObject": "oss:GetObject",
    "HeadObject": "oss:GetObject",
    "PutObject": "oss:PutObject",
    "InitiateMultipartUpload": "oss:PutObject",
    "UploadPart": "oss:PutObject",
    "CompleteMultipartUpload": "oss:PutObject",
    "AbortMultipartUpload": "oss:AbortMultipartUpload",
    "DeleteObject": "oss:DeleteObject",
    "DeleteMultipleObjects": "oss:DeleteObject",
    "ListObjectsV2": "oss:ListObjects",
    "ListMultipartUploads": "oss:ListMultipartUploads",
    "ListParts": "oss:ListParts",
}
"""What must be allowed for an operation."""

_NOT_FOUND: Final = frozenset({"NoSuchKey", "NoSuchVersion"})
_BUSY: Final = frozenset(
    {
        "SlowDown", "ServerBusy", "ServiceUnavailable", "InternalError", "RequestTimeout", "TooManyRequests",
        "Throttling", "DownloadTrafficRateLimitExceeded", "UploadTrafficRateLimitExceeded", "QpsLimitExceeded",
        "OperationAborted", "IncompleteBody", "InvalidDigest",
    }
)  # fmt: skip
"""Trying again may help; what was spoiled on its way belongs here too."""
_RENEWED: Final = (
    "the security token has expired or is not valid; a new one is looked for with the next request"
)
_CREDENTIALS: Final = {
    "InvalidAccessKeyId": "the access key is not known there; correct accesskeyid, or what the environment gives",
    "InvalidAccessKeyIdSecret": "the access key is not known there; correct accesskeyid and accesskeysecret",
    "SignatureDoesNotMatch": (
        "the secret does not belong to the access key, or a proxy changes the requests: correct accesskeysecret"
    ),
    "SecurityTokenExpired": _RENEWED,
    "InvalidSecurityToken": _RENEWED,
    "SecurityTokenNotSupported": _RENEWED,
    "RequestTimeTooSkewed": "this machine's clock is wrong: the service refuses the signature's time",
    "UserDisable": "the account is switched off, mostly for an unpaid bill",
}
_IMMUTABLE: Final = frozenset({"FileImmutable", "ObjectWormLocked"})


def failure(refused: Refusal) -> StorageError:
    """The StorageError for it."""
    return _expected(refused) or _misconfigured(refused) or _unexpected(refused)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a service asks for; dates are not understood."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def _expected(refused: Refusal) -> StorageError | None:
    """What callers reckon with."""
    key, cause, code = refused.key, refused.cause, refused.code
    if code == "NoSuchUpload":
        return NoSuchUpload(NAME, key, cause, "the upload is not known any more")
    if code in _NOT_FOUND or (refused.status == 404 and code != "NoSuchBucket"):
        return NotFound(NAME, key, cause)
    if code in ("FileAlreadyExists", "PreconditionFailed") or refused.status == 412:
        return AlreadyThere(NAME, key, cause, "something stands there already")
    if code == "InvalidRange" or refused.status == 416:
        size = refused.detail("ActualObjectSize")
        return OutOfRange(key, int(size) if size.isdigit() else None)
    return None


def _misconfigured(refused: Refusal) -> StorageError | None:
    """What somebody has to put right."""
    key, cause, code = refused.key, refused.cause, refused.code
    if code == "NoSuchBucket":
        text = f"there is no bucket {refused.bucket}; create it, or correct storage.oss.bucket"
        return Unusable(NAME, key, cause, text)
    if (place := _elsewhere(refused)) is not None:
        return Unusable(NAME, key, cause, place)
    if code in _CREDENTIALS:
        return CredentialsRefused(NAME, key, cause, _CREDENTIALS[code])
    if code in _IMMUTABLE:
        text = f"a retention policy of bucket {refused.bucket} forbids {refused.operation}; take one without"
        return ReadOnly(NAME, key, cause, text)
    if code in ("EntityTooLarge", "QuotaExceeded") or refused.status == 507:
        return NoSpace(
            NAME, key, cause, "the service takes no more: the object is too large or the quota full"
        )
    if refused.status == 403 and code != "InvalidObjectState":
        return Denied(NAME, key, cause, _denied(refused))
    return None


def _unexpected(refused: Refusal) -> StorageError:
    if refused.code == "InvalidObjectState":
        text = "the object is archived; restore it, or delete it so that it is stored anew"
        return StorageError(NAME, refused.key, refused.cause, text)
    if refused.code in _BUSY or refused.status in (408, 429) or refused.status >= 500:
        text = f"the service cannot do {refused.operation} now: {refused.code}"
        asked = retry_after(refused.headers)
        return Unavailable(NAME, refused.key, refused.cause, text, retry_after=asked)
    text = f"the service refused {refused.operation}: {refused.code}"
    return StorageError(NAME, refused.key, refused.cause, text)


def _elsewhere(refused: Refusal) -> str | None:
    """That the bucket is not where it is looked for."""
    if endpoint := refused.detail("Endpoint"):
        right = "correct storage.oss.region and endpoint"
        return f"the bucket {refused.bucket} is served at {endpoint}, not at {refused.where}: {right}"
    if refused.code == "InvalidArgument" and "region" in refused.detail("Message").lower():
        return f"the service at {refused.where} is not of region {refused.region}: correct storage.oss.region"
    if refused.code == "SecondLevelDomainForbidden":
        return f"{refused.where} wants the bucket before its host name: leave storage.oss.forcepathstyle out"
    return None


def _denied(refused: Refusal) -> str:
    permission = _PERMISSIONS.get(refused.operation, refused.operation)
    return f"{refused.operation} on bucket {refused.bucket} is denied; allow {permission}"
