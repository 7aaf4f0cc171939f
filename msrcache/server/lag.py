"""How late the event loop is: a timer that measures its own delay, which is everybody's."""

import asyncio
from typing import Final

from msrcache.telemetry.metrics import Metrics

INTERVAL: Final = 0.05
"""Seconds; often enough that a minute has a 99th percentile."""


class LagMeter:
    """Observes the loop's lag a few times a second, from `start` to `stop`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + INTERVAL
        self._timer = loop.call_at(self._due, self._ring)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._metrics.loop_lag_seconds.observe(max(0.0, asyncio.get_running_loop().time() - self._due))
        self.start()
