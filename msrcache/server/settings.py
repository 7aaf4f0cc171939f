"""What the server is told: values taken out of the configuration once, so that a reload is one swap.

Not here: what a key means and whether it is right (config), what stands behind the registry (assembly).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Final, Self

from msrcache.config.http import TlsSection
from msrcache.config.model import Config

HEADERS_COUNT: Final = 256
"""Header lines of one request; a client behind a few proxies sends 30."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a stranger may take; times in seconds, sizes in bytes, 0 = no limit (connections: derived)."""

    connections: int = 0
    per_address: int = 0
    headers: int = 64 * 1024
    header_timeout: float = 10.0
    idle: float = 75.0
    path: int = 4 * 1024
    stall: float = 300.0
    """How long a client may take nothing of a body before it is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything of the configuration that the server looks at."""

    addr: str = "127.0.0.1:0"
    net: str = "tcp"
    shared: bool = False
    """Whether other workers listen at the same addresses."""
    prefix: str = "/"
    host: str = ""
    relative_urls: bool = False
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    tls: TlsSection = field(default_factory=TlsSection)
    debug_addr: str = ""
    metrics_addr: str = ""
    metrics_path: str = "/metrics"
    metrics_on_main: bool = True
    drain_delay: float = 5.0
    drain_timeout: float = 60.0
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    proxy_protocol: bool = False
    limits: Limits = field(default_factory=Limits)
    push_to: str = ""
    """URL of the upstream, named to those who push here."""

    @classmethod
    def of(cls, config: Config) -> Self:
        """The server's part of a validated configuration."""
        http, cache = config.http, config.cache
        urls = [entry.url for entry in cache.upstreams] or [config.proxy.remoteurl or ""]
        return cls(
            addr=http.addr,
            net=http.net,
            shared=cache.workers > 1,
            prefix=http.prefix or "/",
            host=http.host.rstrip("/"),
            relative_urls=http.relative_urls,
            headers=http.headers,
            tls=http.tls,
            debug_addr=http.debug.addr,
            metrics_addr=cache.metrics.addr,
            metrics_path=http.debug.prometheus.path,
            metrics_on_main=cache.metrics.enabled and not cache.metrics.addr,
            drain_delay=cache.drain.delay,
            drain_timeout=http.drain_timeout,
            trusted=cache.trusted,
            proxy_protocol=cache.proxy_protocol,
            limits=Limits(
                connections=cache.limits.connections,
                per_address=cache.limits.per_address,
                headers=cache.limits.headers,
                header_timeout=cache.limits.header_timeout,
                idle=cache.limits.idle,
                path=cache.limits.path,
            ),
            push_to=urls[0],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """What the peer port is told."""

    addr: str = "127.0.0.1:0"
    elsewhere: bool = False
    """Whether any other port will do where this one is taken."""
    connections: int = 1024
    served: ServerSettings = field(default_factory=ServerSettings)
    """Limits and headers of its answers."""

    @classmethod
    def of(cls, config: Config) -> Self:
        """The peer port's part of a validated configuration; what operators add to answers is for clients."""
        section = config.cache.peer
        limits = ServerSettings.of(config).limits
        return cls(
            addr=section.addr,
            elsewhere="addr" not in section.model_fields_set,
            served=ServerSettings(limits=limits),
        )
