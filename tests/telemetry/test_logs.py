"""Promises of telemetry.logs: Docker Registry's formats, levels, request ids, other libraries, no secrets."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from msrcache.telemetry.logs import REQUEST_ID, Formatter, configure, get_logger, rfc3339_nano

Lines = Callable[[], list[str]]
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(formatter: Formatter = Formatter.TEXT, level: str = "info", **fields: object) -> Lines:
    """Configures the log; the result gives the lines so far."""
    stream = io.StringIO()
    configure(stream=stream, level=level, formatter=formatter, fields=fields)
    return lambda: stream.getvalue().splitlines()


def test_text_is_logrus() -> None:
    """time, level and msg first, then keys by name; only what needs quotes has them."""
    lines = logged(service="registry")
    get_logger("server.app").warning("listening on [::]:5000", size=3, up=True, path="/v2/a b")
    (line,) = lines()
    assert re.fullmatch(
        rf'time="{STAMP}" level=warning msg="listening on \[::\]:5000" '
        r'module=server.app path="/v2/a b" service=registry size=3 up=true',
        line,
    )


def test_json_and_logstash_have_their_own_names() -> None:
    """json: time, level, msg; logstash: @timestamp, @version, level, message."""
    lines = logged(Formatter.JSON)
    get_logger("x").info("hello", n=1)
    told = json.loads(lines()[0])
    assert re.fullmatch(STAMP, told.pop("time"))
    assert told == {"level": "info", "msg": "hello", "module": "x", "n": 1}
    lines = logged(Formatter.LOGSTASH)
    get_logger("x").error("hello")
    told = json.loads(lines()[0])
    assert re.fullmatch(STAMP, told.pop("@timestamp"))
    assert told == {"@version": "1", "level": "error", "message": "hello", "module": "x"}


@pytest.mark.parametrize(("level", "told"), [("error", 1), ("warn", 2), ("INFO", 3), ("debug", 4)])
def test_levels_are_docker_registrys(level: str, told: int) -> None:
    """error, warn, info and debug, in any case, each with what is above it; others' loggers alike."""
    lines = logged(level=level)
    for logger in (get_logger("ours"), logging.getLogger("theirs")):
        for name in ("debug", "info", "warning", "error"):
            getattr(logger, name)("line")
    assert len(lines()) == 2 * told


def test_a_line_knows_its_request() -> None:
    """While REQUEST_ID is set each line has it, also those of other libraries."""
    lines = logged()
    token = REQUEST_ID.set("abc-1")
    get_logger("x").info("ours")
    logging.getLogger("aiohttp.server").error("theirs")
    REQUEST_ID.reset(token)
    get_logger("x").info("after")
    assert ["http.request.id=abc-1" in line for line in lines()] == [True, True, False]


def test_what_aiohttp_logs_comes_out_as_ours() -> None:
    """The standard library's records, with arguments and traceback, in one line of the chosen form."""
    lines = logged(Formatter.JSON)
    try:
        raise RuntimeError("password=hush")
    except RuntimeError:
        logging.getLogger("aiohttp.server").exception("Error handling %s", "request")
    (line,) = lines()
    told = json.loads(line)
    assert (told["msg"], told["module"], told["level"]) == (
        "Error handling request",
        "aiohttp.server",
        "error",
    )
    assert "RuntimeError" in told["exception"]
    assert "hush" not in line


def test_a_record_that_cannot_be_formatted_is_told_unformatted() -> None:
    """Others' mistakes in logging are neither lost nor raised into the pull."""
    lines = logged()
    del logging.getLogger().handlers[:-1]  # pytest's own would raise
    logging.getLogger("theirs").error("%d items", "three")
    assert 'msg="%d items"' in lines()[0]


def test_configuring_again_replaces() -> None:
    """After a reload each line comes once, to the new stream."""
    before, after = logged(), logged()
    logging.getLogger("theirs").error("x")
    assert (len(before()), len(after())) == (0, 1)


@pytest.mark.parametrize("formatter", list(Formatter))
def test_no_secret_reaches_the_stream(formatter: Formatter) -> None:
    """By key, by value, in the static fields, in the message."""
    lines = logged(formatter, apikey="hush")
    get_logger("x").info(
        "sent Authorization: Bearer hush.hush",
        password="hush",
        headers={"Cookie": "hush"},
        url="http://u:hush@h/",
    )
    assert len(lines()) == 1
    assert "hush" not in lines()[0]


@pytest.mark.parametrize("formatter", list(Formatter))
def test_a_line_cannot_be_forged(formatter: Formatter) -> None:
    """Line breaks and quotes in values and keys stay inside their line."""
    lines = logged(formatter)
    get_logger("x").info('a\nb" level=error', **{"k\ney": "v\r\nw\u2028", "odd key": '"'})
    assert len(lines()) == 1
    assert "\u2028" not in lines()[0]


def test_a_stream_that_went_away_stops_nobody() -> None:
    """A closed standard error costs the log, not the cache."""
    stream = io.StringIO()
    configure(stream=stream)
    stream.close()
    get_logger("x").info("into the void")


@given(st.text(), st.text())
def test_any_text_is_one_line(message: str, value: str) -> None:
    """No message or value breaks the form."""
    stream = io.StringIO()
    configure(stream=stream)
    get_logger("x").info(message.replace("%", ""), value=value)
    assert stream.getvalue().count("\n") == 1


def test_times_are_written_as_go_writes_them() -> None:
    """RFC 3339 with nanoseconds, trailing zeros left out."""
    assert rfc3339_nano(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"
    assert rfc3339_nano(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"
    assert rfc3339_nano(1_700_000_000_000_000_000) == "2023-11-14T22:13:20Z"
