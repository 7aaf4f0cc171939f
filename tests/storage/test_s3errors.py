"""What an S3 service says when it refuses, in words that say what to do."""

import pytest

from msrcache.storage.errors import (
    Denied,
    NoSpace,
    NotFound,
    ReadOnly,
    StorageError,
    Unavailable,
    Unusable,
)
from msrcache.storage.s3errors import (
    AlreadyThere,
    Conflict,
    CredentialsRefused,
    NoSuchUpload,
    NotImplementedThere,
    OutOfRange,
    Refusal,
    failure,
    retry_after,
)


def refused(code: str, status: int = 400, *, operation: str = "PutObject", **more: object) -> StorageError:
    """The error for it."""
    details = {"Code": code, **more}
    headers = {"retry-after": "7", "x-amz-bucket-region": str(more.get("header", ""))}
    return failure(
        Refusal(
            operation=operation,
            key="a/key",
            bucket="cache",
            code=code,
            status=status,
            region="us-east-1",
            details=details,
            headers=headers,
        )
    )


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", 404, NotFound),
        ("404", 404, NotFound),
        ("NoSuchUpload", 404, NoSuchUpload),
        ("PreconditionFailed", 412, AlreadyThere),
        ("412", 412, AlreadyThere),
        ("ConditionalRequestConflict", 409, Conflict),
        ("ExistingObjectIsDirectory", 409, Conflict),
        ("NotImplemented", 501, NotImplementedThere),
        ("InvalidRange", 416, OutOfRange),
        ("NoSuchBucket", 404, Unusable),
        ("InvalidAccessKeyId", 403, CredentialsRefused),
        ("SignatureDoesNotMatch", 403, CredentialsRefused),
        ("ExpiredToken", 400, CredentialsRefused),
        ("RequestTimeTooSkewed", 403, CredentialsRefused),
        ("PermanentRedirect", 301, Unusable),
        ("AuthorizationHeaderMalformed", 400, Unusable),
        ("AccessDenied", 403, Denied),
        ("403", 403, Denied),
        ("QuotaExceeded", 403, NoSpace),
        ("XMinioStorageFull", 507, NoSpace),
        ("InvalidObjectState", 403, StorageError),
        ("MethodNotAllowed", 405, ReadOnly),
        ("SlowDown", 503, Unavailable),
        ("503", 503, Unavailable),
        ("InternalError", 500, Unavailable),
        ("502", 502, Unavailable),
        ("TooManyRequests", 429, Unavailable),
        ("429", 429, Unavailable),
        ("RequestTimeout", 400, Unavailable),
        ("BadDigest", 400, Unavailable),
        ("MalformedXML", 400, StorageError),
    ],
)
def test_each_refusal_has_its_kind(code: str, status: int, kind: type[StorageError]) -> None:
    """By code, and by status where there is no more."""
    error = refused(code, status)
    assert type(error) is kind
    assert (error.driver, error.key) == ("s3", "a/key")


def test_a_busy_service_says_when_to_come_back() -> None:
    """Retry-After in seconds is passed on; a date or nonsense is not."""
    error = refused("SlowDown", 503)
    assert isinstance(error, Unavailable)
    assert error.retry_after == 7.0
    assert retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) is None
    assert retry_after({"retry-after": "-1"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("operation", "permission"),
    [
        ("PutObject", "allow s3:PutObject"),
        ("UploadPart", "allow s3:PutObject"),
        ("HeadObject", "allow s3:GetObject, and s3:ListBucket"),
        ("GetObject", "allow s3:GetObject, and s3:ListBucket"),
        ("DeleteObjects", "allow s3:DeleteObject"),
        ("ListObjectsV2", "allow s3:ListBucket"),
        ("ListMultipartUploads", "allow s3:ListBucketMultipartUploads"),
        ("ListParts", "allow s3:ListMultipartUploadParts"),
        ("AbortMultipartUpload", "allow s3:AbortMultipartUpload"),
    ],
)
def test_a_denial_names_operation_and_permission(operation: str, permission: str) -> None:
    """And the bucket."""
    text = str(refused("AccessDenied", 403, operation=operation))
    assert f"{operation} on bucket cache is denied; {permission}" in text


@pytest.mark.parametrize(
    ("code", "status", "operation", "more"),
    [
        ("AuthorizationHeaderMalformed", 400, "GetObject", {"Region": "eu-west-3"}),
        ("PermanentRedirect", 301, "GetObject", {"header": "eu-west-3"}),
        ("301", 301, "HeadObject", {"header": "eu-west-3"}),
        ("400", 400, "HeadObject", {"header": "eu-west-3"}),
    ],
)
def test_a_wrong_region_names_the_right_one(
    code: str, status: int, operation: str, more: dict[str, str]
) -> None:
    """Also where only a header tells it."""
    error = refused(code, status, operation=operation, **more)
    assert "is in region eu-west-3, not in us-east-1: correct storage.s3.region" in str(error)


def test_a_missing_bucket_and_bad_credentials_say_what_to_do() -> None:
    """One sentence each."""
    assert "there is no bucket cache; create it" in str(refused("NoSuchBucket", 404))
    assert "expired" in str(refused("ExpiredToken", 400))
    assert "clock is wrong" in str(refused("RequestTimeTooSkewed", 403))


@pytest.mark.parametrize(("more", "size"), [({"ActualObjectSize": "10"}, 10), ({}, None)])
def test_a_range_beyond_the_end_knows_the_size_if_it_was_told(more: dict[str, str], size: int | None) -> None:
    """Amazon tells it in the error document."""
    error = refused("InvalidRange", 416, **more)
    assert isinstance(error, OutOfRange)
    assert error.size == size
