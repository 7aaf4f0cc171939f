"""server.sent: an answer that is written in one piece."""

from unittest.mock import Mock

import pytest
from multidict import CIMultiDict

from msrcache.server.sent import send


@pytest.mark.parametrize("closing", [True, False])
async def test_a_client_that_has_left_is_no_error_of_ours(closing: bool) -> None:  # noqa: FBT001
    """Also where the transport was closed beneath us and does not say so yet: uvloop then raises RuntimeError."""
    request = Mock()
    request.version.major, request.version.minor = 1, 1
    request.transport.is_closing.return_value = closing
    request.transport.write.side_effect = RuntimeError("the handler is closed")
    with pytest.raises(ConnectionResetError):
        await send(request, 200, CIMultiDict(), b"{}", closing=False)
