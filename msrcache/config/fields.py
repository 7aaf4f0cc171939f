"""The types of a key: what text in config.yml becomes which Python value, and how it is written back.

Every scalar of the file arrives as text, YAML decides nothing; the type of its key reads it here.
Other values are taken as they are, so that sections can be built in Python: HttpSection(drain_timeout=5.0).
"""

import re
import warnings
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from msrcache.config import units
from msrcache.config.masking import masked


class Section(BaseModel):
    """A block of config.yml. An attribute's key is its name without underscores: drain_timeout, draintimeout.

    An empty key (`http:` with nothing behind it) means the default, as in Docker Registry.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.replace("_", ""),
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    free_keys: ClassVar[frozenset[str]] = frozenset()
    """Attributes that are no keys: in the file a key of free choice (a driver's name) stands for them."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {key: item for key, item in value.items() if item is not None}
        return {} if value is None else value


def without_effect(reason: str) -> Any:
    """A key that is accepted because Docker Registry has it, and does nothing here, for this reason."""
    return Field(default=None, exclude=True, json_schema_extra={"without_effect": reason})


def _reading(read: Callable[[str], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: read(value) if isinstance(value, str) else value)


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    text = value if isinstance(value, str) else ""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        hint = f" (perhaps {ip_network(text, strict=False)})"
    except ValueError:
        hint = ""
    raise ValueError(f"should be an address or a network such as 10.0.0.0/8{hint}")


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as cause:
        raise ValueError("should be a URL such as https://msr.example.com:443") from cause
    return parts


def _url(text: str) -> str:
    if "://" not in text and re.fullmatch(r"[A-Za-z0-9.\-]+(:[0-9]+)?/?", text):
        raise ValueError("should begin with https:// (or http://)")
    parts = _split(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f\\]", text):
        raise ValueError("should be a URL such as https://msr.example.com:443")
    if parts.username is not None or parts.password is not None:
        raise ValueError("should hold no user name or password: they have keys of their own")
    if parts.query or parts.fragment:
        raise ValueError("should end after the path: no query and no fragment")
    return text.rstrip("/")


def check_address(text: str) -> str:
    """The text itself where it is host:port; ValueError otherwise."""
    if re.fullmatch(r"[0-9]+", text):
        raise ValueError("should be host:port; a port alone is written with a colon before it, such as :5000")
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ValueError("should be host:port, :port or [IPv6 address]:port")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("should have its IPv6 address in brackets: [::1]:5000")
    if not re.fullmatch(r"\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._\-]*", host):
        raise ValueError("should be host:port, :port or [IPv6 address]:port")
    return text


def _registry_host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.\-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?", text):
        raise ValueError(
            "should be a registry's host as it stands in image names, such as registry.example.com:5000"
        )
    return text


def _resolver(text: str) -> str:
    host, _, port = text.rpartition(":") if text.count(":") == 1 or text.startswith("[") else (text, "", "53")
    try:
        ip_address(host.strip("[]"))
    except ValueError as cause:
        raise ValueError("should be the IP address of a DNS server, with or without :port") from cause
    if not port.isascii() or not port.isdigit():
        raise ValueError("should be the IP address of a DNS server, with or without :port")
    return text


def _pattern(value: object) -> re.Pattern[str]:
    if isinstance(value, re.Pattern):
        return value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a nested set such as [[a] is odd, and not wrong
            return re.compile(value if isinstance(value, str) else "[")
    except (re.error, OverflowError, RecursionError) as cause:
        raise ValueError("should be a regular expression as Python's re module reads it") from cause


def _header_values(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _header_value(text: str) -> str:
    if re.search(r"[\r\n\x00]", text):
        raise ValueError("should be one line")
    return text


def _header_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+", text):
        raise ValueError("should be the name of an HTTP header")
    return text


def _file(text: str) -> str:
    if not text or "\x00" in text:
        raise ValueError("should be the path of a file or folder")
    return text


MOST_WORKERS: Final = 64


def _workers(text: str) -> int:
    if text == "auto":
        return 0
    count = units.parse_whole(text) if text.isdigit() else 0
    if not 1 <= count <= MOST_WORKERS:
        raise ValueError(f"should be a number from 1 to {MOST_WORKERS}, or auto")
    return count


def lowercased(value: object) -> object:
    """Text in lower case, for words that Docker Registry takes in any case."""
    return value.lower() if isinstance(value, str) else value


Flag = Annotated[bool, _reading(units.parse_flag)]
Whole = Annotated[int, _reading(units.parse_whole)]
DURATION: Final = "duration"
"""Marks the types of durations, so that a number without a unit can be warned of."""

Seconds = Annotated[
    float, _reading(units.parse_duration), PlainSerializer(units.format_duration, when_used="json"), DURATION
]
Bytes = Annotated[int, _reading(units.parse_size), PlainSerializer(units.format_size, when_used="json")]
Url = Annotated[str, AfterValidator(_url)]
OptionalUrl = Annotated[str, AfterValidator(lambda text: text and _url(text))]
Address = Annotated[str, AfterValidator(check_address)]
RegistryHost = Annotated[str, AfterValidator(lambda text: text and _registry_host(text))]
OptionalAddress = Annotated[str, AfterValidator(lambda text: text and check_address(text))]
Resolver = Annotated[str, AfterValidator(_resolver)]
Network = Annotated[
    IPv4Network | IPv6Network, BeforeValidator(_network), PlainSerializer(str, when_used="json")
]
Pattern = Annotated[
    re.Pattern[str], BeforeValidator(_pattern), PlainSerializer(lambda found: found.pattern, when_used="json")
]
FilePath = Annotated[str, AfterValidator(_file)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
HeaderValues = Annotated[tuple[HeaderValue, ...], BeforeValidator(_header_values)]
Headers = Annotated[
    Mapping[Annotated[str, AfterValidator(_header_name)], HeaderValues],
    PlainSerializer(masked, when_used="json"),
]
Workers = Annotated[
    int,
    _reading(_workers),
    PlainSerializer(lambda count: count or "auto", when_used="json", return_type=int | str),
]
"""How many processes; 0 is auto."""
Opaque = Mapping[str, Any]
"""A block that config only carries: text, lists and maps, read by whoever owns the section."""

Lowercase: Final = BeforeValidator(lowercased)
