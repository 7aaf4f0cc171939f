"""Every test of the upstream runs twice: on Python's own loop with bodies read by the HTTP client, and on uvloop with
every body of a known length taken past it, as large ones are.
"""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from msrcache.upstream import peers, wire

LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "client": asyncio.SelectorEventLoop,
    "intake": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops."""
    return LOOPS


@pytest.fixture(autouse=True)
async def _bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """On uvloop every body is large."""
    if isinstance(asyncio.get_running_loop(), uvloop.Loop):
        for module in (wire, peers):
            monkeypatch.setattr(module, "LARGE", 1)
