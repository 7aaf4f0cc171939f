"""The log: structlog, written as Docker Registry writes it, so that what reads its logs reads ours.

`text` is logrus' (time="…" level=info msg="…" key=value), `json` and `logstash` are its other two. Times are
UTC. Every line carries the operator's static fields and, while a request is served, its id
(`http.request.id`, bound by REQUEST_ID). What other libraries log through the standard library comes out in
the same form. Not here: the access log (accesslog), and what keeps either from waiting for its reader
(lines).
"""

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from enum import StrEnum
from typing import Protocol

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from msrcache.telemetry.redaction import redact

# The id of the request that this task serves; set it before the first line, reset it after the last.
REQUEST_ID: ContextVar[str] = ContextVar("msrcache_request_id", default="")

LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}
# Libraries that tell each request at debug or info: told at warning and above, whatever the level.
_TALKATIVE = ("aiohttp.access", "asyncio", "botocore", "aiobotocore", "azure", "google", "urllib3")
_BARE = re.compile(r"[A-Za-z0-9\-._/@^+]*\Z")


class Formatter(StrEnum):
    """How lines look."""

    TEXT = "text"
    JSON = "json"
    LOGSTASH = "logstash"


class TextStream(Protocol):
    """Where lines go: sys.stderr, a LineWriter."""

    def write(self, text: str, /) -> object:
        """Take one line with its newline."""
        ...

    def flush(self) -> object:
        """Hand over what was written."""
        ...


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger for module `name`; may be called at import, since configure() is looked at with each line."""
    logger: FilteringBoundLogger = structlog.get_logger(module=name)
    return logger


def configure(
    *,
    stream: TextStream,
    level: str = "info",
    formatter: Formatter = Formatter.TEXT,
    fields: Mapping[str, object] | None = None,
) -> None:
    """Send every line of the process at `level` (error, warn, info, debug) and above to `stream`.

    Can be called again, when the configuration was re-read. `fields` stand on every line.
    """
    threshold = LEVELS[level.lower()]
    structlog.configure(
        processors=_processors(formatter, dict(fields or {})),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        context_class=dict,
        logger_factory=lambda *_: _Line(stream),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(threshold)


def _processors(formatter: Formatter, fields: dict[str, object]) -> list[Processor]:
    render: dict[Formatter, Processor] = {
        Formatter.TEXT: _render_text,
        Formatter.JSON: _render_json,
        Formatter.LOGSTASH: _render_logstash,
    }

    def add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for key, value in fields.items():
            event.setdefault(key, value)
        if request_id := REQUEST_ID.get():
            event.setdefault("http.request.id", request_id)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        add_fields,
        structlog.processors.format_exc_info,
        redact_event,
        render[formatter],
    ]


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The processor that masks credentials, whatever put them there."""
    return {key: redact(key, value) for key, value in event.items()}


def rfc3339_nano(nanoseconds: int) -> str:
    """A time since the epoch as Go's RFC3339Nano writes it: UTC, trailing zeros of the fraction left out."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


class _Line:
    """The end of structlog's chain: one rendered line, written whole; safe from any thread."""

    __slots__ = ("_stream",)

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream

    def __getattr__(self, _method: str) -> Callable[[str], None]:
        return self._write

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # standard error went away: serving goes on without a log
            return


def _head(event: EventDict) -> tuple[str, str, str]:
    level = str(event.pop("level", "info"))
    message = str(event.pop("event", ""))
    stamp = rfc3339_nano(time.time_ns())
    return stamp, "fatal" if level == "critical" else level, message


def _render_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    stamp, level, message = _head(event)
    parts = [f'time="{stamp}" level={level} msg={_value(message)}']
    parts += [f"{_key(key)}={_value(event[key])}" for key in sorted(event)]
    return " ".join(parts)


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    stamp, level, message = _head(event)
    return _dumps({**event, "level": level, "msg": message, "time": stamp})


def _render_logstash(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    stamp, level, message = _head(event)
    return _dumps({**event, "@timestamp": stamp, "@version": "1", "level": level, "message": message})


def _dumps(event: Mapping[str, object]) -> str:
    return json.dumps(dict(event), default=str, sort_keys=True, separators=(",", ":"))


def _key(key: str) -> str:
    return key if _BARE.match(key) else re.sub(r"[^A-Za-z0-9\-._/@^+]", "_", key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) else str(value)
    return text if _BARE.match(text) else json.dumps(text, ensure_ascii=not text.isprintable())


class _Routed(logging.Handler):
    """Hands the standard library's records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        # Levels of other libraries' own making (5, 15, 25) are told as the next lower one we know.
        level = max((known for known in (10, 20, 30, 40, 50) if known <= record.levelno), default=10)
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # their format and arguments disagree: still worth telling
            message = str(record.msg)
        get_logger(record.name).log(level, message, exc_info=record.exc_info or None)


def _route_standard_library(threshold: int) -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Routed)]:
        root.removeHandler(handler)
    root.addHandler(_Routed())
    root.setLevel(threshold)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
