"""A 200 or 206 to a request for a blob, read as the piece of it that it is. Pure but for closing a useless one."""

from msrcache.oci.errors import UpstreamBroken
from msrcache.oci.ranges import ContentRangeInvalid, parse_content_range
from msrcache.upstream.answers import content_length, media_type
from msrcache.upstream.body import Piece
from msrcache.upstream.wire import Reply


def read_piece(reply: Reply, *, ranged: bool, host: str) -> Piece:
    """Raises UpstreamBroken, and lets the connection go, where the header contradicts itself or the request."""
    try:
        return _partial(reply, host=host, ranged=ranged) if reply.status == 206 else _whole(reply)
    except UpstreamBroken:
        reply.close()
        raise


def _whole(reply: Reply) -> Piece:
    size = content_length(reply.headers)
    return Piece(reply, 0, size, size, _strong(reply.headers.get("ETag", "")))


def _partial(reply: Reply, *, host: str, ranged: bool) -> Piece:
    if not ranged:
        raise UpstreamBroken(f"the upstream {host} sent a part of a blob where all of it was asked for")
    if media_type(reply.headers) == "multipart/byteranges":
        raise UpstreamBroken(f"the upstream {host} sent several ranges where one was asked for")
    try:
        span, size = parse_content_range(reply.headers.get("Content-Range", ""))
    except ContentRangeInvalid as error:
        raise UpstreamBroken(
            f"the upstream {host} sent a part of a blob without saying which: {error}"
        ) from None
    length = content_length(reply.headers)
    if length is not None and length != span.size:
        raise UpstreamBroken(
            f"the upstream {host} announces bytes {span} of a blob and a length of {length}: that is not the same"
        )
    return Piece(reply, span.start, span.stop, size, _strong(reply.headers.get("ETag", "")))


def _strong(etag: str) -> str:
    """RFC 9110 13.1.5: a weak tag must not stand in If-Range."""
    return etag if etag.startswith('"') and etag.endswith('"') and len(etag) > 2 else ""
