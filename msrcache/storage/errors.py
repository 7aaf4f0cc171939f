"""What can go wrong with a store, in one tree.

StorageError             anything else; the key, the driver and the cause are always said
├── NotFound             nothing stands at the key
├── RangeNotSatisfiable  the span starts at or beyond the object's end
├── KeyInvalid           the key is none of ours; the driver was not asked
├── Denied               the store knows us and does not let us
├── ReadOnly             the store cannot be written
├── NoSpace              the disk or the quota is full
├── Unusable             not as it is configured: no such bucket, expired credentials, another region
├── Unavailable          the store could not be asked now; trying again may help
│   └── LeftAlone        it was not asked: it failed too often just now, and is probed until it answers
└── Stale                a file handle that the file server has forgotten; opening anew helps

Caught in `cache` only: a failed read is a miss, a failed write is counted, and the client gets its bytes.
"""

import errno
import os
from typing import ClassVar, Final


class StorageError(Exception):
    """A store did not do what it was asked. `cause` is what the system or the service said."""

    result: ClassVar[str] = "error"
    """The metric's label."""

    def __init__(
        self, driver: str, key: str, cause: BaseException | None = None, message: str = "the store failed"
    ) -> None:
        super().__init__(driver, key, cause, message)
        self.driver = driver
        self.key = key
        self.cause = cause
        self.message = message

    def __str__(self) -> str:
        said = f" ({_said(self.cause)})" if self.cause is not None else ""
        at = f" [{self.key}]" if self.key else ""
        return f"{self.driver}: {self.message}{said}{at}"


class NotFound(StorageError):
    """Nothing stands at the key."""

    result = "notfound"

    def __init__(
        self, driver: str, key: str, cause: BaseException | None = None, message: str = "nothing stands there"
    ) -> None:
        super().__init__(driver, key, cause, message)


class RangeNotSatisfiable(StorageError):
    """The span starts at or beyond the end of the object, which has `size` bytes."""

    result = "range"

    def __init__(self, driver: str, key: str, *, size: int) -> None:
        super().__init__(driver, key, None, f"the span starts beyond the end, the object has {size} bytes")
        self.size = size


class KeyInvalid(StorageError):
    """Not a key: it could mean something else to a file system or a service."""

    result = "invalid"


class Denied(StorageError):
    """The store refuses us."""

    result = "denied"


class ReadOnly(StorageError):
    """The store cannot be written: what it holds is served, nothing new is stored."""

    result = "readonly"


class NoSpace(StorageError):
    """The disk or the quota is full."""

    result = "nospace"


class Unusable(StorageError):
    """The store cannot be used as it is configured, whatever is asked of it: its bucket is gone, its credentials have
    expired, it stands in another region. Somebody has to act, and then it works without a restart.
    """

    result = "unusable"


class Unavailable(StorageError):
    """The store cannot be asked now. `retry_after` in seconds where the service said it."""

    result = "unavailable"

    def __init__(
        self,
        driver: str,
        key: str,
        cause: BaseException | None = None,
        message: str = "the store cannot be asked now",
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(driver, key, cause, message)
        self.retry_after = retry_after


class LeftAlone(Unavailable):
    """The store was not asked, because it failed too often just now."""

    result = "skipped"


class Stale(StorageError):
    """The file server has forgotten the handle (ESTALE): ask again from the root."""

    result = "stale"


_BY_ERRNO: Final[dict[int, tuple[type[StorageError], str]]] = {
    errno.ENOENT: (NotFound, "nothing stands there"),
    errno.ENOTDIR: (NotFound, "nothing stands there"),
    errno.ENAMETOOLONG: (NotFound, "no name so long can stand there"),
    errno.EACCES: (Denied, "this account may not; give it the folder and what is below"),
    errno.EPERM: (Denied, "the file system does not allow it"),
    errno.EROFS: (ReadOnly, "the file system is mounted read-only"),
    errno.ENOSPC: (NoSpace, "the disk is full; make room, or let content expire"),
    errno.EDQUOT: (NoSpace, "the quota is used up; raise it, or let content expire"),
    errno.EFBIG: (NoSpace, "the file system or ulimit -f takes no file so large"),
    errno.EIO: (Unavailable, "the disk failed; look at dmesg"),
    errno.EAGAIN: (Unavailable, "the file system is busy"),
    errno.EBUSY: (Unavailable, "the file system is busy"),
    errno.EMFILE: (Unavailable, "this process has too many files open; raise ulimit -n"),
    errno.ENFILE: (Unavailable, "this machine has too many files open; raise fs.file-max"),
    errno.ENOMEM: (Unavailable, "the kernel is out of memory"),
    errno.ETIMEDOUT: (Unavailable, "the file server does not answer"),
    errno.EHOSTDOWN: (Unavailable, "the file server is down"),
    errno.EHOSTUNREACH: (Unavailable, "the file server cannot be reached"),
    errno.ENOTCONN: (Unavailable, "the mount is not connected"),
    errno.ESTALE: (Stale, "the file server has forgotten the handle"),
    errno.EXDEV: (StorageError, "rootdirectory spans several file systems; it must be one"),
    errno.EISDIR: (StorageError, "a folder stands where the object should"),
    errno.ENOTEMPTY: (StorageError, "a folder stands where the object should"),
}

_NO_PLACE: Final = "a file stands where a folder should, or the name is too long"


def from_os_error(driver: str, key: str, error: OSError, *, writing: bool = False) -> StorageError:
    """The StorageError for what the kernel said. `writing`: a missing name is then a failure, no NotFound."""
    kind, message = _BY_ERRNO.get(error.errno or 0, (StorageError, "the file system failed"))
    if writing and issubclass(kind, NotFound):
        if error.errno == errno.ENOENT:
            return Unavailable(
                driver, key, error, "a folder vanished again and again while it was written to"
            )
        return StorageError(driver, key, error, _NO_PLACE)
    return kind(driver, key, error, message)


def _said(cause: BaseException) -> str:
    """What the cause says, without paths: the key is said already."""
    if isinstance(cause, OSError) and cause.errno is not None:
        return f"{errno.errorcode.get(cause.errno, cause.errno)}: {os.strerror(cause.errno)}"
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
