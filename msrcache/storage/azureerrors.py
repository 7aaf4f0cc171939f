"""What Azure's blob service says when it refuses, as StorageErrors that say what to do.

Codes are those of the header x-ms-error-code, which every refusal has, a HEAD's too. Pure: no SDK, no I/O.
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

NAME: Final = "azure"


class AlreadyThere(StorageError):
    """A condition was not met: something stands there."""

    result = "exists"


class BlocksGone(StorageError):
    """Blocks that were staged are no more: somebody else's commit of the same key drops those of all others."""

    result = "noupload"


class NoContainer(Unusable):
    """The container is not there."""


class OutOfRange(StorageError):
    """The span starts beyond the end; `size` where the service told it."""

    result = "range"

    def __init__(self, key: str, size: int | None) -> None:
        super().__init__(NAME, key, None, "the span starts beyond the end")
        self.size = size


class NotImplementedThere(StorageError):
    """The service does not know what was asked."""

    result = "notimplemented"


class CredentialsRefused(Unusable):
    """The credentials are not, or no longer, valid: look for others."""


class Answered(Exception):
    """What the service said, without what it repeats of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What came back instead of an answer."""

    operation: str
    """By the API's name, such as Put Blob."""
    key: str
    account: str
    container: str
    identity: str
    """Which kind of credentials was shown."""
    code: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """In lower case."""
    expired: bool = False
    """Whether the signature that was shown has ended, by our clock."""


_RIGHTS: Final = {
    "Get Blob": ("r (read)", "blobs/read"),
    "Get Blob Properties": ("r (read)", "blobs/read"),
    "Put Blob": ("c and w (create, write)", "blobs/write and blobs/add/action"),
    "Put Block": ("c and w (create, write)", "blobs/write"),
    "Put Block List": ("c and w (create, write)", "blobs/write"),
    "Delete Blob": ("d (delete)", "blobs/delete"),
    "Blob Batch": ("d (delete)", "blobs/delete"),
    "List Blobs": ("l (list)", "blobs/read"),
    "Create Container": ("account SAS of resource type c (container)", "containers/write"),
    "Get User Delegation Key": ("", "generateUserDelegationKey/action"),
}
"""What a SAS must allow for an operation, and what a role must."""

_WRITES: Final = frozenset({"Put Blob", "Put Block", "Put Block List", "Create Container", "List Blobs"})
"""What has nothing that could be missing but the account and the container."""
_NOT_FOUND: Final = frozenset({"BlobNotFound", "ResourceNotFound", "404"})
_EXISTS: Final = frozenset(
    {"BlobAlreadyExists", "ResourceAlreadyExists", "ConditionNotMet", "412", "TargetConditionNotMet"}
)
_BUSY: Final = frozenset(
    {
        "ServerBusy", "OperationTimedOut", "InternalError", "ContainerBeingDeleted", "AccountBeingCreated",
        "Md5Mismatch", "Crc64Mismatch", "IncompleteBody", "PendingCopyOperation",
    }
)  # fmt: skip
"""Trying again may help; what was spoiled on its way belongs here too."""
_DENIED: Final = {
    "AuthorizationServiceMismatch": "the signature is for other services: give ss=b (blob)",
    "AuthorizationResourceTypeMismatch": "the signature lacks resource types: give srt=co (container, object)",
    "AuthorizationProtocolMismatch": "the signature allows https only",
    "AuthorizationSourceIPMismatch": "the signature is for other addresses (sip)",
    "UnauthorizedBlobOverwrite": "what is there may not be replaced: allow w (write) too",
}
_UNUSABLE: Final = {
    "KeyBasedAuthenticationNotPermitted": "the account allows no keys: use an identity (storage.azure.credentials)",
    "AccountIsDisabled": "the account is disabled",
    "ContainerDisabled": "the container is disabled",
    "AccountRequiresHttps": "the account wants https: correct storage.azure.serviceurl",
    "FeatureVersionMismatch": "the service does not know the version of the API that is spoken",
    "InvalidBlobType": "a blob of another type stands there: delete it, or choose another container",
    "AuthenticationFailedHttps": "the account wants https: correct storage.azure.serviceurl",
}
_FIXED: Final = {
    "BlobImmutableDueToPolicy": "a policy forbids to change what is there: give the cache a container without one",
    "LeaseIdMissing": "somebody holds a lease on the blob or the container: break it",
    "SnapshotsPresent": "the blob has snapshots",
    "ImmutabilityPolicyDeleteOnLockedPolicy": "a policy forbids to delete what is there",
}
_CREDENTIALS: Final = frozenset(
    {
        "AuthenticationFailed",
        "InvalidAuthenticationInfo",
        "NoAuthenticationInformation",
        "PublicAccessNotPermitted",
    }
)


