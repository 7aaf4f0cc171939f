"""The `downstream` middleware is read in both of its shapes, and mixing them is refused with words."""

import pytest

from msrcache.config.middleware import DownstreamOptions
from tests.config.files import loaded, refusal


def written(options: str) -> str:
    """A middleware section with these options."""
    return f"middleware:\n  registry:\n    - name: downstream\n      options: {options}\n"


def options(text: str) -> DownstreamOptions:
    """The options as they are read."""
    found = loaded(written(text)).config.middleware.downstream
    assert found is not None
    return found


def test_the_plain_shape_is_a_list_of_addresses() -> None:
    """Since DTR 2.3, and in MSR."""
    found = options("{upstreams: [https://a:443, https://b:443], cas: [/certs/a.pem, /certs/b.pem]}")
    assert found.urls == ("https://a:443", "https://b:443")
    assert found.cas == ("/certs/a.pem", "/certs/b.pem")
    assert found.blobttl is None


def test_the_old_shape_is_a_list_of_maps() -> None:
    """DTR 2.2: the hosts are asked in place of the origin, where there are any."""
    text = "{upstreams: [{originhost: https://o, upstreamhosts: [https://a, https://b]}]}"
    assert options(text).urls == ("https://a", "https://b")
    assert options("{upstreams: [{originhost: https://o}]}").urls == ("https://o",)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("{upstreams: [https://a, {originhost: https://b}]}", "upstreams", "not both"),
        ("{upstreams: []}", "upstreams", "at least one upstream"),
        ("{upstreams: https://a}", "upstreams", "should be a list: [https://a]"),
        ("{upstreams: [{upstreamhosts: [https://a]}]}", "upstreams[0].originhost", "is required"),
        ("{upstreams: [a]}", "upstreams[0]", "should begin with https://"),
        ("{cas: [/a]}", "upstreams", "is required"),
        ("{upstreams: [https://a], blobttl: 1d}", "blobttl", 'such as 300ms, 10s, 5m or 1h30m, here is "1d"'),
        ("{upstreams: [https://a], cas: /a}", "cas", "should be a list"),
    ],
)
def test_wrong_options_are_refused_at_their_key(text: str, key: str, words: str) -> None:
    """With line and column of the value."""
    problem = refusal(written(text))
    assert problem.key == f"middleware.registry[0].options.{key}"
    assert words in str(problem)
    assert problem.place.line == 7


def test_an_unknown_registry_middleware_is_refused() -> None:
    """Docker Registry panics there."""
    problem = refusal("middleware: {registry: [{name: upstream, options: {upstreams: [https://a]}}]}")
    assert (problem.key, problem.value) == ("middleware.registry[0].name", "upstream")


def test_without_the_middleware_there_are_no_options() -> None:
    """An empty section is none."""
    assert loaded("middleware: ").config.middleware.downstream is None


STORAGE = "middleware: {storage: [%s]}"


@pytest.mark.parametrize(
    ("entries", "base"),
    [
        (
            "{name: redirect, options: {baseurl: https://blobs.example.com:8443/below/}}",
            "https://blobs.example.com:8443",
        ),
        (
            "{name: redirect, options: {baseurl: https://a}}, {name: redirect, options: {baseurl: http://b}}",
            "http://b",
        ),
        ("{name: cloudfront, options: {baseurl: https://a}}", ""),
        ("", ""),
    ],
)
def test_a_redirect_names_a_host(entries: str, base: str) -> None:
    """Scheme and host of its baseurl, as in Docker Registry; of several the last, which stands outermost."""
    assert loaded(STORAGE % entries).config.middleware.redirect_base == base


@pytest.mark.parametrize(
    ("entry", "key", "words"),
    [
        ("{name: redirect}", "options.baseurl", "is required for redirect"),
        (
            "{name: redirect, options: {baseurl: blobs.example.com}}",
            "options.baseurl",
            "should begin with https://",
        ),
        ("{name: mirror}", "name", "should be redirect, rewrite"),
    ],
)
def test_a_wrong_redirect_is_refused(entry: str, key: str, words: str) -> None:
    """Docker Registry panics at start."""
    problem = refusal(STORAGE % entry)
    assert problem.key == f"middleware.storage[0].{key}"
    assert words in str(problem)
