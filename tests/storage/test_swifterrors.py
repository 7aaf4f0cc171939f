"""What a Swift says when it refuses, in words that say what to do."""

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
from msrcache.storage.swifterrors import (
    AlreadyThere,
    CredentialsRefused,
    NoContainer,
    OutOfRange,
    Refusal,
    Spoiled,
    failure,
    retry_after,
)


def refused(status: int, *, method: str = "PUT", key: str = "a/key", **headers: str) -> StorageError:
    """The error for it."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    operation = "listing" if not key else f"{method} of an object"
    return failure(
        Refusal(
            operation=operation,
            method=method,
            key=key,
            container="cache",
            status=status,
            headers=said,
            said="no",
        )
    )


@pytest.mark.parametrize(
    ("status", "method", "kind"),
    [
        (404, "GET", NotFound),
        (404, "HEAD", NotFound),
        (404, "DELETE", NotFound),
        (404, "PUT", NoContainer),
        (412, "PUT", AlreadyThere),
        (416, "GET", OutOfRange),
        (422, "PUT", Spoiled),
        (401, "GET", CredentialsRefused),
        (403, "PUT", Denied),
        (413, "PUT", NoSpace),
        (507, "PUT", NoSpace),
        (405, "PUT", ReadOnly),
        (400, "PUT", StorageError),
    ],
)
def test_each_refusal_has_its_kind(status: int, method: str, kind: type[StorageError]) -> None:
    """And knows driver, key and status."""
    error = refused(status, method=method)
    assert type(error) is kind
    assert (error.driver, error.key) == ("swift", "a/key")
    if kind is not OutOfRange:
        assert str(status) in str(error)


@pytest.mark.parametrize("status", [408, 409, 429, 498, 499, 500, 502, 503, 504])
def test_what_passes_is_unavailable(status: int) -> None:
    """With the seconds that the service asks for."""
    error = refused(status, Retry_After="7")
    assert type(error) is Unavailable
    assert error.retry_after == 7.0
    assert retry_after({"Retry-After": "Tue, 24 Nov 2026 20:00:00 GMT"}) is None


def test_what_is_denied_says_what_to_allow() -> None:
    """Which ACL, by which word."""
    assert "the container's read ACL" in str(refused(403, method="GET"))
    assert "the container's write ACL" in str(refused(403, method="DELETE"))
    assert ".rlistings" in str(refused(403, method="GET", key=""))


def test_a_missing_container_says_what_to_do() -> None:
    """Whatever was asked of the container itself."""
    for error in (refused(404), refused(404, method="GET", key="")):
        assert isinstance(error, Unusable)
        assert "there is no container cache; create it (`swift post cache`)" in str(error)


@pytest.mark.parametrize(("said", "size"), [("bytes */10", 10), ("", None)])
def test_a_range_beyond_the_end_knows_the_size_if_it_was_told(said: str, size: int | None) -> None:
    """Swift tells it in Content-Range."""
    error = refused(416, method="GET", Content_Range=said)
    assert isinstance(error, OutOfRange)
    assert error.size == size
