"""The log and the access log as the configuration has them: the one on standard error, the other on standard output."""

import logging
import sys

from msrcache.config.model import Config
from msrcache.telemetry.accesslog import AccessFormat, AccessLog
from msrcache.telemetry.lines import LineWriter
from msrcache.telemetry.logs import Formatter, configure
from msrcache.telemetry.metrics import Metrics


def configure_logs(config: Config) -> None:
    """Log from now on as the configuration says."""
    configure(
        stream=sys.stderr,
        level=config.log_level,
        formatter=Formatter(config.log.formatter),
        fields=config.log.fields,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def opened_access_log(config: Config, metrics: Metrics, *, shared: bool) -> AccessLog | None:
    """The access log, where there is one; `shared`: other processes write to the same output."""
    if config.log.accesslog.disabled:
        return None
    dropped = metrics.access_log_dropped_total.inc
    style = AccessFormat.COMBINED if config.log.formatter == "text" else AccessFormat.JSON
    return AccessLog(LineWriter(sys.stdout.buffer, dropped=dropped, shared=shared), style)
