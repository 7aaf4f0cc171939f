"""What an operator may say about an upstream, as values: where it is, who we are there, how long we wait.

Not the configuration file: assembly maps that to these, so that nothing here knows YAML.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

_NOTHING: Mapping[str, str] = MappingProxyType({})


class UpstreamSettingsError(ValueError):
    """The upstream can't be used as it is described; the text is one sentence that says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """One upstream. Times are seconds; none of them ever bounds a whole body."""

    url: str  # scheme://host[:port][/prefix], without the /v2
    username: str = ""  # "" = anonymous; "<token>" = the password is a refresh token
    password: str = field(default="", repr=False)
    ca: tuple[Path, ...] = ()  # PEM files trusted beside the system's
    certificate: Path | None = None  # for an upstream that asks who its clients are
    key: Path | None = None
    skipverify: bool = False
    namespace: str = ""  # sent as ?ns=, to a mirror of several registries
    connect_timeout: float = 5.0  # one address: TCP and TLS
    header_timeout: float = 30.0  # from the request to the answer's header
    stall_timeout: float = 30.0  # between two pieces of a body
    retries: int = 3  # breaks of a body in a row without one byte of progress
    retry_wait: float = 0.2  # the first wait at most; doubles, with full jitter
    connections: int = 512
    resolver: tuple[str, ...] = ()  # name servers of the operator's choosing; none = the system's
    resolver_ttl: float = 30.0
    offline_token: bool = False  # ask the token service for a refresh token
    user_agent: str = "msrcache"
    # HTTP_PROXY, HTTPS_PROXY, NO_PROXY
    environ: Mapping[str, str] = field(default_factory=lambda: _NOTHING, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UpstreamSettingsError(f"the upstream {self.url!r} must read https://host[:port]")
        if parts.username is not None or parts.query or parts.fragment:
            raise UpstreamSettingsError(
                f"the upstream at {parts.hostname} must be a plain https://host[:port]; an account belongs in"
                " username and password"
            )
        if ":" in self.username:
            raise UpstreamSettingsError(f"the username for {parts.hostname} must not hold a colon (RFC 7617)")
        if (self.certificate is None) != (self.key is None):
            raise UpstreamSettingsError(
                f"the upstream {parts.hostname} needs a client certificate and its key, or neither"
            )

    @property
    def name(self) -> str:
        """Host, and port where one is written: how messages and metrics call this upstream."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceSettings:
    """How several upstreams (or one) are tried. Times are seconds."""

    retries: int = 2  # further rounds over all upstreams after the first
    retry_wait: float = 0.25  # the first wait at most; doubles, with full jitter
    retry_budget: float = 10.0  # no attempt starts later than this; longer waits asked of us are not waited
    failures: int = 5  # outages in a row that open a breaker
    open_for: float = 10.0  # then one probe
    patience: float = 2.0  # who gave up after waiting this long for a header counts as an outage


def proxy_environment() -> Mapping[str, str]:
    """The process environment's part that decides about proxies, for `UpstreamSettings.environ`."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUEST_METHOD")
    found = {n: os.environ[n] for n in names if n in os.environ}
    found |= {n.lower(): os.environ[n.lower()] for n in names[:3] if n.lower() in os.environ}
    return MappingProxyType(found)
