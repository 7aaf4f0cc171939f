"""From the tree to the model by pydantic, with pydantic's complaints in words, at their line and column.

A value that is refused is taken out and the rest is validated again, so that one wrong line hides no other.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from msrcache.config.document import Block, Listing, Node, Scalar, plain
from msrcache.config.masking import is_secret, shown
from msrcache.config.model import Config
from msrcache.config.problem import KeyPath, Kind, Problem, dotted

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "is required here",
        "tuple_type": "should be a list",
        "list_type": "should be a list",
        "mapping_type": "should be a map of keys",
        "dict_type": "should be a map of keys",
        "model_type": "should be a map of keys",
        "bool_type": "should be true or false",
        "bool_parsing": "should be true or false",
        "int_type": "should be a whole number",
        "float_type": "should be a duration such as 10s",
        "is_instance_of": "should be a single value",
    }
)


def validate(tree: Block) -> tuple[Config, list[Problem], frozenset[KeyPath]]:
    """The model of all that could be used, every error, and the key paths that were taken out for them."""
    problems: list[Problem] = []
    taken: set[KeyPath] = set()
    while True:
        try:
            return Config.model_validate(plain(tree), context={"file": True}), problems, frozenset(taken)
        except ValidationError as cause:
            for error in cause.errors(include_url=False, include_input=False):
                path, node = _locate(tree, error["loc"])
                problems.append(_problem(error, path, node))
                taken.add(_removable(path, missing=error["type"] == "missing"))
            for path in taken:
                tree = _pruned(tree, path)


def _locate(tree: Block, location: Sequence[int | str]) -> tuple[KeyPath, Node]:
    """Where in the tree an error of pydantic stands; for what is missing, the place where it should be."""
    path: list[str | int] = []
    node: Node = tree
    for part in location:
        if isinstance(part, str) and (part.startswith("=") or part == "[key]"):
            continue  # the model's own tag for one of several shapes, not a key
        if isinstance(node, Block) and isinstance(part, str) and part in node.entries:
            node = node.entries[part].node
        elif isinstance(node, Listing) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        else:
            return (*path, part), node
        path.append(part)
    return tuple(path), node


def _problem(error: "ErrorDetails", path: KeyPath, node: Node) -> Problem:
    value = node.text if isinstance(node, Scalar) and error["type"] != "missing" else None
    visible = shown(value, path) if value else value
    return Problem(Kind.ERROR, node.place, dotted(path), _words(error, node, path), visible)


def _words(error: "ErrorDetails", node: Node, path: KeyPath) -> str:
    context = error.get("ctx") or {}
    match error["type"]:
        case "value_error":
            return str(context.get("error", "cannot be used"))
        case "literal_error":
            return f"should be {str(context['expected']).replace(chr(39), '')}"
        case "string_type" | "secret_string_type":
            return "should not be empty" if _is_empty(node) else "should be a single value, not a list or map"
        case "greater_than_equal":
            return f"should be at least {context['ge']}"
        case "less_than_equal":
            return f"should be at most {context['le']}"
        case "greater_than":
            return f"should be more than {context['gt']:g}"
        case "tuple_type" if isinstance(node, Scalar) and node.text and not is_secret(path):
            return f"should be a list: [{shown(node.text, path)}]"
    return _WORDS.get(error["type"], "cannot be used: " + _plain_words(error))


def _plain_words(error: "ErrorDetails") -> str:
    """pydantic's own sentence, for the rare kinds; it quotes no input for any type that the model uses."""
    return error["msg"][:1].lower() + error["msg"][1:]


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.text is None


def _removable(path: KeyPath, *, missing: bool) -> KeyPath:
    """The key to take out: never an element of a list (the others would move); the owner of a missing key."""
    if missing:
        path = path[:-1]
    indices = [number for number, part in enumerate(path) if isinstance(part, int)]
    return path[: indices[0]] if indices else path


def _pruned(tree: Block, path: KeyPath) -> Block:
    key = str(path[0])
    child: Any = tree.child(key)
    if len(path) == 1 or not isinstance(child, Block):
        return tree.without(key)
    return tree.having(key, _pruned(child, path[1:]), tree.entries[key].place)
