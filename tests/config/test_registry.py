"""Docker Registry's smaller sections are read as it reads them."""

import pytest

from tests.config.files import loaded, refusal


def test_log_words_may_be_in_any_case() -> None:
    """As Docker Registry takes the level."""
    log = loaded(
        "log: {level: WARN, formatter: logstash, fields: {a: b}, accesslog: {disabled: true}}"
    ).config.log
    assert (log.level, log.formatter, log.accesslog.disabled) == ("warn", "logstash", True)
    assert log.fields == {"a": "b"}


def test_checks_have_their_defaults() -> None:
    """Ten seconds between two looks, 200 as the healthy status."""
    text = """\
health:
  storagedriver: {enabled: true, threshold: 3}
  file: [{file: /tmp/down}]
  http: [{uri: https://a/health, headers: {Authorization: [x]}, statuscode: 204}, {uri: http://b}]
  tcp: [{addr: "db:5432", timeout: 1s}]
"""
    health = loaded(text).config.health
    assert (health.storagedriver.enabled, health.storagedriver.threshold) == (True, 3)
    assert (health.file[0].file, health.file[0].interval) == ("/tmp/down", 10.0)
    assert [check.status_code for check in health.http] == [204, 200]
    assert health.tcp[0].timeout == 1.0


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("log: {level: trace}", "log.level", "should be error, warn, info or debug"),
        ("loglevel: loud", "loglevel", "debug"),
        ("health: {file: [{interval: 1s}]}", "health.file[0].file", "is required"),
        ("health: {http: [{uri: /x}]}", "health.http[0].uri", "such as https://"),
        ("health: {tcp: [{addr: 5432}]}", "health.tcp[0].addr", "such as :5000"),
        ("health: {tcp: {addr: a:1}}", "health.tcp", "should be a list"),
        ("catalog: {maxentries: 0777}", "catalog.maxentries", "octal"),
        ("catalog: {maxentries: -1}", "catalog.maxentries", "0 or more"),
        ("catalog: 5", "catalog", "should be a map of keys"),
        ("auth: {htpasswd: /h}", "auth.htpasswd", "should be a map of keys"),
    ],
)
def test_wrong_values_are_refused_at_their_key(text: str, key: str, words: str) -> None:
    """With what would be right."""
    problem = refusal(text)
    assert problem.key == key
    assert words in problem.message


def test_htpasswd_selects_accounts_of_this_cache() -> None:
    """Docker Registry's section is the same as cache.access.mode: basic."""
    config = loaded("auth: {htpasswd: {realm: r, path: /h}}").config
    assert config.access.mode == "basic"
    assert (config.access.htpasswd.realm, config.access.htpasswd.path) == ("r", "/h")


def test_none_and_silly_open_nothing() -> None:
    """The upstream still decides."""
    assert loaded("auth: {none: {}}").config.access.mode == "upstream"
    assert loaded("auth: {silly: {realm: r, service: s}}").config.access.mode == "upstream"
