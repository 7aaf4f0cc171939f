"""REGISTRY_* variables change the file by Docker Registry's rules; its traps are told, not sprung."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.config.load import configuration_path, load
from msrcache.config.model import Config
from msrcache.config.problem import ConfigError
from tests.config.files import bare, errors, loaded, refusal, warnings


def config(variables: dict[str, str], text: str = "") -> Config:
    """The configuration of the smallest file under these variables."""
    return loaded(text, variables).config


def parameters(variables: dict[str, str], text: str = "storage: {filesystem: {rootdirectory: /a}}") -> Any:
    """The storage parameters of a file that has only a store."""
    return bare(f"version: 0.1\n{text}\n", variables).config.storage.parameters


def test_a_variable_sets_a_key() -> None:
    """REGISTRY_HTTP_ADDR is http.addr, whatever the file says."""
    assert config({"REGISTRY_HTTP_ADDR": ":443"}, "http: {addr: ':80', net: tcp}").http.addr == ":443"


def test_our_own_keys_are_reached_alike() -> None:
    """Also through lists of maps."""
    made = config({"REGISTRY_CACHE_UPSTREAMS_0_URL": "https://a", "REGISTRY_CACHE_FILL_CONCURRENCY": "7"})
    assert made.cache.upstreams[0].url == "https://a"
    assert made.cache.fill.concurrency == 7


def test_the_value_is_yaml() -> None:
    """Lists, maps and quotes."""
    variables = {
        "REGISTRY_CACHE_TRUSTED": "[10.0.0.0/8, 192.168.0.0/16]",
        "REGISTRY_LOG_FIELDS": "{site: lyon}",
        "REGISTRY_HTTP_HOST": '"https://cache.example.com"',
    }
    made = config(variables)
    assert len(made.cache.trusted) == 2
    assert made.log.fields == {"site": "lyon"}
    assert made.http.host == "https://cache.example.com"


def test_a_whole_list_is_replaced() -> None:
    """As Docker Registry's own example for middleware does it."""
    value = "[{name: downstream, options: {upstreams: [https://b]}}]"
    made = config(
        {"REGISTRY_MIDDLEWARE_REGISTRY": value},
        "middleware: {registry: [{name: downstream, options: {upstreams: [https://a]}}]}",
    )
    assert [entry.url for entry in made.upstreams] == ["https://msr.example.com", "https://b"]


def test_a_list_element_is_set_or_appended() -> None:
    """Index below the length sets, equal to it appends."""
    text = "cache: {upstreams: [{url: https://a}]}"
    variables = {"REGISTRY_CACHE_UPSTREAMS_0_URL": "https://b", "REGISTRY_CACHE_UPSTREAMS_1_URL": "https://c"}
    assert [entry.url for entry in config(variables, text).cache.upstreams] == ["https://b", "https://c"]


@pytest.mark.parametrize(("part", "words"), [("2", "at most 0"), ("X", "number of a list element")])
def test_an_impossible_index_is_an_error(part: str, words: str) -> None:
    """Larger than the length, or no number."""
    problem = refusal("", {f"REGISTRY_CACHE_UPSTREAMS_{part}_URL": "https://a"})
    assert words in problem.message
    assert problem.place.source == f"environment variable REGISTRY_CACHE_UPSTREAMS_{part}_URL"


def test_variables_are_applied_in_the_byte_order_of_their_names() -> None:
    """REGISTRY_STORAGE first, REGISTRY_STORAGE_S3_BUCKET into what it left."""
    variables = {"REGISTRY_STORAGE_S3_BUCKET": "b", "REGISTRY_STORAGE": "s3"}
    made = bare("version: 0.1\nstorage: filesystem\n", variables).config
    assert made.storage.driver == "s3"
    assert made.storage.parameters == {"bucket": "b"}


def test_a_bare_word_replaces_the_store_and_tells_what_is_lost() -> None:
    """delete and redirect of the file are gone, except where a longer variable sets them again."""
    variables = {"REGISTRY_STORAGE": "inmemory", "REGISTRY_STORAGE_DELETE_ENABLED": "true"}
    text = "version: 0.1\nstorage: {filesystem: {}, delete: {enabled: true}, redirect: {disable: true}}\n"
    made = bare(text, variables)
    assert made.config.storage.delete_enabled
    assert not made.config.storage.redirect_disable
    assert any("storage.redirect of the file is lost" in problem.message for problem in made.problems)
    assert not any("storage.delete" in problem.message for problem in made.problems)


def test_two_drivers_by_a_variable_are_explained() -> None:
    """The classic: a bucket in the environment beside a file system in the file."""
    with pytest.raises(
        ConfigError, match=r"2: filesystem, s3; a variable REGISTRY_STORAGE=<driver> replaces"
    ):
        bare("version: 0.1\nstorage: filesystem\n", {"REGISTRY_STORAGE_S3_BUCKET": "b"})


def test_auth_takes_a_bare_word_too() -> None:
    """REGISTRY_AUTH=htpasswd."""
    variables = {"REGISTRY_AUTH": "htpasswd", "REGISTRY_AUTH_HTPASSWD_PATH": "/h"}
    assert config(variables).access.htpasswd.path == "/h"
    assert config(variables).access.mode == "basic"


def test_the_embedded_default_gives_way_to_a_driver_of_the_environment() -> None:
    """Without a file, naming a driver's parameter is enough."""
    made = load(None, {"REGISTRY_STORAGE_S3_BUCKET": "b"}).config
    assert (made.storage.driver, made.storage.parameters) == ("s3", {"bucket": "b"})


