"""What an S3 service says when it refuses, as StorageErrors that say what to do.

Codes are those of Amazon S3 and of what is made like it. A HEAD is refused without a body: then only the status is
known, and a header or two. Pure: no SDK, no I/O.
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

NAME: Final = "s3"


class AlreadyThere(StorageError):
    """A condition was not met: something stands there."""

    result = "exists"


class Conflict(Unavailable):
    """Somebody else writes the same key at this moment: ask again."""


class NoSuchUpload(StorageError):
    """The upload is not known: it was completed, aborted, or swept."""

    result = "noupload"


class OutOfRange(StorageError):
    """The span starts beyond the end; `size` where the service told it."""

    result = "range"

    def __init__(self, key: str, size: int | None) -> None:
        super().__init__(NAME, key, None, "the span starts beyond the end")
        self.size = size


class NotImplementedThere(StorageError):
    """The service does not know a header that was sent; `header` where it says which."""

    result = "notimplemented"

    def __init__(self, key: str, cause: BaseException | None, header: str) -> None:
        super().__init__(NAME, key, cause, "the service does not know something that was asked")
        self.header = header


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
    region: str = ""
    """The configured one."""
    details: Mapping[str, object] = field(default_factory=dict)
    """Further elements of the error document."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """In lower case."""
    cause: BaseException | None = None


_PERMISSIONS: Final = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "HeadBucket": "s3:ListBucket",
}
"""What must be allowed for an operation."""

_NOT_FOUND: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "404"})
_BUSY: Final = frozenset(
    {
        "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "InternalError", "InternalFailure",
        "RequestTimeout", "RequestTimedOut", "Throttling", "ThrottlingException", "TooManyRequests", "Busy",
        "RequestLimitExceeded", "BandwidthLimitExceeded", "OperationAborted", "XMinioServerNotInitialized",
        "IncompleteBody", "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "InvalidDigest",
    }
)  # fmt: skip
"""Trying again may help; what was spoiled on its way belongs here too."""
_CREDENTIALS: Final = {
    "InvalidAccessKeyId": "the access key is not known there; correct accesskey, or what the environment gives",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key, or a proxy changes the requests",
    "ExpiredToken": "the credentials have expired; new ones are looked for with each request",
    "TokenRefreshRequired": "the credentials have expired; new ones are looked for with each request",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "this machine's clock is wrong: the service refuses the signature's time",
    "InvalidSecurity": "the credentials are not valid",
    "UnrecognizedClientException": "the credentials are not valid",
    "XAdminUserNotFound": "the access key is not known there; correct accesskey, or what the environment gives",
}
_DENIED: Final = frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem"})
_FULL: Final = frozenset(
    {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "EntityTooLarge"}
)
_REGION: Final = frozenset(
    {
        "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301",
        "TemporaryRedirect",
    }
)  # fmt: skip


def failure(refused: Refusal) -> StorageError:
    """The StorageError for it."""
    return _expected(refused) or _misconfigured(refused) or _unexpected(refused)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a service asks for; dates are not understood."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def _expected(refused: Refusal) -> StorageError | None:
    """What callers reckon with."""
    key, cause, code = refused.key, refused.cause, refused.code
    if code == "NoSuchUpload":
        return NoSuchUpload(NAME, key, cause, "the upload is not known any more")
    if code in _NOT_FOUND:
        return NotFound(NAME, key, cause)
    if code in ("PreconditionFailed", "412") or refused.status == 412:
        return AlreadyThere(NAME, key, cause, "something stands there already")
    # The third: a service over files finds its folder gone again, since a neighbour was deleted at this moment.
    if code in ("ConditionalRequestConflict", "409", "ExistingObjectIsDirectory"):
        return Conflict(NAME, key, cause, "somebody else writes the same key now")
    if code in ("InvalidRange", "416"):
        told = str(refused.details.get("ActualObjectSize") or refused.headers.get("content-range", ""))
        size = told.rpartition("/")[2]
        return OutOfRange(key, int(size) if size.isdigit() else None)
    if code in ("NotImplemented", "501"):
        return NotImplementedThere(key, cause, str(refused.details.get("Header", "")))
    return None


def _misconfigured(refused: Refusal) -> StorageError | None:
    """What somebody has to put right."""
    key, cause, code = refused.key, refused.cause, refused.code
    if code == "NoSuchBucket":
        text = f"there is no bucket {refused.bucket}; create it, or correct storage.s3.bucket"
        return Unusable(NAME, key, cause, text)
    if (region := _other_region(refused)) is not None:
        return Unusable(NAME, key, cause, region)
    if code in _CREDENTIALS:
        return CredentialsRefused(NAME, key, cause, _CREDENTIALS[code])
    if code in _FULL or refused.status == 507:
        return NoSpace(NAME, key, cause, "the service takes no more: its disks or the quota are full")
    if code in ("XMinioReadOnly", "MethodNotAllowed"):
        return ReadOnly(NAME, key, cause, f"the service does not allow {refused.operation} there: {code}")
    if (refused.status == 403 and code != "InvalidObjectState") or code in _DENIED:
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


def _other_region(refused: Refusal) -> str | None:
    actual = str(refused.details.get("Region") or refused.headers.get("x-amz-bucket-region", ""))
    head = refused.operation == "HeadObject" and refused.status == 400 and actual not in ("", refused.region)
    if refused.code not in _REGION and not head:
        return None
    named = f"region {actual}" if actual else "another region"
    return f"the bucket {refused.bucket} is in {named}, not in {refused.region}: correct storage.s3.region"


def _denied(refused: Refusal) -> str:
    permission = _PERMISSIONS.get(refused.operation, refused.operation)
    text = f"{refused.operation} on bucket {refused.bucket} is denied; allow {permission}"
    if refused.operation in ("HeadObject", "GetObject"):
        text += ", and s3:ListBucket, without which the service also says so of what is not there"
    return text
