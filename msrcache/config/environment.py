"""REGISTRY_* variables: how each one changes the tree of the file, by Docker Registry's rules.

Rules: only names that begin with REGISTRY_, in the byte order of their names; the rest of a name is split
at each `_` and led down the tree. Where the model knows the keys, a part is compared with them in upper
case (and with the names that Docker Registry uses inside: HEALTH_FILECHECKERS for health.file); in free
maps with the keys that are there, whatever their case, and a new key is written in lower case; in lists it
is an index, and the length of the list appends an element. The value is read as YAML. Only an impossible
index or unreadable YAML is an error; an unknown name is a warning. Where Docker Registry 2.x would ignore a
clear variable, or crash on it, it is applied and a warning says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from msrcache.config.document import EMPTY, Block, Listing, Node, Scalar, at_source, encodes, read
from msrcache.config.fields import Section
from msrcache.config.model import Config
from msrcache.config.problem import KeyPath, Kind, Place, Problem, dotted
from msrcache.config.registry import AuthSection, HealthSection
from msrcache.config.schema import Shape, Sort, keys_of
from msrcache.config.storage import StorageSection

PREFIX: Final = "REGISTRY_"
PATH_VARIABLE: Final = "REGISTRY_CONFIGURATION_PATH"

_INTERNAL: Final[Mapping[type[Section], Mapping[str, str]]] = MappingProxyType(
    {HealthSection: {"FILECHECKERS": "file", "HTTPCHECKERS": "http", "TCPCHECKERS": "tcp"}}
)
_WITH_UNDERSCORE: Final = ("max_retries", "retry_delay")
"""Azure's two parameters that parts alone could never reach."""

ROOT: Final = Shape(Sort.SECTION, section=Config)
_FREE: Final = Shape(Sort.ANY)
SECTIONS: Final[Mapping[str, type[Section]]] = MappingProxyType(
    {"storage": StorageSection, "auth": AuthSection}
)
"""The sections that may be one bare word: the name of their driver or provider."""


class _UnknownNameError(Exception):
    """No key stands where a variable leads; `near` is what may have been meant."""

    def __init__(self, near: str = "") -> None:
        super().__init__(near)
        self.near = near


class _BadIndexError(Exception):
    """A part that should be an index of a list is none that can be used."""


def one_word(node: Node | None, section: type[Section] | None) -> Node | None:
    """`storage: s3` and `auth: htpasswd`: a bare word is the name of the one driver or provider."""
    if isinstance(node, Scalar) and node.text and section in SECTIONS.values():
        return Block(EMPTY, node.place).having(node.text, Block(EMPTY, node.place))
    return node


def apply(tree: Block, environ: Mapping[str, str]) -> tuple[Block, list[Problem]]:
    """The tree as the variables change it, and what is to be said about them."""
    overlay = _Overlay(environ)
    names = [name for name in environ if name.startswith(PREFIX) and name != PATH_VARIABLE and encodes(name)]
    for name in sorted(names, key=str.encode):
        if encodes(environ[name]):
            tree = overlay.apply(tree, name, environ[name])
        else:
            place = Place(f"environment variable {name}")
            overlay.problems.append(Problem(Kind.ERROR, place, "", "should be text in UTF-8"))
    return tree, overlay.problems


@dataclass(slots=True)
class _Overlay:
    environ: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)

    def apply(self, tree: Block, name: str, text: str) -> Block:
        place = Place(f"environment variable {name}")
        parts = tuple(name[len(PREFIX) :].split("_"))
        if parts == ("VERSION",):
            self._warn(place, "has no effect: the version is read from the file alone")
            return tree
        try:
            path, shape = _lead(tree, parts)
            value = self._value(text, place, path, shape)
            if value is None:
                return tree
            self._traps(tree, parts, place)
            changed = _put(tree, path, value)
        except _UnknownNameError as cause:
            hint = f"; did you mean {cause.near}?" if cause.near else ""
            self._warn(place, f"names no key of the configuration and is ignored{hint}")
            return tree
        except _BadIndexError as cause:
            self.problems.append(Problem(Kind.ERROR, place, "", str(cause)))
            return tree
        return changed if isinstance(changed, Block) else tree

    def _value(self, text: str, place: Place, path: KeyPath, shape: Shape) -> Node | None:
        """The value as YAML; where a single value is asked for, what YAML takes for more stays text."""
        node, problems = read(text, place.source)
        single = shape.sort is Sort.SCALAR or (shape.sort is Sort.ANY and path[:1] == ("storage",))
        if problems and not single:
            self.problems += [Problem(Kind.ERROR, place, dotted(path), found.message) for found in problems]
            return None
        if problems or (shape.sort is Sort.SCALAR and not isinstance(node, Scalar | None)):
            return Scalar(text, place)
        if (
            isinstance(node, Scalar)
            and not node.quoted
            and node.text is not None
            and node.text != text.strip()
        ):
            self._warn(
                place, "is cut by YAML at a comment (#) or line end: put the value in quotes", dotted(path)
            )
        return at_source(node, place) if node is not None else Scalar(None, place)

    def _traps(self, tree: Block, parts: tuple[str, ...], place: Place) -> None:
        if parts == ("STORAGE",):
            block = one_word(tree.child("storage"), StorageSection)
            lost = (
                [key for key in block.entries if key in keys_of(StorageSection)]
                if isinstance(block, Block)
                else []
            )
            lost = [key for key in lost if not self._set_again(f"REGISTRY_STORAGE_{key.upper()}")]
            if lost:
                words = ", ".join(f"storage.{key}" for key in lost)
                self._warn(
                    place, f"replaces the whole storage section: {words} of the file is lost", "storage"
                )
        if parts[0] == "STORAGE" and len(parts) > 3 and "_".join(parts[2:]).lower() not in _WITH_UNDERSCORE:
            self._warn(place, "is applied here, but Docker Registry 2.x ignores it or crashes on it")

    def _set_again(self, start: str) -> bool:
        return any(name == start or name.startswith(f"{start}_") for name in self.environ)

    def _warn(self, place: Place, message: str, key: str = "") -> None:
        self.problems.append(Problem(Kind.WARNING, place, key, message))


