"""The access log: one line for each answered request, Apache's combined format as Docker Registry's, or JSON.

Built for the hot path: a line costs a few microseconds on the event loop and no system call there
(lines.LineWriter writes it). What a client sent cannot forge a line: quotes, backslashes and control
characters are escaped as Docker Registry escapes them, and credentials in query strings are masked.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from msrcache.telemetry.lines import LineWriter
from msrcache.telemetry.logs import rfc3339_nano
from msrcache.telemetry.redaction import redact_text

_UNSAFE = re.compile(r'["\\]|[^ -~]')
_UNSAFE_BARE = re.compile(r'["\\]|[^!-~]')
_NAMED = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}


class AccessFormat(StrEnum):
    """How access lines look."""

    COMBINED = "combined"
    JSON = "json"


@dataclass(slots=True, kw_only=True)
class AccessRecord:
    """What is told of one request, durations in seconds; not frozen, since that triples its price.

    `caller` is what Gate.identity gives (an account or a short keyed hash, "-" for nobody); `path` has its
    query; `upstream` names those that were asked for it, or that its fill came from: none for a pure hit.
    """

    started: float  # seconds since the epoch
    address: str
    caller: str
    method: str
    path: str
    protocol: str
    status: int
    bytes_sent: int
    duration: float
    first_byte: float | None = None
    referer: str = ""
    user_agent: str = ""
    request_id: str = ""
    repository: str = ""
    reference: str = ""  # tag or digest
    outcome: str = ""
    upstream: str = ""


class AccessLog:
    """Formats records and hands them to a LineWriter, which it owns."""

    def __init__(self, lines: LineWriter, style: AccessFormat = AccessFormat.COMBINED) -> None:
        self._lines = lines
        self._format: Callable[[AccessRecord], str] = (
            _Combined() if style is AccessFormat.COMBINED else json_line
        )

    def write(self, record: AccessRecord) -> None:
        """Log `record`; never waits, never raises."""
        self._lines.write(self._format(record))

    def close(self) -> None:
        """Write what is kept; waits for the reader, but not for ever."""
        self._lines.close()


class _Combined:
    """Apache's combined format; keeps the text of the current second, which is most of a line's price."""

    def __init__(self) -> None:
        self._second = -1
        self._stamp = ""

    def __call__(self, record: AccessRecord) -> str:
        second = int(record.started)
        if second != self._second:
            self._second = second
            self._stamp = apache_time(second)
        path = redact_text(record.path) if "?" in record.path else record.path
        return (
            f"{record.address or '-'} - {_bare(record.caller)} [{self._stamp}] "
            f'"{_bare(record.method)} {_bare(path)} {record.protocol}" {record.status} {record.bytes_sent} '
            f'"{_quoted(record.referer)}" "{_quoted(record.user_agent)}"\n'
        )


def combined_line(record: AccessRecord) -> str:
    """`record` in Apache's combined format, with its newline."""
    return _Combined()(record)


def json_line(record: AccessRecord) -> str:
    """`record` as one JSON object with its newline; empty fields are left out, numbers are numbers."""
    path = redact_text(record.path) if "?" in record.path else record.path
    fields: dict[str, object] = {
        "time": rfc3339_nano(int(record.started * 1e6) * 1000),
        "address": record.address,
        "caller": record.caller,
        "method": record.method,
        "path": path,
        "protocol": record.protocol,
        "status": record.status,
        "bytes": record.bytes_sent,
        "duration": round(record.duration, 6),
    }
    if record.first_byte is not None:
        fields["first_byte"] = round(record.first_byte, 6)
    for name in ("referer", "user_agent", "request_id", "repository", "reference", "outcome", "upstream"):
        value = getattr(record, name)
        if value:
            fields[name] = redact_text(value) if name == "referer" else value
    return json.dumps(fields, separators=(",", ":")) + "\n"


def apache_time(second: int) -> str:
    """Seconds since the epoch as the combined format has them, in UTC, whatever the locale."""
    moment = time.gmtime(second)
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return (
        f"{moment.tm_mday:02d}/{months[moment.tm_mon - 1]}/{moment.tm_year}:"
        f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d} +0000"
    )


def _bare(text: str) -> str:
    """`text` as one word: spaces are escaped too, so that it stays one field."""
    if not text:
        return "-"
    return _UNSAFE_BARE.sub(_escape, text) if _UNSAFE_BARE.search(text) else text


def _quoted(text: str) -> str:
    if "=" in text and "?" in text:
        text = redact_text(text)
    return _UNSAFE.sub(_escape, text) if _UNSAFE.search(text) else text


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in _NAMED:
        return _NAMED[character]
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
