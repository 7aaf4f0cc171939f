"""What the kernel says becomes an error of the contract, in words."""

import errno
import os

import pytest

from msrcache.storage.errors import (
    Denied,
    NoSpace,
    NotFound,
    RangeNotSatisfiable,
    ReadOnly,
    Stale,
    StorageError,
    Unavailable,
    from_os_error,
)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, NotFound),
        (errno.ENOTDIR, NotFound),
        (errno.ENAMETOOLONG, NotFound),
        (errno.EACCES, Denied),
        (errno.EPERM, Denied),
        (errno.EROFS, ReadOnly),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EIO, Unavailable),
        (errno.EMFILE, Unavailable),
        (errno.ETIMEDOUT, Unavailable),
        (errno.ESTALE, Stale),
        (errno.EISDIR, StorageError),
        (errno.EXDEV, StorageError),
        (errno.EXFULL, StorageError),
    ],
)
def test_each_errno_has_its_error(number: int, kind: type[StorageError]) -> None:
    """The error is of just that kind, and names driver, key and what the kernel said."""
    error = from_os_error("filesystem", "a/key", OSError(number, os.strerror(number)))
    assert type(error) is kind
    assert (error.driver, error.key) == ("filesystem", "a/key")
    for part in ("filesystem", "[a/key]", errno.errorcode[number], os.strerror(number)):
        assert part in str(error)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG])
def test_a_write_never_fails_as_not_found(number: int) -> None:
    """NotFound is an answer to a question; a write that finds no place is a failure."""
    error = from_os_error("filesystem", "a/key", OSError(number, "-"), writing=True)
    assert not isinstance(error, NotFound)
    assert isinstance(error, Unavailable) == (number == errno.ENOENT)


def test_errors_say_no_path() -> None:
    """The key is said; where the folder lies on this machine is not."""
    error = from_os_error("filesystem", "a/key", OSError(errno.EIO, "-", "/secret/place"))
    assert "/secret/place" not in str(error)


def test_what_errors_carry() -> None:
    """A refused span knows the size, an unavailable store when to ask again, a cause without text its kind."""
    assert RangeNotSatisfiable("d", "k", size=7).size == 7
    assert Unavailable("d", "k", retry_after=3.0).retry_after == 3.0
    assert str(NotFound("d", "")) == "d: nothing stands there"
    assert str(StorageError("d", "k", ValueError())) == "d: the store failed (ValueError) [k]"
    assert str(StorageError("d", "k", ValueError("no"))) == "d: the store failed (ValueError: no) [k]"


def test_labels_differ() -> None:
    """Every kind has its own label in the metrics."""
    kinds: list[type[StorageError]] = [
        StorageError,
        NotFound,
        RangeNotSatisfiable,
        Denied,
        ReadOnly,
        NoSpace,
        Unavailable,
        Stale,
    ]
    assert len({kind.result for kind in kinds}) == len(kinds)