def failure(refused: Refusal) -> StorageError:
    """The StorageError for it."""
    return _expected(refused) or _misconfigured(refused) or _unexpected(refused)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a service asks for; dates are not understood."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    milliseconds = headers.get("x-ms-retry-after-ms", "").strip()
    return float(milliseconds) / 1000 if milliseconds.isascii() and milliseconds.isdigit() else None


def _said(refused: Refusal) -> Answered:
    return Answered(f"{refused.status} {refused.code}")


def _expected(refused: Refusal) -> StorageError | None:
    """What callers reckon with."""
    key, cause, code = refused.key, _said(refused), refused.code
    if code in _NOT_FOUND and not (code == "ResourceNotFound" and refused.operation in _WRITES):
        return NotFound(NAME, key, cause)
    if code in _EXISTS:
        return AlreadyThere(NAME, key, cause, "something stands there already")
    if code in ("InvalidBlockList", "InvalidBlobOrBlock"):
        return BlocksGone(NAME, key, cause, "the parts that were sent are no more: somebody else wrote there")
    if code in ("InvalidRange", "416") or refused.status == 416:
        size = refused.headers.get("content-range", "").rpartition("/")[2]
        return OutOfRange(key, int(size) if size.isdigit() else None)
    if code in ("NotImplemented", "APINotImplemented", "UnsupportedHttpVerb", "501") or refused.status == 501:
        return NotImplementedThere(NAME, key, cause, f"the service does not know {refused.operation}")
    return None


def _misconfigured(refused: Refusal) -> StorageError | None:
    """What somebody has to put right."""
    key, cause, code = refused.key, _said(refused), refused.code
    if code == "ContainerNotFound":
        where = f"container {refused.container} in account {refused.account}"
        text = f"there is no {where}; create it, or correct storage.azure.container"
        return NoContainer(NAME, key, cause, text)
    if code == "ResourceNotFound":
        text = f"there is no account {refused.account}; correct storage.azure.accountname, or serviceurl"
        return Unusable(NAME, key, cause, text)
    if code in _UNUSABLE:
        return Unusable(NAME, key, cause, _UNUSABLE[code])
    # With a key Azure says so of its network rules only, Azurite of a wrong key too.
    unproved = code == "AuthorizationFailure" and (refused.expired or refused.identity == "shared_key")
    if code in _CREDENTIALS or refused.status == 401 or unproved:
        return CredentialsRefused(NAME, key, cause, _credentials(refused))
    if code in _FIXED:
        return ReadOnly(NAME, key, cause, f"{refused.operation} is not possible: {_FIXED[code]}")
    if refused.status == 507:
        return NoSpace(
            NAME, key, cause, "the service takes no more: its disks or the account's quota are full"
        )
    if refused.status == 403:
        return Denied(NAME, key, cause, _denied(refused))
    return None


def _unexpected(refused: Refusal) -> StorageError:
    cause = _said(refused)
    if refused.code in ("BlobArchived", "BlobBeingRehydrated"):
        text = "the blob is archived; rehydrate it, or delete it so that it is stored anew"
        return StorageError(NAME, refused.key, cause, text)
    if refused.code in _BUSY or refused.status in (408, 429) or refused.status >= 500:
        text = f"the service cannot do {refused.operation} now: {refused.code}"
        return Unavailable(NAME, refused.key, cause, text, retry_after=retry_after(refused.headers))
    return StorageError(NAME, refused.key, cause, f"the service refused {refused.operation}: {refused.code}")


def _credentials(refused: Refusal) -> str:
    if refused.expired:
        return "the shared access signature has expired: give a new one as storage.azure.sastoken"
    clock = "or this machine's clock is wrong, or a proxy changes the requests"
    if refused.identity == "sas":
        return f"the shared access signature is not valid in account {refused.account}, {clock}"
    if refused.identity == "shared_key" and refused.code == "AuthorizationFailure":
        clock = f"or its network rules do not let this machine in, {clock}"
    if refused.identity == "shared_key":
        return f"the account key is none of account {refused.account}'s (keys are rotated), {clock}"
    return f"account {refused.account} does not accept the identity's token: its tenant is another, {clock}"


def _denied(refused: Refusal) -> str:
    signature, role = _RIGHTS.get(refused.operation, ("", refused.operation))
    where = f"{refused.operation} on container {refused.container} is denied"
    if refused.code in _DENIED:
        return f"{where}: {_DENIED[refused.code]}"
    firewall = "or the account's network rules do not let this machine in"
    if refused.identity == "sas":
        rules = f" or is for another container, {firewall}" if refused.code == "AuthorizationFailure" else ""
        return f"{where}: the signature lacks {signature}{rules}"
    if refused.code == "AuthorizationFailure":
        return f"{where}: the identity lacks {role}, {firewall}"
    return f"{where}: give the identity a role with {role}, such as Storage Blob Data Contributor"
