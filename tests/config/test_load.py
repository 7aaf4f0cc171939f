"""Loading tells everything at once, at its place, and raises nothing but ConfigError."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from msrcache.config.document import LARGEST
from msrcache.config.load import load, parse
from msrcache.config.model import Config
from msrcache.config.problem import ConfigError, Kind
from msrcache.config.schema import key_paths
from tests.config.files import bare, errors, loaded

MANY_WRONG = """\
log: {level: loud, formater: json}
http:
  addr: 5000
  draintimeout: soon
cache:
  upstreams:
    - {url: msr.example.com}
    - {username: x}
  spol: {}
  fill: {concurrency: 0}
"""


def failure(text: str) -> str:
    """What a text is refused with, when it stands alone."""
    with pytest.raises(ConfigError) as caught:
        bare(text)
    return str(caught.value)


def test_all_errors_come_at_once_in_the_order_of_the_file() -> None:
    """Wrong values, missing and unknown keys, each with line and column."""
    found = [(problem.place.line, problem.place.column, problem.key) for problem in errors(MANY_WRONG)]
    assert found == [
        (4, 14, "log.level"),
        (6, 3, "http.addr"),
        (7, 17, "http.draintimeout"),
        (10, 13, "cache.upstreams[0].url"),
        (11, 7, "cache.upstreams[1].url"),
        (12, 3, "cache.spol"),
        (13, 23, "cache.fill.concurrency"),
    ]


def test_the_warnings_come_with_the_errors() -> None:
    """Whoever mends the file wants to see both."""
    with pytest.raises(ConfigError) as caught:
        loaded(MANY_WRONG)
    assert [problem.key for problem in caught.value.problems if problem.kind is Kind.WARNING] == [
        "log.formater"
    ]


def test_without_a_file_the_defaults_hold() -> None:
    """Port 5000 and a file system store; the only thing to say is that no upstream is named."""
    found = load(None, {})
    assert found.config == Config()
    assert found.config.http.addr == ":5000"
    assert found.config.storage.parameters == {"rootdirectory": "/var/lib/registry"}
    assert [problem.key for problem in found.problems] == ["cache.upstreams"]


@pytest.mark.parametrize("version", ["0.1", '"0.1"', "'0.1'"])
def test_the_version_may_be_quoted_or_not(version: str) -> None:
    """YAML would make a number of one of them."""
    assert bare(f"version: {version}\nstorage: inmemory\n").config.version == "0.1"


@pytest.mark.parametrize(
    ("line", "words"), [("", "is required"), ("version: 0.2", "should be 0.1"), ("version:", "required")]
)
def test_another_version_or_none_is_refused(line: str, words: str) -> None:
    """As in Docker Registry."""
    assert words in failure(f"{line}\nstorage: inmemory\n")


@pytest.mark.parametrize("text", ["", "# nothing\n", "hello", "- a\n", "~"])
def test_a_file_that_is_no_map_is_refused(text: str) -> None:
    """And says how one begins."""
    assert "version: 0.1" in failure(text)


def test_broken_yaml_is_refused_with_its_line() -> None:
    """The place is YAML's."""
    assert failure("version: 0.1\nhttp: [\n").startswith("config.yml:3:1: error: is not valid YAML")


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("", "no storage driver"),
        ("storage: {delete: {enabled: true}}", "no storage driver"),
        (
            "storage: {s3: {}, filesystem: {}}",
            "exactly one storage driver can be used, here are 2: s3, filesystem",
        ),
        ("storage: {filesytem: {}}", "did you mean filesystem?"),
        ("storage: {s3: {}, delet: {enabled: true}}", "did you mean delete?"),
        ("storage: {s3: bucket}", "should hold the driver's parameters"),
        ("storage: [s3]", "no storage driver"),
    ],
)
def test_a_file_names_exactly_one_driver(storage: str, words: str) -> None:
    """None, two, an unknown one, and the slips that look like it."""
    assert words in failure(f"version: 0.1\n{storage}\n")


def test_a_rule_is_not_believed_about_values_that_were_refused() -> None:
    """blobttl is not said to lack delete.enabled when that key was only written wrongly."""
    text = """\
version: 0.1
storage: {inmemory: , delete: {enabled: maybe}}
middleware: {registry: [{name: downstream, options: {blobttl: 1h, upstreams: [https://a]}}]}
"""
    assert failure(text) == (
        'config.yml:2:41: error: storage.delete.enabled: should be true or false, here is "maybe"'
    )


def test_a_file_is_read_from_disk_with_its_path_in_front(tmp_path: Path) -> None:
    """And a byte order mark is no character of it."""
    path = tmp_path / "config.yml"
    path.write_bytes(b"\xef\xbb\xbfversion: 0.1\nstorage: inmemory\nhttp: {adr: x}\n")
    found = load(path, {})
    assert found.source == str(path)
    assert str(found.problems[-1]).startswith(f"{path}:3:8: warning: http.adr: is no known key")


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"#" * (4 * LARGEST + 1)])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, data: bytes) -> None:
    """Not UTF-8, or far too large to be read at all."""
    path = tmp_path / "config.yml"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        load(path, {})


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """Which file, and why."""
    with pytest.raises(ConfigError, match=r"nowhere.yml: error: cannot be read: No such file or directory"):
        load(tmp_path / "nowhere.yml", {})


def test_an_error_never_shows_a_secret() -> None:
    """Wrong passwords, keys and URLs with passwords, whatever is wrong with them."""
    text = """\
http: {secret: [hunter2]}
cache: {upstreams: [{url: "https://u:hunter2@msr", username: [hunter2], password: {hunter2: hunter2}}]}
health: {http: [{uri: "x://u:hunter2@y", headers: {Authorization: "a\\nhunter2"}}]}
"""
    found = errors(text)
    assert len(found) == 6
    assert "hunter2" not in "\n".join(str(problem) for problem in found)


KEYS = sorted({part for path, _ in key_paths(Config) for part in path.replace("[]", "").split(".")})
LEAVES = st.sampled_from(
    ["on", "0777", "1:30", "10s", "https://a", ":5000", "upstream", "downstream", "", "60", "/x", "[", "x"]
)
TREES = st.recursive(
    LEAVES | st.none() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(st.sampled_from(sorted(Config.model_fields)), TREES, max_size=6))
def test_no_tree_of_known_keys_raises_anything_but_config_error(tree: dict[str, Any]) -> None:
    """Known keys in the wrong places with the wrong values: the search for errors always ends."""
    text = yaml.safe_dump({"version": "0.1", "storage": "inmemory", **tree})
    try:
        parse(text, "f", {})
    except ConfigError as cause:
        found = cause.problems
        assert any(problem.kind is Kind.ERROR for problem in found)


@given(st.text(max_size=200))
def test_no_text_raises_anything_but_config_error(text: str) -> None:
    """Whatever stands in the file."""
    for document in (text, f"version: 0.1\nstorage: inmemory\n{text}"):
        try:
            parse(document, "f", {})
        except ConfigError as cause:
            str(cause).encode()
