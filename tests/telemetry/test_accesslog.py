"""Promises of telemetry.accesslog: Docker Registry's combined lines, JSON, nothing forged, no secret."""

import io
import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from msrcache.telemetry.accesslog import AccessFormat, AccessLog, AccessRecord, combined_line, json_line
from msrcache.telemetry.lines import LineWriter

LINE = re.compile(
    r'\S+ - \S+ \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "\S+ \S+ HTTP/1\.1" \d{3} \d+ '
    r'"(?:[^"\\]|\\.)*" "(?:[^"\\]|\\.)*"\n'
)


def record(**changes: Any) -> AccessRecord:
    """A plausible record."""
    fields: dict[str, Any] = {
        "started": 1_700_000_000.25,
        "address": "10.0.0.9",
        "caller": "jane",
        "method": "GET",
        "path": "/v2/team/app/manifests/1.2",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes_sent": 1234,
        "duration": 0.0123456,
    }
    return AccessRecord(**(fields | changes))


def test_a_combined_line_is_docker_registrys() -> None:
    """Host, account, time, request line, status, bytes, referer, user agent."""
    assert combined_line(record(user_agent="docker/24.0")) == (
        '10.0.0.9 - jane [14/Nov/2023:22:13:20 +0000] "GET /v2/team/app/manifests/1.2 HTTP/1.1" 200 1234 '
        '"" "docker/24.0"\n'
    )


def test_nobody_is_a_dash() -> None:
    """An unknown address or caller is told as Apache does."""
    assert combined_line(record(address="", caller="")).startswith("- - - [")


def test_a_client_cannot_forge_a_line() -> None:
    """Quotes, backslashes, control characters and spaces in what a client sent are escaped."""
    line = combined_line(
        record(path='/v2/a" 200 0\n', user_agent='x"\\\r\n\x1b[31m', caller="a b", referer="é\udc80")
    )
    assert line == (
        '10.0.0.9 - a\\x20b [14/Nov/2023:22:13:20 +0000] "GET /v2/a\\"\\x20200\\x200\\n HTTP/1.1" 200 1234 '
        '"\\xc3\\xa9\\x80" "x\\"\\\\\\r\\n\\x1b[31m"\n'
    )


@given(st.text(), st.text(), st.text(), st.text())
def test_any_text_makes_one_line_of_the_form(path: str, agent: str, referer: str, caller: str) -> None:
    """Whatever is sent, a reader of the format finds nine fields."""
    changed = record(path=path, user_agent=agent, referer=referer, caller=caller)
    assert LINE.fullmatch(combined_line(changed))
    line = json_line(changed)
    assert line.count("\n") == 1
    assert json.loads(line)["caller"] == caller


def test_json_tells_everything_that_is_known() -> None:
    """Numbers are numbers; what is not known is left out."""
    told = json.loads(
        json_line(
            record(first_byte=0.001, request_id="r1", repository="team/app", reference="1.2", outcome="hit")
        )
    )
    assert told == {
        "time": "2023-11-14T22:13:20.25Z", "address": "10.0.0.9", "caller": "jane", "method": "GET",
        "path": "/v2/team/app/manifests/1.2", "protocol": "HTTP/1.1", "status": 200, "bytes": 1234,
        "duration": 0.012346, "first_byte": 0.001, "request_id": "r1", "repository": "team/app",
        "reference": "1.2", "outcome": "hit",
    }  # fmt: skip


def test_secrets_in_queries_are_masked() -> None:
    """A signed path or referer is logged without its signature."""
    signed = record(path="/v2/a/blobs/x?jwt=hush&n=1", referer="http://h/?token=hush")
    for line in (combined_line(signed), json_line(signed)):
        assert "hush" not in line
        assert "n=1" in line


def test_the_time_follows_the_record() -> None:
    """The text of a second is not used for another one."""
    stream = io.BytesIO()
    log = AccessLog(LineWriter(stream))
    for started in (1_700_000_000.0, 1_700_000_000.9, 1_700_000_001.0, 1_699_999_999.0):
        log.write(record(started=started))
    log.close()
    seconds = re.findall(r":13:(\d\d) |:13:(\d\d) ", stream.getvalue().decode())
    assert [one for one, _ in seconds] == ["20", "20", "21", "19"]


def test_the_style_is_chosen_once() -> None:
    """AccessFormat.JSON writes JSON lines."""
    stream = io.BytesIO()
    log = AccessLog(LineWriter(stream), AccessFormat.JSON)
    log.write(record())
    log.close()
    assert json.loads(stream.getvalue())["status"] == 200
