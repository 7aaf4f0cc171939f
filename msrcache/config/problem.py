"""What is said about a configuration: problems with their place, and the error that carries all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

KeyPath = tuple[str | int, ...]


class Kind(StrEnum):
    """How bad a problem is: an error stops, a warning is read, ignored means accepted without effect."""

    ERROR = "error"
    WARNING = "warning"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: a file with line and column (both from 1), or an environment variable."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to say. `value` is fit to be shown: masked where the key holds a secret."""

    kind: Kind
    place: Place
    key: str
    message: str
    value: str | None = None

    def __str__(self) -> str:
        named = f"{self.key}: " if self.key else ""
        found = f', here is "{self.value}"' if self.value is not None else ""
        return f"{self.place}: {self.kind}: {named}{self.message}{found}"

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return {
            "kind": str(self.kind),
            "source": self.place.source,
            "line": self.place.line,
            "column": self.place.column,
            "key": self.key,
            "value": self.value,
            "message": self.message,
        }


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds every error found, and the warnings beside them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems if problem.kind is Kind.ERROR))


def dotted(path: KeyPath) -> str:
    """A key path as it is written in messages: cache.upstreams[0].url."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        word = "".join(sign if sign.isprintable() else "?" for sign in part)
        text += ("." if text else "") + (word if len(word) <= 60 else f"{word[:57]}...")
    return text
