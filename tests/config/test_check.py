"""`check-config` prints the verdict and the settings in effect, and its exit status can be relied on."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from msrcache.config.check import check
from tests.config.files import HEAD

DOUBTFUL = HEAD + "http: {http2: {disabled: true}, adr: x}\n"
WRONG = HEAD + "http: {addr: 5000, draintimeout: soon}\n"


def run(tmp_path: Path, text: str, *, as_json: bool = False, strict: bool = False) -> tuple[int, str]:
    """Exit status and output of the command over a file."""
    path = tmp_path / "config.yml"
    path.write_text(text)
    out = io.StringIO()
    return check(path, {}, as_json=as_json, strict=strict, out=out), out.getvalue()


@pytest.mark.parametrize(
    ("text", "strict", "status"),
    [
        (HEAD, False, 0),
        (HEAD, True, 0),
        (DOUBTFUL, False, 0),
        (HEAD + "http: {http2: {disabled: true}}\n", True, 1),
        (DOUBTFUL, True, 2),
        (WRONG, False, 2),
        ("", False, 2),
    ],
)
def test_the_exit_status_tells_the_verdict(tmp_path: Path, text: str, status: int, *, strict: bool) -> None:
    """0 usable, 1 usable with doubts under --strict, 2 not usable (unknown keys under --strict included)."""
    assert run(tmp_path, text, strict=strict)[0] == status


def test_what_cannot_be_used_is_told_line_by_line(tmp_path: Path) -> None:
    """Every error with its place, then the verdict; no settings, for there are none."""
    _, output = run(tmp_path, WRONG)
    lines = output.splitlines()
    assert [line.split(" error: ")[0] for line in lines[:2]] == [
        f"{tmp_path}/config.yml:4:8:",
        f"{tmp_path}/config.yml:4:34:",
    ]
    assert lines[2:] == [
        f"{tmp_path}/config.yml cannot be used (errors: 2, warnings: 0, keys without effect: 0)"
    ]


def test_what_can_be_used_is_shown_with_its_settings(tmp_path: Path) -> None:
    """Warnings, the verdict, what follows, and settings that can be read again."""
    _, output = run(tmp_path, DOUBTFUL)
    told, effective, settings = output.split("\n\n", 2)
    assert "ignored: http.http2" in told
    assert "did you mean addr?" in told
    assert "can be used (errors: 0, warnings: 1, keys without effect: 1)" in told
    assert yaml.safe_load(effective)["upstreams"] == ["https://msr.example.com"]
    again = tmp_path / "again"
    again.mkdir()
    assert run(again, settings)[0] == 0


def test_the_json_form_holds_the_same(tmp_path: Path) -> None:
    """One object: verdict, problems, what follows, settings."""
    status, output = run(tmp_path, DOUBTFUL, as_json=True)
    answer: dict[str, Any] = json.loads(output)
    assert (status, answer["status"], answer["usable"]) == (0, 0, True)
    assert {problem["key"] for problem in answer["problems"]} == {"http.http2", "http.adr"}
    assert answer["settings"]["http"]["addr"] == ":5000"
    assert answer["effective"]["who may read"] == "upstream"


def test_the_json_form_of_what_cannot_be_used_has_no_settings(tmp_path: Path) -> None:
    """Nothing half-understood is shown as if it were in effect."""
    status, output = run(tmp_path, WRONG, as_json=True)
    answer: dict[str, Any] = json.loads(output)
    assert (status, answer["usable"], answer["settings"]) == (2, False, None)
    assert len(answer["problems"]) == 2


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_is_printed(tmp_path: Path, *, as_json: bool) -> None:
    """In no form of the output."""
    text = """\
version: 0.1
storage: {s3: {bucket: b, secretkey: hunter2, accesskey: hunter2}}
http: {secret: hunter2}
proxy: {remoteurl: https://a, username: u, password: hunter2}
health: {http: [{uri: https://a, headers: {Authorization: [Bearer hunter2]}}]}
"""
    status, output = run(tmp_path, text, as_json=as_json)
    assert status == 0
    assert "hunter2" not in output


def test_the_embedded_defaults_can_be_looked_at() -> None:
    """Without a file, under the environment alone."""
    out = io.StringIO()
    environ = {
        "REGISTRY_PROXY_REMOTEURL": "https://a",
        "REGISTRY_STORAGE_DELETE_ENABLED": "true",
        "REGISTRY_PROXY_TTL": "90m",
    }
    assert check(None, environ, as_json=False, strict=True, out=out) == 0
    assert "embedded defaults can be used" in out.getvalue()
    assert "unused content is kept: 1h30m" in out.getvalue()
