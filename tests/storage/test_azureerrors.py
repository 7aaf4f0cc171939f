"""What Azure says when it refuses, in words that say what to do."""

import pytest

from msrcache.storage.azureerrors import (
    AlreadyThere,
    BlocksGone,
    CredentialsRefused,
    NoContainer,
    NotImplementedThere,
    OutOfRange,
    Refusal,
    failure,
    retry_after,
)
from msrcache.storage.errors import (
    Denied,
    NoSpace,
    NotFound,
    ReadOnly,
    StorageError,
    Unavailable,
    Unusable,
)


def refused(
    code: str, status: int, *, operation: str = "Put Blob", identity: str = "identity", expired: bool = False
) -> StorageError:
    """The error for it."""
    return failure(
        Refusal(
            operation=operation,
            key="a/key",
            account="shop",
            container="cache",
            identity=identity,
            code=code,
            status=status,
            headers={"retry-after": "7", "content-range": "bytes */10"},
            expired=expired,
        )
    )


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("BlobNotFound", 404, NotFound),
        ("404", 404, NotFound),
        ("ResourceNotFound", 404, Unusable),
        ("BlobAlreadyExists", 409, AlreadyThere),
        ("ConditionNotMet", 412, AlreadyThere),
        ("InvalidBlockList", 400, BlocksGone),
        ("InvalidRange", 416, OutOfRange),
        ("NotImplemented", 501, NotImplementedThere),
        ("ContainerNotFound", 404, NoContainer),
        ("ContainerBeingDeleted", 409, Unavailable),
        ("AuthenticationFailed", 403, CredentialsRefused),
        ("InvalidAuthenticationInfo", 400, CredentialsRefused),
        ("NoAuthenticationInformation", 401, CredentialsRefused),
        ("KeyBasedAuthenticationNotPermitted", 403, Unusable),
        ("AccountIsDisabled", 403, Unusable),
        ("InvalidBlobType", 409, Unusable),
        ("AuthorizationPermissionMismatch", 403, Denied),
        ("AuthorizationFailure", 403, Denied),
        ("403", 403, Denied),
        ("LeaseIdMissing", 412, ReadOnly),
        ("BlobImmutableDueToPolicy", 409, ReadOnly),
        ("507", 507, NoSpace),
        ("ServerBusy", 503, Unavailable),
        ("InternalError", 500, Unavailable),
        ("OperationTimedOut", 500, Unavailable),
        ("429", 429, Unavailable),
        ("502", 502, Unavailable),
        ("Md5Mismatch", 400, Unavailable),
        ("BlobArchived", 409, StorageError),
        ("InvalidInput", 400, StorageError),
    ],
)
def test_each_refusal_has_its_kind(code: str, status: int, kind: type[StorageError]) -> None:
    """By code, and by status where there is no more."""
    error = refused(code, status)
    assert type(error) is kind
    assert (error.driver, error.key) == ("azure", "a/key")


def test_a_busy_service_says_when_to_come_back() -> None:
    """Retry-After in seconds, or Azure's own in milliseconds; a date or nonsense is not passed on."""
    error = refused("ServerBusy", 503)
    assert isinstance(error, Unavailable)
    assert error.retry_after == 7.0
    assert retry_after({"x-ms-retry-after-ms": "1500"}) == 1.5
    assert retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("operation", "signature", "role"),
    [
        ("Get Blob", "lacks r (read)", "blobs/read"),
        ("Put Block", "lacks c and w (create, write)", "blobs/write"),
        ("Delete Blob", "lacks d (delete)", "blobs/delete"),
        ("List Blobs", "lacks l (list)", "blobs/read"),
    ],
)
def test_a_denial_names_operation_and_right(operation: str, signature: str, role: str) -> None:
    """What a signature lacks, and what a role must have; the container too."""
    text = str(refused("AuthorizationPermissionMismatch", 403, operation=operation, identity="sas"))
    assert f"{operation} on container cache is denied" in text
    assert signature in text
    text = str(refused("AuthorizationPermissionMismatch", 403, operation=operation))
    assert f"a role with {role}" in text
    assert "network rules" in str(refused("AuthorizationFailure", 403, operation=operation))
    assert "srt=co" in str(refused("AuthorizationResourceTypeMismatch", 403, identity="sas"))


def test_bad_credentials_say_what_to_do() -> None:
    """One sentence each: key, signature, signature that has ended, identity, container."""
    assert "is none of account shop's" in str(refused("AuthenticationFailed", 403, identity="shared_key"))
    assert "is not valid in account shop" in str(refused("AuthenticationFailed", 403, identity="sas"))
    assert "has expired: give a new one" in str(
        refused("AuthenticationFailed", 403, identity="sas", expired=True)
    )
    text = str(refused("InvalidAuthenticationInfo", 401))
    assert "does not accept the identity's token: its tenant is another, or this machine's clock" in text
    assert "there is no container cache in account shop; create it" in str(refused("ContainerNotFound", 404))


def test_an_account_that_is_not_there_is_told_by_writes() -> None:
    """Where all accounts have one host it says no more than that something is missing; for a read that is the blob."""
    assert "there is no account shop" in str(refused("ResourceNotFound", 404))
    assert type(refused("ResourceNotFound", 404, operation="Get Blob")) is NotFound


def test_a_range_beyond_the_end_knows_the_size_if_it_was_told() -> None:
    """Azure tells it in a header."""
    error = refused("InvalidRange", 416)
    assert isinstance(error, OutOfRange)
    assert error.size == 10