@pytest.mark.parametrize(
    "name",
    [
        "REGISTRY_PORT",
        "REGISTRY_HTTP_ADDRESS",
        "REGISTRY_http_addr",
        "REGISTRY_",
        "REGISTRY__HTTP",
        "REGISTRY_HTTP_ADDR_X",
    ],
)
def test_an_unknown_name_is_a_warning(name: str) -> None:
    """Kubernetes makes such variables for a service that is called registry."""
    (warning,) = warnings("", {name: "tcp://10.0.0.1:5000"})
    assert warning.startswith(f"environment variable {name}: warning: names no key")


def test_an_unknown_name_is_told_what_is_near() -> None:
    """One letter off."""
    assert "did you mean ADDR?" in warnings("", {"REGISTRY_HTTP_ADR": ":1"})[0]


def test_the_path_of_the_file_is_no_key() -> None:
    """REGISTRY_CONFIGURATION_PATH is read by the command and draws no warning."""
    environ = {"REGISTRY_CONFIGURATION_PATH": "/c.yml"}
    assert warnings("", environ) == []
    assert configuration_path(None, environ) == Path("/c.yml")
    assert configuration_path(Path("/other.yml"), environ) == Path("/other.yml")
    assert configuration_path(None, {}) is None


def test_the_version_cannot_be_set() -> None:
    """It is read from the file alone, as in Docker Registry."""
    assert "no effect" in warnings("", {"REGISTRY_VERSION": "0.2"})[0]


def test_internal_names_are_known() -> None:
    """Docker Registry calls health.file FileCheckers inside, and reads the variable by that name."""
    environ = {"REGISTRY_HEALTH_FILECHECKERS_0_FILE": "/f", "REGISTRY_HEALTH_TCP_0_ADDR": "db:1"}
    made = config(environ)
    assert made.health.file[0].file == "/f"
    assert made.health.tcp[0].addr == "db:1"


def test_free_keys_keep_their_case_on_the_way_and_are_lowered_at_the_end() -> None:
    """An existing key is found whatever its case; one that is set last is written in lower case."""
    file = "storage: {s3: {Deep: {Bucket: a}}}"
    assert parameters({"REGISTRY_STORAGE_S3_DEEP_BUCKET": "b"}, file) == {
        "Deep": {"Bucket": "a", "bucket": "b"}
    }


def test_parameters_with_an_underscore_are_reached() -> None:
    """Azure's two; split at the underscore they would become maps."""
    found = parameters({"REGISTRY_STORAGE_AZURE_MAX_RETRIES": "9"}, "storage: {azure: {accountname: a}}")
    assert found == {"accountname": "a", "max_retries": "9"}


@pytest.mark.parametrize("text", ["", "storage: {inmemory: , maintenance: {readonly: {enabled: false}}}"])
def test_what_docker_registry_ignores_or_crashes_on_is_applied_with_a_warning(text: str) -> None:
    """maintenance.readonly, whether its block is in the file or not."""
    file = f"version: 0.1\n{text or 'storage: inmemory'}\n"
    made = bare(file, {"REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true"})
    assert made.config.storage.readonly
    assert any("Docker Registry 2.x ignores it or crashes" in problem.message for problem in made.problems)


@pytest.mark.parametrize(
    "password", ["*hunter2", "!hunter2", "{hunter2: x}", "hunter2: x", "[hunter2", "%hunter2", "on", "010"]
)
def test_a_password_that_yaml_would_take_apart_stays_text(password: str) -> None:
    """Where a single value is asked for, the environment's text is it."""
    made = config({"REGISTRY_PROXY_USERNAME": "cache", "REGISTRY_PROXY_PASSWORD": password})
    assert made.proxy.password is not None
    assert made.proxy.password.get_secret_value() == password
    assert parameters({"REGISTRY_STORAGE_S3_SECRETKEY": "*x"}, "storage: s3") == {"secretkey": "*x"}


def test_a_value_that_yaml_cuts_is_told() -> None:
    """` #` begins a comment, as for Docker Registry."""
    environ = {"REGISTRY_PROXY_USERNAME": "cache", "REGISTRY_PROXY_PASSWORD": "hunter2 #x"}
    (warning,) = warnings("", environ)
    assert "is cut by YAML at a comment" in warning
    assert "hunter2" not in warning


def test_unreadable_yaml_for_a_list_is_an_error_without_the_value() -> None:
    """A list has no text to fall back to."""
    problem = refusal("", {"REGISTRY_CACHE_UPSTREAMS": "[{password: hunter2"})
    assert problem.place.source == "environment variable REGISTRY_CACHE_UPSTREAMS"
    assert "hunter2" not in str(problem)


def test_a_wrong_value_names_its_variable() -> None:
    """Where a value came from is where it has to be changed."""
    problem = refusal("", {"REGISTRY_LOG_LEVEL": "loud"})
    assert str(problem).startswith(
        "environment variable REGISTRY_LOG_LEVEL: error: log.level: should be error, warn"
    )


def test_bytes_that_are_no_text_are_refused() -> None:
    """What the system hands over undecoded is an error with the variable's name."""
    assert "UTF-8" in refusal("", {"REGISTRY_HTTP_HOST": "\udcff"}).message


NAMES = st.lists(
    st.sampled_from(
        [
            "HTTP",
            "STORAGE",
            "S3",
            "CACHE",
            "UPSTREAMS",
            "0",
            "1",
            "URL",
            "AUTH",
            "MIDDLEWARE",
            "REGISTRY",
            "x",
            "",
        ]
    ),
    max_size=6,
).map(lambda parts: "REGISTRY_" + "_".join(parts))
VALUES = st.text(max_size=20) | st.sampled_from(["s3", "[a]", "{a: b}", "", "[{url: https://a}]", "&a [*a]"])


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_no_variable_raises_anything_but_config_error(environ: dict[str, str]) -> None:
    """Whatever else runs in the same environment."""
    assert isinstance(errors("", environ), list)
