"""server.sent: an answer that is written in one piece."""

from unittest.mock import Mock

import pytest
from aiohttp import HttpVersion11
from multidict import CIMultiDict

from msrcache.server.sent import Head, send


@pytest.mark.parametrize("closing", [True, False])
async def test_a_client_that_has_left_is_no_error_of_ours(closing: bool) -> None:  # noqa: FBT001
    """Also where the transport was closed beneath us and does not say so yet: uvloop then raises RuntimeError."""
    head = Head.of(200, HttpVersion11, CIMultiDict(), keep_alive=True)
    request = Mock()
    request.transport.is_closing.return_value = closing
    request.transport.write.side_effect = RuntimeError("the handler is closed")
    with pytest.raises(ConnectionResetError):
        await send(request, head, b"{}")
