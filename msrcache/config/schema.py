"""The shape of the model seen from the file: which keys there are, what stands behind each, which do nothing.

Whatever must walk the file beside pydantic walks by these shapes: the environment's variables, the search for
unknown keys, the tests that compare documentation and example with the model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from msrcache.config.fields import DURATION, Section


class Sort(Enum):
    """What stands behind a key."""

    SECTION = "a map of known keys"
    LIST = "a list"
    MAP = "a map"
    SCALAR = "a single value"
    ANY = "anything"


@dataclass(frozen=True, slots=True)
class Shape:
    """What stands behind a key, and why it has no effect, where it has none."""

    sort: Sort
    section: type[Section] | None = None
    item: "Shape | None" = None
    duration: bool = False
    without_effect: str | None = None


@cache
def keys_of(section: type[Section]) -> Mapping[str, Shape]:
    """Every key of a section, as it is spelled in the file."""
    hints = get_type_hints(section, include_extras=True)
    found: dict[str, Shape] = {}
    for name, field in section.model_fields.items():
        if name in section.free_keys:
            continue
        extra = field.json_schema_extra
        reason = extra.get("without_effect") if isinstance(extra, dict) else None
        shape = Shape(Sort.ANY, without_effect=str(reason)) if reason else _shape(hints[name])
        found[field.alias or name] = shape
    return found


def _shape(hint: Any) -> Shape:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner = _shape(arguments[0])
        return Shape(Sort.SCALAR, duration=True) if DURATION in arguments[1:] else inner
    if origin in (Union, UnionType):
        return _choice([_shape(argument) for argument in arguments if argument is not NoneType])
    if origin is tuple:
        return Shape(Sort.LIST, item=_shape(arguments[0]))
    if isinstance(hint, type) and issubclass(hint, Section):
        return Shape(Sort.SECTION, section=hint)
    return Shape(Sort.MAP if origin is Mapping else Sort.ANY if hint is Any else Sort.SCALAR)


def _choice(shapes: list[Shape]) -> Shape:
    """The richest of several: an upstream is text or a section, and only the section has keys to look at."""
    order = list(Sort)
    return min(shapes, key=lambda shape: order.index(shape.sort))


def key_paths(section: type[Section], above: str = "") -> Iterator[tuple[str, Shape]]:
    """Every key path with its shape, `[]` standing for each element of a list; sections included."""
    for key, shape in keys_of(section).items():
        path = f"{above}{key}"
        yield path, shape
        if shape.section is not None:
            yield from key_paths(shape.section, f"{path}.")
        if shape.item is not None and shape.item.section is not None:
            yield from key_paths(shape.item.section, f"{path}[].")
