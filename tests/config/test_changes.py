"""Which keys differ between two configurations."""

import pytest

from msrcache.config.changes import changed
from msrcache.config.load import parse
from msrcache.config.model import Config

BASE = """version: 0.1
storage: {filesystem: {rootdirectory: /data}}
http: {secret: s3cret-one}
cache: {upstreams: [{url: 'https://a.example'}]}
"""


def config(text: str) -> Config:
    """Of this text alone."""
    return parse(text, "config.yml", {}).config


def test_equal_files_differ_in_nothing() -> None:
    """However often they are read."""
    assert changed(config(BASE), config(BASE)) == []


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (BASE.replace("http: {", "http: {addr: ':1', "), ["http.addr"]),
        (BASE.replace("s3cret-one", "s3cret-two"), ["http.secret"]),
        (BASE.replace("a.example", "b.example"), ["cache.upstreams"]),
        (
            BASE.replace("/data", "/b") + "log: {level: warn}\n",
            ["log.level", "storage.parameters.rootdirectory"],
        ),
        (BASE + "auth: {htpasswd: {path: /x}}\n", ["auth.htpasswd"]),
    ],
)
def test_each_change_is_named(text: str, keys: list[str]) -> None:
    """By its key in the file, secrets too, though their values are never told."""
    assert changed(config(BASE), config(text)) == keys
