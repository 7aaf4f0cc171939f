"""YAML as a tree of text with positions. YAML's own types play no part: `on`, `010`, `1:30`, `0.1` stay text.

What YAML can do and a configuration should not is refused with words: duplicate keys, tags, keys that are no
text, anchors that multiply or contain themselves. Aliases and merge keys (`<<`) are followed, within a bound.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import yaml

from msrcache.config.problem import KeyPath, Kind, Place, Problem, dotted

LARGEST: Final = 512 * 1024
"""Characters of a document; a real config.yml has a few thousand."""
MOST_NODES: Final = 20_000
DEEPEST: Final = 40

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "map", "seq")
)


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text as written, without quotes; None for an empty value (`key:`, ~, null)."""

    text: str | None
    place: Place
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands behind a key, and where the key stands."""

    place: Place
    node: "Node"


@dataclass(frozen=True, slots=True)
class Block:
    """A map of keys."""

    entries: Mapping[str, Entry]
    place: Place

    def child(self, key: str) -> "Node | None":
        return self.entries[key].node if key in self.entries else None

    def having(self, key: str, node: "Node", place: Place | None = None) -> "Block":
        return Block({**self.entries, key: Entry(place or node.place, node)}, self.place)

    def without(self, *keys: str) -> "Block":
        return Block({key: entry for key, entry in self.entries.items() if key not in keys}, self.place)


@dataclass(frozen=True, slots=True)
class Listing:
    """A list."""

    items: tuple["Node", ...]
    place: Place


Node = Scalar | Block | Listing
EMPTY: Final[Mapping[str, Entry]] = MappingProxyType({})


class _TextLoader(yaml.SafeLoader):
    """Composes nodes and resolves nothing: a plain scalar is text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  (PyYAML's own way)


def read(text: str, source: str) -> tuple[Node | None, list[Problem]]:
    """The tree of a document (None where it cannot be read or is empty) and every problem on the way."""
    start = Place(source, 1, 1)
    if len(text) > LARGEST:
        return None, [Problem(Kind.ERROR, start, "", f"should be at most {LARGEST} characters long")]
    try:
        root = yaml.compose(text, Loader=_TextLoader)
    except yaml.YAMLError as cause:
        return None, [_syntax(cause, source)]
    except (ValueError, OverflowError):
        return None, [Problem(Kind.ERROR, start, "", "an escape in a quoted text names no Unicode character")]
    except RecursionError:
        return None, [Problem(Kind.ERROR, start, "", "is nested too deeply")]
    if root is None:
        return None, []
    reading = _Reading(source)
    return reading.node(root, ()), reading.problems


def _syntax(cause: yaml.YAMLError, source: str) -> Problem:
    """YAML's complaint without any text of the file, which may be a secret."""
    mark = getattr(cause, "problem_mark", None)
    place = Place(source, mark.line + 1, mark.column + 1) if mark is not None else Place(source, 1, 1)
    words = str(getattr(cause, "problem", None) or "holds a character that YAML does not allow")
    if "undefined alias" in words:
        words = "a plain text beginning with * is a YAML alias, and no such anchor was set: put it in quotes"
    elif words == "second occurrence":
        words = "the same anchor is set twice"
    elif "'" in words and "expected" not in words and "character" not in words:
        words = words.split("'")[0].rstrip()
    return Problem(Kind.ERROR, place, "", f"is not valid YAML: {words}")


class _Reading:
    """One pass over YAML's nodes; problems are collected, and the tree goes on without what is wrong."""

    def __init__(self, source: str) -> None:
        self.problems: list[Problem] = []
        self._source = source
        self._visited = 0
        self._open: set[int] = set()

    def node(self, node: yaml.Node, path: KeyPath) -> Node:
        self._visited += 1
        place = self._place(node)
        if self._visited == MOST_NODES:
            self._wrong(
                place, path, f"holds more than {MOST_NODES} values (aliases count as often as they are used)"
            )
        if self._visited >= MOST_NODES or len(path) > DEEPEST or id(node) in self._open:
            if self._visited < MOST_NODES:
                self._wrong(place, path, "is nested too deeply, or contains itself")
            return Scalar(None, place)
        if node.tag not in _TAGS:
            self._wrong(place, path, "should carry no YAML tag: put a text that begins with ! in quotes")
            return Scalar(None, place)
        self._open.add(id(node))
        try:
            return self._converted(node, path, place)
        finally:
            self._open.discard(id(node))

    def _converted(self, node: yaml.Node, path: KeyPath, place: Place) -> Node:
        if isinstance(node, yaml.MappingNode):
            return Block(self._entries(node, path), place)
        if isinstance(node, yaml.SequenceNode):
            return Listing(tuple(self.node(item, (*path, n)) for n, item in enumerate(node.value)), place)
        text, style = str(node.value), getattr(node, "style", None)
        if "\x00" in text or not encodes(text):
            self._wrong(place, path, "should hold no NUL and no half of a surrogate pair")
            return Scalar(None, place)
        return Scalar(None if style is None and text in _NULL else text, place, style is not None)

    def _entries(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not encodes(key.value):
                self._wrong(self._place(key), path, "should have keys of plain text only")
            elif key.value == "<<" and key.style is None:
                merged = {**self._merged(value, path), **merged}
            elif key.value in entries:
                first = entries[key.value].place.line
                self._wrong(self._place(key), (*path, key.value), f"stands here twice, first in line {first}")
            else:
                entries[key.value] = Entry(self._place(key), self.node(value, (*path, key.value)))
        return {**merged, **entries}

    def _merged(self, value: yaml.Node, path: KeyPath) -> dict[str, Entry]:
        node = self.node(value, (*path, "<<"))
        blocks = node.items if isinstance(node, Listing) else (node,)
        found: dict[str, Entry] = {}
        for block in reversed(blocks):
            if isinstance(block, Block):
                found.update(block.entries)
            else:
                self._wrong(block.place, path, "should merge (<<) a map, or a list of maps")
        return found

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._source, node.start_mark.line + 1, node.start_mark.column + 1)

    def _wrong(self, place: Place, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(Kind.ERROR, place, dotted(path), message))


def encodes(text: str) -> bool:
    """Whether a text can be written as UTF-8: it holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(node: Node) -> Any:
    """The tree as dicts, lists, text and None."""
    if isinstance(node, Block):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, Listing):
        return [plain(item) for item in node.items]
    return node.text


def at_source(node: Node, place: Place) -> Node:
    """The same tree, every place replaced: for values that came from an environment variable."""
    if isinstance(node, Block):
        return Block(
            {key: Entry(place, at_source(entry.node, place)) for key, entry in node.entries.items()}, place
        )
    if isinstance(node, Listing):
        return Listing(tuple(at_source(item, place) for item in node.items), place)
    return Scalar(node.text, place, node.quoted)
