"""Unknown keys, keys without effect and numbers without a unit are told, not silently swallowed."""

import pytest

from msrcache.config.problem import Kind
from tests.config.files import errors, loaded, refusal, warnings


def test_an_unknown_key_is_ignored_with_the_nearest_known_one() -> None:
    """As Docker Registry ignores it, but not in silence."""
    (warning,) = warnings("http: {draintimout: 5s}")
    words = "is no known key and is ignored; did you mean draintimeout?"
    assert warning == f"config.yml:4:8: warning: http.draintimout: {words}"


def test_an_unknown_key_is_an_error_when_strict() -> None:
    """For whoever wants a file without slips."""
    (problem,) = errors("http: {draintimout: 5s}", strict=True)
    assert problem.message == "is no known key; did you mean draintimeout?"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("cache: {fil: {}}", "cache.fil"),
        ("cache: {access: {grase: 5m}}", "cache.access.grase"),
        ("cache: {upstreams: [{url: https://a, usrname: u}]}", "cache.upstreams[0].usrname"),
        ("cache: {upstream: {connect_timeout: 5s}}", "cache.upstream.connect_timeout"),
    ],
)
def test_an_unknown_key_below_cache_is_an_error(text: str, key: str) -> None:
    """At any depth, and by the model's own inner names too."""
    assert refusal(text).key == key


def test_the_value_of_an_unknown_key_is_never_shown() -> None:
    """It may be a misspelt password."""
    assert "hunter2" not in warnings("proxxy: {pasword: hunter2}")[0]


@pytest.mark.parametrize(
    "text",
    [
        "http: {http2: {disabled: true}}",
        "http: {h2c: {enabled: true}}",
        "http: {tls: {letsencrypt: {cachefile: /x, email: a@b, hosts: [c]}}}",
        "log: {hooks: [{type: mail}]}",
        "log: {reportcaller: true}",
        "redis: {addr: 'redis:6379', pool: {maxidle: 16}}",
        "notifications: {endpoints: [{name: a, url: https://x}]}",
        "reporting: {bugsnag: {apikey: x}}",
        "compatibility: {schema1: {enabled: true}}",
        "validation: {manifests: {urls: {allow: [a]}}}",
        "policy: {repository: {classes: [image]}}",
        "tags: {maxtags: 5}",
        "auth: silly",
        "auth: {none: {}}",
        "middleware: {storage: [{name: cloudfront, options: {baseurl: https://x}}]}",
        "middleware: {repository: [{name: x}]}",
    ],
)
def test_a_key_without_effect_is_listed_with_its_reason(text: str) -> None:
    """Once, at the key itself, whatever stands below it."""
    (problem,) = loaded(text).problems
    assert problem.kind is Kind.IGNORED
    assert "is accepted and has no effect: " in problem.message
    assert problem.place.line == 4


def test_a_key_without_effect_that_is_off_is_not_listed() -> None:
    """reportcaller: false is what happens anyway."""
    assert loaded("log: {reportcaller: false}\nhttp: {h2c: }").problems == ()


def test_a_disabled_downstream_is_in_force_and_says_so() -> None:
    """Docker Registry does not look at `disabled` either."""
    entry = "{name: downstream, disabled: true, options: {upstreams: [https://a]}}"
    found = loaded(f"middleware: {{registry: [{entry}]}}")
    assert [problem.key for problem in found.problems] == ["middleware.registry[0].disabled"]
    assert "https://a" in [upstream.url for upstream in found.config.upstreams]


@pytest.mark.parametrize(
    "text",
    [
        "http: {draintimeout: 60}",
        "cache: {access: {grace: 60}}",
        "health: {tcp: [{addr: ':1', interval: 60}]}",
    ],
)
def test_a_duration_without_a_unit_is_told_to_be_nanoseconds(text: str) -> None:
    """Accepted as in Docker Registry; nobody means it."""
    (warning,) = warnings(text)
    assert "is 60 nanoseconds, because a number without a unit is; 60s would be seconds" in warning


@pytest.mark.parametrize("text", ["http: {draintimeout: 0}", "http: {draintimeout: 5000000000}"])
def test_zero_and_real_nanoseconds_draw_no_word(text: str) -> None:
    """They can be meant."""
    assert loaded(text).problems == ()
