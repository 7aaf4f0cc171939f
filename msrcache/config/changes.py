"""Which keys differ between two configurations. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from msrcache.config.model import Config


def changed(old: Config, new: Config) -> list[str]:
    """The keys, dotted as in the file and sorted, whose effective values differ; a list counts as one value."""
    # Not the masked form: two secrets look alike there.
    return sorted(_differing(old.model_dump(by_alias=True), new.model_dump(by_alias=True)))


def _differing(old: object, new: object, path: str = "") -> Iterator[str]:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        if old != new:
            yield path
        return
    before: Mapping[str, Any] = old
    after: Mapping[str, Any] = new
    for key in {**before, **after}:
        yield from _differing(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
