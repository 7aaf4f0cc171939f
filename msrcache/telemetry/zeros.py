"""Series that exist from the start, at 0: Prometheus sees no increase in a series whose first sample is a 1, and the
first of these is what somebody must hear of (config/prometheus). Only counters of things that should not happen.
"""

from typing import Final

FROM_ZERO: Final[tuple[tuple[str, str], ...]] = (
    ("readafterwrite_violations_total", "beat"),
    ("readafterwrite_violations_total", "blob"),
    *(("unstored_total", reason) for reason in ("slow", "skipped", "failed", "invisible")),
    *(("fills_total", ending) for ending in ("complete", "failed", "cut")),
    *(("verdicts_total", verdict) for verdict in ("unavailable", "limited")),
    *(("config_reloads_total", result) for result in ("loaded", "failed")),
    *(("tls_reloads_total", result) for result in ("loaded", "failed")),
    *(("janitor_runs_total", result) for result in ("done", "blocked", "failed")),
)
"""The metric's name, and the value of its one label."""
