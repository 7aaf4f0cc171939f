"""What follows from several keys together; the example file and the manual tell the true defaults."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from msrcache.config.cache import CacheSection, SpoolSection
from msrcache.config.http import HttpSection
from msrcache.config.load import load
from msrcache.config.masking import MASK
from msrcache.config.model import Config
from msrcache.config.schema import key_paths
from msrcache.config.storage import StorageSection
from tests.config.files import bare, loaded

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "config" / "msrcache.yml"
MANUAL = PROJECT / "docs" / "configuration.md"


def documented() -> dict[str, str]:
    """Key path -> default, from the tables of the manual."""
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", MANUAL.read_text(encoding="utf-8"), re.MULTILINE)
    return {path: default.strip().strip("`") for path, default in rows}


def defaults(settings: dict[str, Any], above: str = "") -> dict[str, str]:
    """Key path -> default as the manual writes it, of every key that is no section."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found |= defaults(value, f"{above}{key}.")
        elif value is None or value in ("", [], {}):
            found[f"{above}{key}"] = "none" if value is None else "empty"
        else:
            found[f"{above}{key}"] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def test_the_example_file_parses_to_exactly_the_defaults() -> None:
    """Nothing in it surprises whoever starts from it."""
    found = load(EXAMPLE, {})
    assert found.config == Config()
    assert found.config.masked() == Config().masked()
    assert [problem.key for problem in found.problems] == ["cache.upstreams"]


def test_the_example_file_names_every_key() -> None:
    """Set or commented out, the last word of each key path stands in it."""
    words = set(re.findall(r"([a-z0-9]+):", EXAMPLE.read_text(encoding="utf-8")))
    missing = [path for path, _ in key_paths(Config) if path.rsplit(".", 1)[-1] not in words]
    assert set(missing) <= {
        "middleware.registry[].options.upstreams[].originhost",
        "middleware.registry[].options.upstreams[].upstreamhosts",
    }


def test_the_manual_has_a_line_for_every_key_and_no_other() -> None:
    """Each key path of the model, and nothing that the model does not know."""
    assert set(documented()) == {path for path, _ in key_paths(Config)}


def test_the_manual_tells_the_true_defaults() -> None:
    """As the model writes them."""
    told = documented()
    true = {path: value for path, value in defaults(Config().masked()).items() if "filesystem" not in path}
    wrong = {
        path: (told.get(path), value) for path, value in true.items() if told.get(path) not in (value, "-")
    }
    assert wrong == {}


def test_what_has_no_effect_is_said_in_the_manual() -> None:
    """With the same reason as check-config gives."""
    text = MANUAL.read_text(encoding="utf-8")
    for path, shape in key_paths(Config):
        if shape.without_effect:
            assert f"| `{path}` | none | No effect: {shape.without_effect}." in text


def test_upstreams_come_from_three_places_each_url_once() -> None:
    """cache.upstreams first, so that its credentials win."""
    text = """\
cache: {upstreams: [{url: https://a, username: u, password: p}]}
middleware: {registry: [{name: downstream, options: {upstreams: [https://a/, https://b], cas: [/ca.pem]}}]}
"""
    found = loaded(text).config.upstreams
    assert [entry.url for entry in found] == ["https://a", "https://msr.example.com", "https://b"]
    assert found[0].username == "u"
    assert found[2].ca == ("/ca.pem",)


def test_the_proxy_account_goes_with_its_upstream() -> None:
    """proxy.username and proxy.password."""
    config = bare(
        "version: 0.1\nstorage: inmemory\nproxy: {remoteurl: https://a, username: u, password: p}\n"
    ).config
    (entry,) = config.upstreams
    assert (entry.username, entry.password) == ("u", SecretStr("p"))


def test_blob_ttl_is_that_of_downstream_or_of_the_proxy() -> None:
    """In force only where deleting is; 0 is for ever."""
    deleting = "version: 0.1\nstorage: {inmemory: , delete: {enabled: true}}\n"
    entry = "middleware: {registry: [{name: downstream, options: {blobttl: 24h, upstreams: [https://a]}}]}\n"
    assert bare(deleting + entry + "proxy: {ttl: 1h}").config.blob_ttl == 86400
    assert bare(deleting + "proxy: {ttl: 1h}").config.blob_ttl == 3600
    assert bare(deleting + "proxy: {ttl: 0}").config.blob_ttl is None
    assert loaded("").config.blob_ttl is None


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (Config(), "/var/lib/registry/msrcache/spool"),
        (Config(storage=StorageSection(parameters={})), "/var/lib/registry/msrcache/spool"),
        (Config(storage=StorageSection(parameters={"rootdirectory": "/data"})), "/data/msrcache/spool"),
        (Config(storage=StorageSection(driver="s3", parameters={})), "/var/lib/msrcache/spool"),
        (Config(cache=CacheSection(spool=SpoolSection(path="/fast"))), "/fast"),
    ],
)
def test_the_spool_lies_beside_a_file_system_store(config: Config, path: str) -> None:
    """So that a finished blob can be linked, not copied; elsewhere it has a folder of its own."""
    assert config.spool_path == Path(path)


def test_the_old_log_level_counts_where_the_new_one_is_absent() -> None:
    """Top-level loglevel is Docker Registry's old spelling."""
    assert loaded("loglevel: DEBUG\n").config.log_level == "debug"
    assert loaded("loglevel: debug\nlog: {level: warn}\n").config.log_level == "warn"
    assert Config().log_level == "info"


def test_an_empty_secret_is_none() -> None:
    """Nothing can be signed with it."""
    assert Config().secret is None
    assert Config(http=HttpSection(secret=SecretStr(""))).secret is None
    assert Config(http=HttpSection(secret=SecretStr("x"))).secret == SecretStr("x")


def test_masked_settings_show_no_secret_and_can_be_read_again() -> None:
    """The file's own keys and units, every secret masked."""
    text = """\
http: {secret: hunter2, headers: {X-A: [b]}}
cache:
  upstreams: [{url: https://a, username: u, password: hunter2}]
  trusted: [10.0.0.0/8]
  freshness: {immutable: [v.*]}
"""
    file = "version: 0.1\nstorage: {s3: {bucket: b, secretkey: hunter2}}\n" + text
    config = bare(file).config
    shown = config.masked()
    assert "hunter2" not in str(shown)
    assert "hunter2" not in repr(config.http)
    assert shown["storage"]["s3"] == {"bucket": "b", "secretkey": MASK}
    assert shown["cache"]["trusted"] == ["10.0.0.0/8"]
    assert shown["cache"]["freshness"]["immutable"] == ["v.*"]


def test_a_configuration_cannot_be_changed() -> None:
    """It is a value; a reload makes another."""
    config = Config()
    with pytest.raises(ValidationError):
        config.http.addr = ":1"  # type: ignore[misc]
