"""Reading a driver's parameters: what stands below its name in config.yml, as text or as YAML's own types.

Each driver takes what it knows and then calls `done`, which refuses the rest. Values are never shown in
errors: some are secrets.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

_TRUE: Final = frozenset({"true", "yes", "on", "y"})
_FALSE: Final = frozenset({"false", "no", "off", "n"})


class ParameterError(ValueError):
    """A parameter is missing, unknown or wrong; the text says which and what would be right."""


class Parameters:
    """The parameters of one driver, taken one by one."""

    def __init__(self, driver: str, given: Mapping[str, object]) -> None:
        self._driver = driver
        self._given = {str(key).lower(): value for key, value in given.items()}
        self._known: set[str] = set()

    def text(self, name: str, default: str | None = None) -> str:
        """Text; without a default the parameter is required."""
        value = self._take(name)
        if value is None or value == "":
            if default is None:
                raise ParameterError(f"storage.{self._driver}.{name} is missing")
            return default
        if isinstance(value, Mapping | list | tuple):
            raise self.wrong(name, "should be text")
        return str(value)

    def whole(self, name: str, default: int, *, minimum: int = 0) -> int:
        """A whole number of `minimum` or more."""
        value = self._take(name)
        if value is None or value == "":
            return default
        text = str(value)
        if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or int(text) < minimum:
            raise self.wrong(name, f"should be a whole number of {minimum} or more")
        return int(text)

    def flag(self, name: str, *, default: bool) -> bool:
        """true or false."""
        value = self._take(name)
        if value is None or value == "":
            return default
        word = str(value).lower()
        if word not in _TRUE | _FALSE:
            raise self.wrong(name, "should be true or false")
        return word in _TRUE

    def words(self, name: str) -> tuple[str, ...]:
        """A list of words, or one text in which commas or spaces are between them."""
        value = self._take(name)
        if isinstance(value, list | tuple):
            if not all(isinstance(word, str) for word in value):
                raise self.wrong(name, "should be a list of words")
            return tuple(value)
        if isinstance(value, Mapping):
            raise self.wrong(name, "should be a list of words")
        return tuple(str(value or "").replace(",", " ").split())

    def mapping(self, name: str) -> Mapping[str, object] | None:
        """A map, or None where there is none."""
        value = self._take(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(name, "should be a map")
        return value

    def wrong(self, name: str, should: str) -> ParameterError:
        """The error for this parameter."""
        return ParameterError(f"storage.{self._driver}.{name} {should}")

    def done(self) -> None:
        """Refuse what nobody took."""
        unknown = sorted(set(self._given) - self._known)
        if unknown:
            near = [match for name in unknown for match in get_close_matches(name, sorted(self._known), 1)]
            hint = f"; did you mean {' and '.join(near)}?" if near else ""
            known = ", ".join(sorted(self._known)) or "none"
            raise ParameterError(
                f"storage.{self._driver} has no parameter {' or '.join(unknown)}; there are: {known}{hint}"
            )

    def _take(self, name: str) -> object:
        self._known.add(name)
        return self._given.get(name)
