"""Smaller sections of Docker Registry's config.yml: log, catalog, tags, auth, health, proxy."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr

from msrcache.config.fields import (
    Address,
    FilePath,
    Flag,
    Headers,
    Lowercase,
    Opaque,
    Seconds,
    Section,
    Url,
    Whole,
    without_effect,
)


class AccessLogSection(Section):
    """One line per request."""

    disabled: Flag = False
    """Switches the access log off."""


class LogSection(Section):
    """What is logged, and how it looks."""

    level: Annotated[Literal["error", "warn", "info", "debug"], Lowercase] = "info"
    """error, warn, info or debug."""
    formatter: Literal["text", "json", "logstash"] = "text"
    """text, json or logstash."""
    fields: Mapping[str, Any] = Field(default_factory=dict)
    """Fields that every line carries."""
    accesslog: AccessLogSection = AccessLogSection()
    hooks: Any = without_effect("no mail is sent: let the log collector do it")
    report_caller: Any = without_effect("lines name their logger, not the line of code")


class CatalogSection(Section):
    """Limits of _catalog."""

    max_entries: Whole = 1000
    """The most repositories that one page of _catalog lists; 0: 1000."""


class TagsSection(Section):
    """Docker Registry 3's limit of tags/list."""

    max_tags: Any = without_effect("tags/list is relayed: the upstream's own limit holds")


class HtpasswdSection(Section):
    """Accounts of this cache itself, with bcrypt passwords."""

    realm: str = "Registry Realm"
    """What the client shows when it asks for the password."""
    path: FilePath | None = None
    """The htpasswd file (bcrypt entries); read again when it changes."""


class AuthSection(Section):
    """Docker Registry's auth; at most one provider."""

    htpasswd: HtpasswdSection | None = None
    """Selects `cache.access.mode: basic` with this file."""
    token: Opaque | None = None
    """Refused in this version."""
    silly: Any = without_effect("it proves nothing: cache.access.mode decides who may read")
    none: Any = without_effect(
        "the upstream decides who may read; a closed network sets cache.access.mode: open"
    )


class StorageCheckSection(Section):
    """Looks whether the store answers."""

    enabled: Flag = False
    """Whether the store is looked at in the background; a sick one is reported, the replica stays ready."""
    interval: Seconds = 10.0
    """Time between two looks."""
    threshold: Whole = 0
    """How many looks must fail in a row."""


class FileCheckSection(Section):
    """Unready while a file exists."""

    file: FilePath
    """The file; the replica is unready while it exists."""
    interval: Seconds = 10.0
    """Time between two looks."""


class HttpCheckSection(Section):
    """Unready while a URL does not answer as expected."""

    uri: Url
    """What is asked with HEAD."""
    headers: Headers = Field(default_factory=dict)
    """Headers of the question."""
    status_code: Whole = 200
    """The status that means healthy."""
    timeout: Seconds = 5.0
    """How long an answer may take."""
    interval: Seconds = 10.0
    """Time between two looks."""
    threshold: Whole = 0
    """How many looks must fail in a row."""


class TcpCheckSection(Section):
    """Unready while nothing accepts at an address."""

    addr: Address
    """host:port that is connected to."""
    timeout: Seconds = 5.0
    """How long a connection may take."""
    interval: Seconds = 10.0
    """Time between two looks."""
    threshold: Whole = 0
    """How many looks must fail in a row."""


class HealthSection(Section):
    """The operator's own checks."""

    storagedriver: StorageCheckSection = StorageCheckSection()
    file: tuple[FileCheckSection, ...] = ()
    http: tuple[HttpCheckSection, ...] = ()
    tcp: tuple[TcpCheckSection, ...] = ()


class ProxySection(Section):
    """Docker Registry's own pull-through mode: one upstream."""

    remoteurl: Url | None = None
    """The upstream; the same as an entry of cache.upstreams."""
    username: str = ""
    """The service account towards it."""
    password: SecretStr | None = None
    """Its password."""
    ttl: Seconds | None = None
    """How long unused content is kept, where storage.delete.enabled is true; 0: for ever."""
    exec: Any = without_effect("no program is run: give username and password")
    cache_write_timeout: Any = without_effect("a fill is bounded by its pauses, not as a whole")
