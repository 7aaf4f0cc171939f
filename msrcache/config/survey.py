"""What shows before values are looked at: unknown keys, keys without effect, durations without a unit.

An unknown key is a warning with the nearest key there is, because Docker Registry ignores it in silence.
Below `cache:` it is an error: a slip of the pen there would silently change who may read or what is kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from msrcache.config.document import Block, Entry, Listing, Node, Scalar
from msrcache.config.fields import Section
from msrcache.config.problem import KeyPath, Kind, Place, Problem, dotted
from msrcache.config.schema import Shape, Sort, keys_of

_OFF = frozenset({"false", "no", "off", "n", "0", ""})
_SHORT = 1_000_000  # nanoseconds: nobody means a duration below a millisecond


@dataclass(slots=True)
class Survey:
    """One walk over the tree. `strict` makes every unknown key an error."""

    strict: bool
    problems: list[Problem] = field(default_factory=list)

    def known(self, block: Block, section: type[Section], path: KeyPath = ()) -> Block:
        """The block without what the model does not know."""
        keys = keys_of(section)
        kept: dict[str, Entry] = {}
        for key, entry in block.entries.items():
            here = (*path, key)
            if key in keys:
                kept[key] = Entry(entry.place, self._node(entry.node, keys[key], here, entry.place))
            elif section.free_keys:
                kept[key] = entry
            else:
                self._unknown(entry.place, here, keys)
        return Block(kept, block.place)

    def _node(self, node: Node, shape: Shape, path: KeyPath, key_place: Place) -> Node:
        if shape.without_effect is not None:
            self._without_effect(node, shape.without_effect, path, key_place)
        elif shape.section is not None and isinstance(node, Block):
            return self.known(node, shape.section, path)
        elif shape.sort is Sort.LIST and isinstance(node, Listing) and shape.item is not None:
            items = [
                self._node(item, shape.item, (*path, n), item.place) for n, item in enumerate(node.items)
            ]
            return Listing(tuple(items), node.place)
        elif shape.duration and isinstance(node, Scalar):
            self._bare(node, path)
        return node

    def _unknown(self, place: Place, path: KeyPath, keys: Iterable[str]) -> None:
        near = get_close_matches(str(path[-1]).lower(), list(keys), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        refused = self.strict or path[0] == "cache"
        words = "is no known key" if refused else "is no known key and is ignored"
        self._say(Kind.ERROR if refused else Kind.WARNING, place, path, words + hint)

    def _without_effect(self, node: Node, reason: str, path: KeyPath, place: Place) -> None:
        if not isinstance(node, Scalar) or (node.text or "").lower() not in _OFF:
            self._say(Kind.IGNORED, place, path, f"is accepted and has no effect: {reason}")

    def _bare(self, node: Scalar, path: KeyPath) -> None:
        text = node.text or ""
        if text.isascii() and text.isdigit() and len(text) < 19 and 0 < int(text) < _SHORT:
            words = f"is {text} nanoseconds, because a number without a unit is; {text}s would be seconds"
            self._say(Kind.WARNING, node.place, path, words)

    def _say(self, kind: Kind, place: Place, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(kind, place, dotted(path), message))
