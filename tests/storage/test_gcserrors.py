"""What Google Cloud Storage says when it refuses, in words that say what to do."""

import json

import pytest

from msrcache.storage.errors import Denied, NoSpace, NotFound, StorageError, Unavailable, Unusable
from msrcache.storage.gcserrors import (
    AlreadyThere,
    CredentialsRefused,
    NoSuchUpload,
    OutOfRange,
    Refusal,
    failure,
    refusal_of,
    retry_after,
)


def refused(
    status: int, reason: str = "", message: str = "", *, operation: str = "objects.get", **more: object
) -> StorageError:
    """The error for it."""
    given = {
        "key": "a/key",
        "bucket": "cache",
        "operation": operation,
        "headers": {"retry-after": "7"},
    } | more
    return failure(Refusal(status=status, reason=reason, message=message, **given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "reason", "message", "kind"),
    [
        (404, "notFound", "No such object: cache/a/key", NotFound),
        (404, "", "Not Found", NotFound),
        (404, "notFound", "The specified bucket does not exist.", Unusable),
        (
            412,
            "conditionNotMet",
            "At least one of the pre-conditions you specified did not hold.",
            AlreadyThere,
        ),
        (416, "requestedRangeNotSatisfiable", "Request range not satisfiable", OutOfRange),
        (401, "authError", "Invalid Credentials", CredentialsRefused),
        (403, "forbidden", "x does not have storage.objects.get access", Denied),
        (403, "retentionPolicyNotMet", "Object is subject to bucket's retention policy", Denied),
        (403, "accountDisabled", "The billing account is disabled", Unusable),
        (403, "accessNotConfigured", "API has not been used", Unusable),
        (400, "required", "Bucket is a requester pays bucket", Unusable),
        (403, "rateLimitExceeded", "", Unavailable),
        (403, "quotaExceeded", "", Unavailable),
        (429, "rateLimitExceeded", "", Unavailable),
        (408, "", "", Unavailable),
        (409, "conflict", "", Unavailable),
        (500, "internalError", "", Unavailable),
        (502, "", "<html>", Unavailable),
        (503, "backendError", "", Unavailable),
        (400, "invalid", 'Provided CRC32C "a" doesn\'t match calculated CRC32C "b".', Unavailable),
        (413, "uploadTooLarge", "", NoSpace),
        (400, "invalid", "Invalid argument", StorageError),
        (301, "", "", StorageError),
    ],
)
def test_each_refusal_has_its_kind(status: int, reason: str, message: str, kind: type[StorageError]) -> None:
    """By status, reason and message."""
    error = refused(status, reason, message)
    assert type(error) is kind
    assert (error.driver, error.key) == ("gcs", "a/key")


@pytest.mark.parametrize("status", [404, 410, 499])
def test_an_upload_that_is_gone_is_no_missing_object(status: int) -> None:
    """What speaks to an upload is told that the upload is not known."""
    assert type(refused(status, operation="objects.create", session=True)) is NoSuchUpload


def test_a_listing_that_finds_no_bucket_is_told_so() -> None:
    """There is no key that could be missing."""
    error = refused(404, "notFound", "Not Found", operation="objects.list", key="")
    assert "there is no bucket cache; create it, or correct storage.gcs.bucket" in str(error)


def test_a_busy_service_says_when_to_come_back() -> None:
    """Retry-After in seconds is passed on; a date or nonsense is not."""
    error = refused(503)
    assert isinstance(error, Unavailable)
    assert error.retry_after == 7.0
    assert retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) is None
    assert retry_after({"retry-after": "-1"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("operation", "message", "permission"),
    [
        ("objects.get", "", "allow storage.objects.get, and storage.objects.list, without which"),
        ("objects.create", "", "allow storage.objects.create"),
        (
            "objects.create",
            "Permission 'storage.objects.delete' denied on resource",
            "allow storage.objects.delete, without which nothing that stands can be replaced",
        ),
        ("objects.delete", "x does not have storage.objects.delete access", "allow storage.objects.delete"),
        ("objects.list", "", "allow storage.objects.list"),
    ],
)
def test_a_denial_names_operation_and_permission(operation: str, message: str, permission: str) -> None:
    """The permission is the one that the service names, else the operation's; and the bucket."""
    text = str(refused(403, "forbidden", message, operation=operation))
    assert f"{operation} on bucket cache is denied; {permission}" in text


@pytest.mark.parametrize(("headers", "size"), [({"content-range": "bytes */10"}, 10), ({}, None)])
def test_a_range_beyond_the_end_knows_the_size_if_it_was_told(
    headers: dict[str, str], size: int | None
) -> None:
    """In Content-Range."""
    error = refused(416, headers=headers)
    assert isinstance(error, OutOfRange)
    assert error.size == size


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            json.dumps(
                {"error": {"code": 403, "message": "no", "errors": [{"reason": "forbidden"}]}}
            ).encode(),
            ("forbidden", "no"),
        ),
        (b'{"error": {"code": 503, "message": "later"}}', ("", "later")),
        (b'{"error": "invalid_grant", "error_description": "no"}', ("invalid_grant", "no")),
        (b"No such object: cache/a/key", ("", "No such object: cache/a/key")),
        (b"[1]", ("", "[1]")),
        (b"\xff", ("", "\ufffd")),
        (b"", ("", "")),
    ],
)
def test_reason_and_message_are_found(body: bytes, told: tuple[str, str]) -> None:
    """In a document, or the text itself."""
    assert refusal_of(body) == told


def test_a_long_message_is_told_short() -> None:
    """And on one line."""
    text = str(refused(400, "invalid", "x\n" * 10_000))
    assert len(text) < 500
    assert "\n" not in text
