"""What a registry says when it says no: one tree of errors, each with its code, status and JSON body.

The codes are those of the OCI distribution specification and of Docker Registry 2.x, which clients know. An
error is raised where the fact is known, and the server turns it into an answer without knowing the place.
These are no errors of a store (storage.errors) nor of the configuration.
"""

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from msrcache.oci.digest import Digest

CONTENT_TYPE: Final = "application/json; charset=utf-8"
"""The media type of every body() below."""

RETRY_AFTER: Final = 5.0
"""Seconds after which to ask again, where nobody knows better."""

_LONGEST_MESSAGE: Final = 1000
_LONGEST_SHOWN: Final = 80
_LONGEST_WAIT: Final = 86_400


class RegistryError(Exception):
    """An answer that is no content.

    `message` and str() hold printable characters only and are bounded, so they are safe in a log whatever a
    stranger sent; callers never put a credential into them. `headers` are all further headers of the answer
    (Retry-After, Allow and Content-Range among them) except WWW-Authenticate, which may stand several times.
    """

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500
    text: ClassVar[str] = "unknown error"

    def __init__(
        self,
        message: str = "",
        *,
        detail: object = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = _printable(message or self.text)
        super().__init__(self.message)
        self.detail = detail
        self.retry_after = _bounded(retry_after)
        waiting = {} if self.retry_after is None else {"Retry-After": str(math.ceil(self.retry_after))}
        self.headers: Mapping[str, str] = MappingProxyType({**waiting, **(headers or {})})
        self._body: bytes | None = None

    def body(self) -> bytes:
        """The JSON that the specification asks for; made once. A detail that is no JSON is left out."""
        if self._body is None:
            self._body = self._encode()
        return self._body

    def _encode(self) -> bytes:
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.detail is not None:
            try:
                return _json({**error, "detail": self.detail})
            except (TypeError, ValueError, RecursionError):
                pass  # an upstream's detail may be anything; code and message must arrive all the same
        return _json(error)


class Unauthorized(RegistryError):
    """The caller has to log in. `challenges` are WWW-Authenticate values, a header each, sent verbatim."""

    code = "UNAUTHORIZED"
    status = 401
    text = "authentication required"

    def __init__(self, message: str = "", challenges: tuple[str, ...] = (), *, detail: object = None) -> None:
        super().__init__(message, detail=detail)
        self.challenges = challenges


class Denied(RegistryError):
    """The caller is known and may not."""

    code = "DENIED"
    status = 403
    text = "requested access to the resource is denied"


class NameUnknown(RegistryError):
    """There is no such repository, or nothing at all at this address."""

    code = "NAME_UNKNOWN"
    status = 404
    text = "repository name not known to registry"


class ManifestUnknown(RegistryError):
    """The repository has no manifest with this tag or digest."""

    code = "MANIFEST_UNKNOWN"
    status = 404
    text = "manifest unknown"


class BlobUnknown(RegistryError):
    """The repository has no blob with this digest."""

    code = "BLOB_UNKNOWN"
    status = 404
    text = "blob unknown to registry"


class DigestInvalid(RegistryError):
    """Text that should be a digest is none, or its algorithm is not sha256 or sha512."""

    code = "DIGEST_INVALID"
    status = 400
    text = "provided digest is not valid"


class NameInvalid(RegistryError):
    """Text that should be the name of a repository (or of a registry's host) is none."""

    code = "NAME_INVALID"
    status = 400
    text = "invalid repository name"


class TagInvalid(RegistryError):
    """Text that should be a tag is none."""

    code = "TAG_INVALID"
    status = 400
    text = "manifest tag is not valid"


class ManifestInvalid(RegistryError):
    """Bytes that should be a manifest are none, or are more than a manifest may have."""

    code = "MANIFEST_INVALID"
    status = 400
    text = "manifest invalid"


class PaginationInvalid(RegistryError):
    """The number of entries asked for is no number of 0 or more."""

    code = "PAGINATION_NUMBER_INVALID"
    status = 400
    text = "invalid number of results requested"


class Unsupported(RegistryError):
    """A method that is not served; `allow` is the Allow header."""

    code = "UNSUPPORTED"
    status = 405
    text = "the operation is unsupported"

    def __init__(self, message: str = "", *, allow: str = "GET, HEAD", detail: object = None) -> None:
        super().__init__(message, detail=detail, headers={"Allow": allow})


class RangeInvalid(RegistryError):
    """None of the bytes asked for exist in content of `size` bytes; Content-Range tells it."""

    code = "RANGE_INVALID"
    status = 416
    text = "invalid content range"

    def __init__(self, size: int) -> None:
        message = f"the range lies outside of the content, which has {size} bytes"
        super().__init__(message, headers={"Content-Range": f"bytes */{size}"})
        self.size = size


class TooManyRequests(RegistryError):
    """The caller asks too often; `retry_after` in seconds."""

    code = "TOOMANYREQUESTS"
    status = 429
    text = "too many requests"

    def __init__(self, retry_after: float | None = RETRY_AFTER, message: str = "") -> None:
        super().__init__(message, retry_after=retry_after)


class Unavailable(RegistryError):
    """Not now; `retry_after` in seconds."""

    code = "UNAVAILABLE"
    status = 503
    text = "service unavailable"

    def __init__(
        self, message: str = "", *, retry_after: float | None = RETRY_AFTER, detail: object = None
    ) -> None:
        super().__init__(message, detail=detail, retry_after=retry_after)


class UpstreamUnavailable(Unavailable):
    """The upstream could not be asked: connection, time-out, 5xx, open breaker, 429 after retries.

    An outage: it says nothing about the caller, so those who joined share it, and stale content or grace may
    follow.
    """

    text = "the upstream registry cannot be asked"


class UpstreamBroken(RegistryError):
    """The upstream answered nonsense: wrong digest or length, HTML. The message names the upstream."""

    status = 502
    text = "the upstream registry gave a broken answer"


class ContentMismatch(UpstreamBroken):
    """The bytes that came are not those that were asked for.

    `actual` is the digest of what came, `size` its length in bytes, `wanted` the length it should have.
    """

    def __init__(self, expected: "Digest", actual: "Digest", size: int, *, wanted: int | None = None) -> None:
        length = "" if wanted is None or wanted == size else f" of {wanted}"
        super().__init__(
            f"content of {expected} is broken: received {size}{length} bytes with digest {actual}"
        )
        self.expected = expected
        self.actual = actual
        self.size = size
        self.wanted = wanted


_REFUSALS: Final = (Unauthorized, Denied, NameUnknown, ManifestUnknown, BlobUnknown)

STATUSES: Final[Mapping[str, int]] = MappingProxyType(
    {
        kind.code: kind.status
        for kind in (
            *(RegistryError, *_REFUSALS, DigestInvalid, NameInvalid, TagInvalid, ManifestInvalid),
            *(PaginationInvalid, Unsupported, RangeInvalid, TooManyRequests, Unavailable),
        )
    }
)
"""Code -> status, for every code there is. UpstreamBroken alone departs from it: 502, code UNKNOWN."""


def is_refusal(error: BaseException) -> bool:
    """True when the answer is about THIS caller (no right, or nothing there for it): nobody else's answer."""
    return isinstance(error, _REFUSALS)


def shown(text: str) -> str:
    """What a stranger sent, quoted and cut, fit to stand in a message."""
    cut = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
    return f'"{_printable(cut)}"'


def _printable(text: str) -> str:
    if len(text) > _LONGEST_MESSAGE:
        text = text[:_LONGEST_MESSAGE] + "…"
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _bounded(seconds: float | None) -> float | None:
    if seconds is None or math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT)


def _json(error: Mapping[str, object]) -> bytes:
    return json.dumps({"errors": [error]}, allow_nan=False, separators=(",", ":")).encode("ascii")
