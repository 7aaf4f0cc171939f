"""Each type of key takes what is right and says what would be."""

import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from msrcache.config import fields


def taken(kind: Any, value: object) -> Any:
    """What the type makes of a value."""
    return TypeAdapter[Any](kind).validate_python(value)


def refused(kind: Any, value: object) -> str:
    """What the type says against a value."""
    with pytest.raises(ValidationError) as caught:
        taken(kind, value)
    return str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize(
    "text",
    [":5000", "0.0.0.0:443", "[::1]:5000", "localhost:0", "[fe80::1%eth0]:80", "my-host_1.example:65535"],
)
def test_an_address_is_host_and_port(text: str) -> None:
    """The host may be empty: every interface."""
    assert taken(fields.Address, text) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5000", "such as :5000"),
        ("localhost", "host:port"),
        ("localhost:http", "host:port"),
        (":70000", "host:port"),
        (":" + "9" * 5000, "host:port"),
        ("::1:5000", "brackets"),
        ("a b:1", "host:port"),
        ("", "host:port"),
    ],
)
def test_an_address_that_is_none_is_explained(text: str, words: str) -> None:
    """`addr: 5000`, the classic, in particular."""
    assert words in refused(fields.Address, text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://msr.example.com", "https://msr.example.com"),
        ("http://h:80/a/", "http://h:80/a"),
        ("https://[::1]:5/", "https://[::1]:5"),
    ],
)
def test_a_url_loses_its_last_slash(text: str, url: str) -> None:
    """So that two spellings of one upstream are one."""
    assert taken(fields.Url, text) == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("msr.example.com", "begin with https://"),
        ("msr.example.com:443", "begin with https://"),
        ("ftp://x", "such as https://"),
        ("https://", "such as https://"),
        ("https://x:port", "such as https://"),
        ("https://[::1", "such as https://"),
        ("https://a b", "such as https://"),
        ("https://u:p@x", "no user name or password"),
        ("https://x?y", "no query"),
        ("https://x#y", "no fragment"),
        ("", "such as https://"),
    ],
)
def test_a_url_that_is_none_is_explained(text: str, words: str) -> None:
    """Whatever is missing or too much."""
    assert words in refused(fields.Url, text)


def test_what_is_optional_may_be_empty() -> None:
    """An empty text switches the thing off."""
    assert taken(fields.OptionalAddress, "") == ""
    assert taken(fields.OptionalUrl, "") == ""
    assert "host:port" in refused(fields.OptionalAddress, "x")
    assert "https://" in refused(fields.OptionalUrl, "x")


def test_a_network_is_an_address_or_a_range() -> None:
    """Bits beyond the mask are a slip, and the likely meaning is offered."""
    assert str(taken(fields.Network, "10.0.0.1")) == "10.0.0.1/32"
    assert str(taken(fields.Network, "fd00::/8")) == "fd00::/8"
    assert "(perhaps 10.0.0.0/8)" in refused(fields.Network, "10.0.0.1/8")
    assert "such as 10.0.0.0/8" in refused(fields.Network, "lan")


def test_a_resolver_is_an_ip_address() -> None:
    """A name could not be resolved without one."""
    for text in ("10.0.0.53", "10.0.0.53:5353", "::1", "[::1]:53"):
        assert taken(fields.Resolver, text) == text
    for text in ("dns.example.com", "10.0.0.53:dns", ""):
        assert "IP address of a DNS server" in refused(fields.Resolver, text)


def test_a_pattern_is_compiled() -> None:
    """A bad one is refused when the file is read, not when a tag is pulled."""
    assert taken(fields.Pattern, "v[0-9]+").fullmatch("v12")
    assert taken(fields.Pattern, "[[a]").fullmatch("[")
    assert "regular expression" in refused(fields.Pattern, "v[0-9")


def test_headers_have_names_and_single_lines() -> None:
    """One value may stand without a list."""
    assert taken(fields.Headers, {"X-A": ["b", "c"], "X-D": "e"}) == {"X-A": ("b", "c"), "X-D": ("e",)}
    assert "name of an HTTP header" in refused(fields.Headers, {"X A": ["b"]})
    assert "one line" in refused(fields.Headers, {"X-A": ["b\r\nSet-Cookie: c"]})


def test_a_path_is_not_empty() -> None:
    """And holds no NUL."""
    assert taken(fields.FilePath, "/a") == "/a"
    assert "path of a file" in refused(fields.FilePath, "")
    assert "path of a file" in refused(fields.FilePath, "a\x00b")


def test_values_of_python_are_taken_as_they_are() -> None:
    """Sections are built in Python too: seconds, bytes, booleans."""
    assert taken(fields.Seconds, 5.0) == 5.0
    assert taken(fields.Bytes, 1024) == 1024
    assert taken(fields.Flag, value=True) is True
    assert taken(fields.Whole, 3) == 3
    assert taken(fields.Network, ip_network("::1")) == ip_network("::1")
    assert taken(fields.Pattern, re.compile("a")).pattern == "a"


def test_durations_and_sizes_are_written_with_units() -> None:
    """As the file has them."""
    assert TypeAdapter[Any](fields.Seconds).dump_python(90.0, mode="json") == "1m30s"
    assert TypeAdapter[Any](fields.Bytes).dump_python(65536, mode="json") == "64KiB"


class Inner(fields.Section):
    """A section of this test."""

    some_time: fields.Seconds = 1.0


class Outer(fields.Section):
    """Another, around it."""

    inner_part: Inner = Inner()
    nothing: Any = fields.without_effect("for a test")


def test_keys_are_names_without_underscores_and_empty_ones_are_defaults() -> None:
    """`inner:` with nothing behind it is the default, at any depth."""
    assert Outer.model_validate({"innerpart": {"sometime": "5s"}}).inner_part.some_time == 5.0
    assert Outer.model_validate({"innerpart": {"sometime": None}}) == Outer()
    assert Outer.model_validate({"innerpart": None}) == Outer()
    assert Outer.model_validate(None) == Outer()


def test_what_has_no_effect_is_taken_and_not_shown() -> None:
    """Any shape."""
    assert Outer.model_validate({"nothing": [{"a": "b"}]}).model_dump(by_alias=True) == {
        "innerpart": {"sometime": 1.0}
    }


KINDS: Mapping[str, object] = {
    name: getattr(fields, name)
    for name in (
        "Flag",
        "Whole",
        "Seconds",
        "Bytes",
        "Url",
        "Address",
        "Resolver",
        "Network",
        "Pattern",
        "FilePath",
        "Headers",
    )
}


@given(
    st.text(max_size=60) | st.text(alphabet="htps:/@?#[]%.0123456789abc ", max_size=40),
    st.sampled_from(sorted(KINDS)),
)
def test_no_text_raises_anything_but_a_validation_error(text: str, kind: str) -> None:
    """Every type is total."""
    try:
        taken(KINDS[kind], text)
    except ValidationError as cause:
        str(cause)


@pytest.mark.parametrize("text", ["", "docker.io", "registry.example.com:5000", "[::1]:5000", "10.0.0.7"])
def test_a_registrys_host_is_as_in_image_names(text: str) -> None:
    """With or without a port; empty means none."""
    assert taken(fields.RegistryHost, text) == text


@pytest.mark.parametrize("text", ["https://docker.io", "a/b", "a b", "a:port", "a&x=1"])
def test_what_is_no_registrys_host_is_refused(text: str) -> None:
    """It goes into addresses, so nothing but a host is let through."""
    assert "registry.example.com:5000" in refused(fields.RegistryHost, text)
