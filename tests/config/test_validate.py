"""pydantic's complaints become sentences at their place, and one wrong value hides no other."""

import pytest

from msrcache.config.document import Block, read
from msrcache.config.model import Config
from msrcache.config.validate import validate


def tree(text: str) -> Block:
    """A document that is a map."""
    node, problems = read(text, "f")
    assert isinstance(node, Block)
    assert problems == []
    return node


def test_what_is_right_becomes_the_model() -> None:
    """Without a word."""
    config, problems, taken = validate(tree("http: {addr: ':1'}"))
    assert (config.http.addr, problems, taken) == (":1", [], frozenset())


def test_wrong_values_are_taken_out_and_the_rest_is_kept() -> None:
    """So that rules can be looked at beside the errors."""
    config, problems, taken = validate(tree("http: {prefix: x, net: unix}\nlog: 3\n"))
    assert config.http.net == "unix"
    assert config.http.prefix == Config().http.prefix
    assert {problem.key for problem in problems} == {"http.prefix", "log"}
    assert taken == {("http", "prefix"), ("log",)}


def test_a_wrong_element_takes_its_list_out() -> None:
    """Otherwise the positions of the others would move."""
    config, problems, taken = validate(tree("cache: {trusted: [x, 10.0.0.1, y]}"))
    assert config.cache.trusted == ()
    assert [problem.key for problem in problems] == ["cache.trusted[0]", "cache.trusted[2]"]
    assert taken == {("cache", "trusted")}


def test_what_is_missing_is_told_at_its_owner() -> None:
    """There is no other place."""
    _, (problem,), _ = validate(tree("health:\n  file:\n    - interval: 1s\n"))
    assert (problem.place.line, problem.key, problem.value) == (3, "health.file[0].file", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("proxy: {username: [a]}", "should be a single value, not a list or map"),
        ("http: {tls: {clientcas: [~]}}", "should not be empty"),
        ("http: {headers: {'a b': [c]}}", "should be the name of an HTTP header"),
        ("log: {fields: [a]}", "should be a map of keys"),
        ("http: {draintimeout: [a]}", "should be a duration such as 10s"),
        ("catalog: {maxentries: {a: b}}", "should be a whole number"),
        ("log: {accesslog: {disabled: [a]}}", "should be true or false"),
        ("log: {level: [a]}", "should be error, warn, info or debug"),
        ("auth: {token: a}", "should be a map of keys"),
        ("cache: {trusted: [[a]]}", "network"),
        ("cache: {freshness: {immutable: [[a]]}}", "regular expression"),
    ],
)
def test_every_kind_of_complaint_has_its_sentence(text: str, words: str) -> None:
    """None of pydantic's own terms."""
    _, (problem,), _ = validate(tree(text))
    assert words in problem.message


def test_a_secret_in_the_wrong_shape_is_not_shown() -> None:
    """Nor offered as a list."""
    _, problems, _ = validate(tree("http: {secret: [hunter2]}\nproxy: {password: {hunter2: x}}"))
    assert len(problems) == 2
    assert "hunter2" not in str(problems)
