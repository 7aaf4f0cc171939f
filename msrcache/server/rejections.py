"""Requests refused before they are understood as pulls: too large, too slow, with a body, not HTTP."""

from msrcache.oci.errors import RegistryError


class Malformed(RegistryError):
    """What came is no HTTP request that can be answered."""

    status = 400
    text = "this is not a well-formed HTTP request"


class TooSlow(RegistryError):
    """The headers did not arrive in time."""

    status = 408
    text = "the request's headers took too long to arrive"


class BodyRefused(RegistryError):
    """A request to read came with a body."""

    status = 413
    text = "a request without a body is expected here"


class PathTooLong(RegistryError):
    """Path and query are longer than any of this API are."""

    status = 414
    text = "path and query are too long"


class HeadersTooLarge(RegistryError):
    """The header block is beyond its limit."""

    status = 431
    text = "the request's header block is too large"


class Failed(RegistryError):
    """The cache itself is at fault; the log has the reason under the request's id."""

    status = 500
    text = "the cache failed to answer: its log tells why under this request's id"