def _lead(tree: Block, parts: tuple[str, ...]) -> tuple[KeyPath, Shape]:
    """The key path that the parts lead to, and the shape of what stands there."""
    path: list[str | int] = []
    node: Node | None = tree
    shape = ROOT
    rest = parts
    while rest:
        node = one_word(node, shape.section)
        step, shape, used = _step(node, shape, rest)
        path.append(step)
        node = _child(node, step)
        rest = rest[used:]
    return tuple(path), shape


def _step(node: Node | None, shape: Shape, rest: tuple[str, ...]) -> tuple[str | int, Shape, int]:
    """One step down: the key or index, the shape behind it, and how many parts it took."""
    part = rest[0]
    if not part:
        raise _UnknownNameError
    if shape.sort is Sort.LIST or (shape.sort is Sort.ANY and isinstance(node, Listing)):
        return _index(node, part), shape.item or _FREE, 1
    if shape.section is not None:
        return _known(node, shape.section, rest)
    if shape.sort is Sort.SCALAR:
        raise _UnknownNameError
    joined = "_".join(rest).lower()
    if joined in _WITH_UNDERSCORE:
        return joined, _FREE, len(rest)
    return _free_key(node, part, last=len(rest) == 1), _FREE, 1


def _known(node: Node | None, section: type[Section], rest: tuple[str, ...]) -> tuple[str | int, Shape, int]:
    keys = {key.upper(): key for key in keys_of(section)} | dict(_INTERNAL.get(section, {}))
    if rest[0] in keys:
        key = keys[rest[0]]
        return key, keys_of(section)[key], 1
    if section.free_keys:
        return _free_key(node, rest[0], last=len(rest) == 1), _FREE, 1
    near = get_close_matches(rest[0].upper(), keys, 1)
    raise _UnknownNameError(near[0] if near else "")


def _free_key(node: Node | None, part: str, *, last: bool) -> str:
    if isinstance(node, Block) and not last:
        return next((key for key in node.entries if key.lower() == part.lower()), part.lower())
    return part.lower()


def _index(node: Node | None, part: str) -> int:
    length = len(node.items) if isinstance(node, Listing) else 0
    if not part.isascii() or not part.isdigit():
        raise _BadIndexError("should have the number of a list element (from 0) where the list stands")
    if len(part) > 6 or int(part) > length:
        raise _BadIndexError(f"should name an element that is there or the next one: at most {length}")
    return int(part)


def _child(node: Node | None, step: str | int) -> Node | None:
    if isinstance(node, Block) and isinstance(step, str):
        return node.child(step)
    if isinstance(node, Listing) and isinstance(step, int) and step < len(node.items):
        return node.items[step]
    return None


def _put(node: Node | None, path: KeyPath, value: Node) -> Node:
    """The tree with the value at the path; what stands in the way is replaced."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    child = _put(_named(_child(node, step), step), rest, value)
    if isinstance(step, int):
        items = list(node.items) if isinstance(node, Listing) else []
        items[step : step + 1] = [child]
        return Listing(tuple(items), value.place)
    block = node if isinstance(node, Block) else Block(EMPTY, value.place)
    return block.having(step, child, value.place)


def _named(node: Node | None, step: str | int) -> Node | None:
    return one_word(node, SECTIONS.get(str(step)))
