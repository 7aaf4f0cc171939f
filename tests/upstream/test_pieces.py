"""A 200 or 206 is read as the piece of the blob that it is, or let go with a reason."""

from typing import cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from msrcache.oci.errors import UpstreamBroken
from msrcache.upstream.pieces import read_piece
from msrcache.upstream.wire import Reply


class Headers:
    """A reply without a body."""

    def __init__(self, status: int, **headers: str) -> None:
        pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.status = status
        self.headers = CIMultiDictProxy(CIMultiDict(pairs))
        self.closed = False

    def close(self) -> None:
        """As Reply.close."""
        self.closed = True


def piece(reply: Headers, *, ranged: bool = True) -> tuple[int, int | None, int | None, str]:
    """Beginning, end, total size and tag."""
    found = read_piece(cast(Reply, reply), ranged=ranged, host="reg.example")
    return found.at, found.stop, found.size, found.etag


def test_pieces() -> None:
    """Whole, framed or not; a part, with its total or without; only a strong tag."""
    assert piece(Headers(200, Content_Length="9", ETag='"x"')) == (0, 9, 9, '"x"')
    assert piece(Headers(200, ETag='W/"x"')) == (0, None, None, "")
    assert piece(Headers(206, Content_Range="bytes 2-4/9", Content_Length="3")) == (2, 5, 9, "")
    assert piece(Headers(206, Content_Range="bytes 2-4/*", ETag="x")) == (2, 5, None, "")


@pytest.mark.parametrize(
    ("reply", "ranged"),
    [
        (Headers(206, Content_Range="bytes 0-8/9"), False),
        (Headers(206), True),
        (Headers(206, Content_Range="bytes 2-4/9", Content_Length="4"), True),
        (Headers(206, Content_Type="multipart/byteranges; boundary=b"), True),
    ],
)
def test_no_piece(reply: Headers, *, ranged: bool) -> None:
    """The connection is let go, and the upstream named."""
    with pytest.raises(UpstreamBroken, match=r"reg\.example"):
        piece(reply, ranged=ranged)
    assert reply.closed
