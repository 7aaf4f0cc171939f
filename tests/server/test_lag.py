"""server.lag: how late the loop is."""

import time

from msrcache.server import lag
from msrcache.server.lag import LagMeter
from msrcache.telemetry.metrics import Metrics
from tests.stage.serving import until


async def test_a_blocked_loop_is_seen() -> None:
    """A loop that was held up by a tenth of a second is late by that; after stop nothing is observed."""
    metrics = Metrics()
    meter = LagMeter(metrics)
    meter.start()
    blocked_until = time.monotonic() + lag.INTERVAL + 0.1
    while time.monotonic() < blocked_until:
        pass
    await until(lambda: (metrics.registry.get_sample_value("msrcache_loop_lag_seconds_count") or 0) >= 1)
    assert (metrics.registry.get_sample_value("msrcache_loop_lag_seconds_sum") or 0) >= 0.09
    meter.stop()
    meter.stop()
