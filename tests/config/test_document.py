"""A document is text with positions; what a configuration should not hold is refused with words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.config.document import LARGEST, MOST_NODES, Block, Listing, Scalar, encodes, plain, read
from msrcache.config.problem import Place


def complaint(text: str) -> str:
    """The problems of a document, joined."""
    return "\n".join(str(problem) for problem in read(text, "f")[1])


def tree(text: str) -> object:
    """The document as plain values; it must have no problems."""
    node, problems = read(text, "f")
    assert node is not None
    assert problems == []
    return plain(node)


@pytest.mark.parametrize(
    "text", ["on", "010", "1:30", "0.1", "1e3", "0x1F", "2001-01-01", "y", "12", "<<", "="]
)
def test_a_scalar_stays_the_text_that_was_written(text: str) -> None:
    """YAML 1.1's types play no part."""
    assert tree(f"key: {text}") == {"key": text}


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_an_empty_value_is_none_unless_it_is_quoted(text: str) -> None:
    """`key:` is nothing, `key: ""` and `key: "null"` are text."""
    assert tree(f"key: {text}") == {"key": None}
    assert tree(f'key: "{text}"') == {"key": text}


def test_every_node_and_key_knows_its_place() -> None:
    """Lines and columns count from 1."""
    node, _ = read("a:\n  - x\n  - b: y\n", "f")
    assert isinstance(node, Block)
    assert node.entries["a"].place == Place("f", 1, 1)
    listing = node.child("a")
    assert isinstance(listing, Listing)
    assert listing.items[0] == Scalar("x", Place("f", 2, 5))
    assert isinstance(listing.items[1], Block)
    assert listing.items[1].entries["b"].place == Place("f", 3, 5)


def test_a_duplicate_key_is_refused_with_both_lines() -> None:
    """The second one is pointed at, the first is named."""
    assert complaint("a: 1\nb: 2\na: 3\n") == "f:3:1: error: a: stands here twice, first in line 1"


def test_all_problems_of_a_document_come_at_once() -> None:
    """One wrong line hides no other."""
    assert len(complaint("a: 1\na: 2\nb: !x 1\n? [c]\n: d\n").splitlines()) == 3


def test_aliases_and_merge_keys_are_followed() -> None:
    """A key of the map itself wins over a merged one, an earlier merged map over a later one."""
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], a: 0}\n"
    assert tree(text) == {
        "x": {"a": "1", "b": "2"},
        "y": {"b": "3", "c": "4"},
        "z": {"a": "0", "b": "2", "c": "4"},
    }


def test_a_merge_of_something_else_is_refused() -> None:
    """`<<` takes a map or a list of maps."""
    assert "should merge (<<) a map" in complaint("a: {<<: 1}")


def test_laughing_aliases_are_bounded() -> None:
    """A kilobyte that would unfold to millions of values is refused, once."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert complaint("\n".join(lines)).count(f"more than {MOST_NODES} values") == 1


def test_an_anchor_that_contains_itself_is_refused() -> None:
    """No endless walk."""
    assert "contains itself" in complaint("a: &a [*a]")
    assert "contains itself" in complaint("a: &a {<<: *a}")


def test_deep_nesting_is_refused() -> None:
    """Neither our depth nor Python's is exceeded."""
    assert "too deeply" in complaint("[" * 60 + "]" * 60)
    assert "too deeply" in complaint("[" * 20_000)


def test_a_huge_document_is_refused_unread() -> None:
    """The bound is looked at first."""
    assert "at most" in complaint("#" * (LARGEST + 1))


@pytest.mark.parametrize(
    "text", ["a: !!python/object:os.system x", "a: !hunter2", "a: !!binary aGk=", "a: !hunter2!x y"]
)
def test_tags_are_refused_without_being_shown(text: str) -> None:
    """A password that begins with ! is such a tag."""
    words = complaint(text)
    assert "no YAML tag" in words or "undefined tag handle" in words
    assert "hunter2" not in words


def test_an_unquoted_star_is_explained_without_being_shown() -> None:
    """A password that begins with * is an alias to YAML."""
    words = complaint("password: *hunter2")
    assert words.startswith("f:1:11: error: is not valid YAML: a plain text beginning with * is a YAML alias")
    assert "hunter2" not in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: b: c", "f:1:5: error: is not valid YAML: mapping values are not allowed here"),
        ("a: [1, 2", "expected ',' or ']'"),
        ("a: 1\n---\nb: 2", "found another document"),
        ('a: "\\UFFFFFFFF"', "names no Unicode character"),
        ('a: "\\ud800"', "surrogate"),
        ('a: "\\0"', "NUL"),
        ("a: \x07", "a character that YAML does not allow"),
        ("? [x]\n: y", "keys of plain text"),
        ("a: &x 1\nb: &x 2", "f:2:4: error: is not valid YAML: the same anchor is set twice"),
    ],
)
def test_broken_yaml_is_refused_at_its_place(text: str, words: str) -> None:
    """The complaint says what, and where YAML knows it, in which column."""
    assert words in complaint(text)


def test_nothing_and_comments_alone_are_no_problem_here() -> None:
    """Whether an empty file will do is the loader's question."""
    assert read("", "f") == (None, [])
    assert read("# only a comment\n", "f") == (None, [])


@given(
    st.text(alphabet=st.characters(codec=None), max_size=80)
    | st.text(alphabet="[]{}:,-&*!|>'\"%@`<#\n ?ab", max_size=60)
)
def test_no_text_raises(text: str) -> None:
    """Reading is total: a tree, or problems, or nothing; and what is said can be printed."""
    _, problems = read(text, "f")
    assert all(encodes(str(problem)) for problem in problems)
