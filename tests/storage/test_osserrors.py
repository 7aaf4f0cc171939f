"""What OSS refuses is told in one sentence that says what to do."""

import pytest

from msrcache.storage.errors import Denied, NoSpace, NotFound, ReadOnly, StorageError, Unavailable, Unusable
from msrcache.storage.osserrors import (
    AlreadyThere,
    CredentialsRefused,
    NoSuchUpload,
    OutOfRange,
    Refusal,
    failure,
)


def refused(code: str, status: int, *, operation: str = "GetObject", **more: object) -> Refusal:
    """A refusal."""
    details = {str(name): value for name, value in more.items()}
    return Refusal(
        operation=operation,
        key="a/key",
        bucket="cache",
        code=code,
        status=status,
        where="https://oss-cn-hangzhou.aliyuncs.com",
        region="cn-hangzhou",
        details=details,
    )


@pytest.mark.parametrize(
    ("refusal", "kind", "said"),
    [
        (refused("NoSuchKey", 404), NotFound, "nothing stands there"),
        (refused("BadErrorResponse", 404), NotFound, "nothing stands there"),
        (refused("NoSuchUpload", 404), NoSuchUpload, "not known any more"),
        (refused("FileAlreadyExists", 409), AlreadyThere, "something stands there"),
        (refused("PreconditionFailed", 412), AlreadyThere, "something stands there"),
        (refused("InvalidRange", 416), OutOfRange, "beyond the end"),
        (
            refused("NoSuchBucket", 404),
            Unusable,
            "there is no bucket cache; create it, or correct storage.oss.bucket",
        ),
        (
            refused("AccessDenied", 403, Endpoint="oss-cn-beijing.aliyuncs.com"),
            Unusable,
            "the bucket cache is served at oss-cn-beijing.aliyuncs.com, not at https://oss-cn-hangzhou",
        ),
        (
            refused("InvalidArgument", 400, Message="Invalid signing region in Authorization header."),
            Unusable,
            "is not of region cn-hangzhou: correct storage.oss.region",
        ),
        (refused("SecondLevelDomainForbidden", 403), Unusable, "leave storage.oss.forcepathstyle out"),
        (refused("InvalidAccessKeyId", 403), CredentialsRefused, "correct accesskeyid"),
        (refused("SignatureDoesNotMatch", 403), CredentialsRefused, "correct accesskeysecret"),
        (refused("SecurityTokenExpired", 403), CredentialsRefused, "a new one is looked for"),
        (refused("RequestTimeTooSkewed", 403), CredentialsRefused, "this machine's clock is wrong"),
        (refused("UserDisable", 403), CredentialsRefused, "unpaid bill"),
        (refused("AccessDenied", 403), Denied, "GetObject on bucket cache is denied; allow oss:GetObject"),
        (refused("AccessDenied", 403, operation="ListParts"), Denied, "allow oss:ListParts"),
        (
            refused("FileImmutable", 409, operation="DeleteObject"),
            ReadOnly,
            "retention policy of bucket cache",
        ),
        (refused("EntityTooLarge", 400), NoSpace, "too large or the quota full"),
        (refused("InvalidObjectState", 403), StorageError, "archived; restore it"),
        (refused("SlowDown", 503), Unavailable, "cannot do GetObject now: SlowDown"),
        (refused("DownloadTrafficRateLimitExceeded", 503), Unavailable, "cannot do GetObject now"),
        (refused("TooManyRequests", 429), Unavailable, "cannot do GetObject now"),
        (refused("InternalError", 500), Unavailable, "cannot do GetObject now"),
        (refused("InvalidDigest", 400), Unavailable, "cannot do GetObject now"),
        (refused("Teapot", 418), StorageError, "the service refused GetObject: Teapot"),
    ],
)
def test_each_refusal(refusal: Refusal, kind: type[StorageError], said: str) -> None:
    """Its kind, its sentence, its key."""
    error = failure(refusal)
    assert type(error) is kind
    assert said in str(error)
    assert "[a/key]" in str(error)


def test_how_long_a_busy_service_wants_to_be_left() -> None:
    """Its Retry-After in seconds; a date is not understood."""
    for text, seconds in (("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("", None)):
        busy = Refusal(
            operation="PutObject",
            key="",
            bucket="b",
            code="SlowDown",
            status=503,
            headers={"Retry-After": text},
        )
        error = failure(busy)
        assert isinstance(error, Unavailable)
        assert error.retry_after == seconds


def test_the_size_that_a_service_tells() -> None:
    """Of a span beyond the end."""
    for told, size in (({"ActualObjectSize": "5"}, 5), ({}, None)):
        error = failure(refused("InvalidRange", 416, **told))
        assert isinstance(error, OutOfRange)
        assert error.size == size
