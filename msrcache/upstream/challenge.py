"""WWW-Authenticate, read: which ways in a registry offers. Pure.

Not a judge: whether a realm may be trusted is for `tokens` to say. What cannot be read is left out rather
than raised, because an upstream that offers one garbled way and one good one can still be used.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# RFC 9110 5.6.2 and 5.6.4. A token68 ends where a list goes on or ends, or it is the name of a parameter.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_GAP = re.compile(r"[ \t,]*")
_SPACE = re.compile(r"[ \t]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in: the scheme and the parameters' names in lower case, their values as sent."""

    scheme: str
    parameters: Mapping[str, str]
    token68: str = ""

    @property
    def realm(self) -> str:
        """Bearer: the token service's URL. Basic: a name for people."""
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str:
        """Who the token is for."""
        return self.parameters.get("service", "")

    @property
    def scope(self) -> str:
        """What the token must allow; several are separated by spaces."""
        return self.parameters.get("scope", "")


class _Reader:
    """A position in one header value."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def take(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found[found.re.groups]

    def value(self) -> str | None:
        """A parameter's value: quoted string or token."""
        quoted = self.take(_QUOTED)
        return self.take(_TOKEN) if quoted is None else _ESCAPE.sub(r"\1", quoted)

    def parameter(self) -> tuple[str, str] | None:
        """One `name = value`, or None with the position where it was."""
        start = self.at
        name = self.take(_TOKEN)
        self.take(_SPACE)
        if name is not None and self.text.startswith("=", self.at):
            self.at += 1
            self.take(_SPACE)
            value = self.value()
            if value is not None:
                return name.lower(), value
        self.at = start
        return None

    def skip(self) -> None:
        """Past what can't be read: to the next comma outside quotes."""
        while self.at < len(self.text) and self.text[self.at] != ",":
            if self.take(_QUOTED) is None:
                self.at += 1

    def parameters(self) -> Mapping[str, str]:
        """All that follow, up to the next challenge. The first of a name counts."""
        found: dict[str, str] = {}
        while (pair := self.parameter()) is not None:
            found.setdefault(*pair)
            before = self.at
            if "," not in (self.take(_GAP) or ""):
                self.at = before
                break
        return MappingProxyType(found)

    def challenge(self) -> Challenge | None:
        scheme = self.take(_TOKEN)
        if scheme is None or self.text.startswith("=", self.at):
            self.skip()
            return None
        self.take(_SPACE)
        parameters = self.parameters()
        token68 = "" if parameters else self.take(_TOKEN68) or ""
        return Challenge(scheme.lower(), parameters, token68)

    def __iter__(self) -> Iterator[Challenge]:
        self.take(_GAP)
        while self.at < len(self.text):
            found = self.challenge()
            if found is not None:
                yield found
            self.take(_GAP)


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Every challenge of every WWW-Authenticate header, in their order. Never raises."""
    return tuple(challenge for header in headers for challenge in _Reader(header))
