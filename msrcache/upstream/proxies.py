"""Which proxy leads to a URL, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY read as Go programs read them. Pure.

Docker, containerd and the cache that this one replaces are Go programs: one environment must mean one thing
to them and to us. So: upper case before lower case, NO_PROXY with addresses, CIDR blocks, names with or
without a leading dot, `*` and ports; localhost and loopback are never proxied; HTTP_PROXY is refused where
REQUEST_METHOD is set (in a CGI program it is a stranger's `Proxy:` header).
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from msrcache.upstream.settings import UpstreamSettingsError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class _Everything:
    def match(self, _host: str, _port: str, _address: _Address | None) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _InNetwork:
    network: _Network

    def match(self, _host: str, _port: str, address: _Address | None) -> bool:
        return address is not None and address in self.network


@dataclass(frozen=True, slots=True)
class _IsAddress:
    address: _Address
    port: str

    def match(self, _host: str, port: str, address: _Address | None) -> bool:
        return address == self.address and self.port in {"", port}


@dataclass(frozen=True, slots=True)
class _InDomain:
    suffix: str  # begins with a dot
    port: str
    itself: bool  # the name without the dot matches too

    def match(self, host: str, port: str, _address: _Address | None) -> bool:
        inside = host.endswith(self.suffix) or (self.itself and host == self.suffix[1:])
        return inside and self.port in {"", port}


_Rule = _Everything | _InNetwork | _IsAddress | _InDomain


def _split_port(text: str) -> tuple[str, str]:
    """`host:port` taken apart; a bare IPv6 address has no port."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    host, colon, port = text.rpartition(":")
    return (host, port) if colon and ":" not in host else (text, "")


def _address(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _network(text: str) -> _Network | None:
    if "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _ascii(host: str) -> str:
    try:
        return host.encode("idna").decode("ascii") if not host.isascii() else host
    except UnicodeError:
        return host


def _rule(text: str) -> _Rule | None:
    network = _network(text)
    if network is not None:
        return _InNetwork(network)
    host, port = _split_port(text)
    address = _address(host)
    if address is not None:
        return _IsAddress(address, port)
    host = host.removeprefix("*") if host.startswith("*.") else host
    if not host:
        return None
    bare = host.removeprefix(".")
    return _InDomain("." + _ascii(bare), port, itself=not host.startswith("."))


def _rules(no_proxy: str) -> tuple[_Rule, ...]:
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    if "*" in entries:
        return (_Everything(),)
    return tuple(rule for rule in map(_rule, filter(None, entries)) if rule is not None)


def _proxy_url(name: str, text: str) -> str | None:
    if not text:
        return None
    if "://" not in text:
        text = "http://" + text
    parts = _split(text)
    if parts is None or not parts.hostname:
        raise UpstreamSettingsError(f"{name} is no proxy's address; it must read http://host:port")
    if parts.scheme not in {"http", "https"}:
        raise UpstreamSettingsError(f"{name} names a {parts.scheme} proxy; use one that speaks HTTP")
    return text


def _split(text: str) -> SplitResult | None:
    """None where the text is no URL or its port no number."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts


class Proxies:
    """The environment's rules, read once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Raises UpstreamSettingsError for a proxy that can't be used."""

        def either(name: str) -> str:
            return environ.get(name) or environ.get(name.lower()) or ""

        self._http = _proxy_url("HTTP_PROXY", either("HTTP_PROXY"))
        self._https = _proxy_url("HTTPS_PROXY", either("HTTPS_PROXY"))
        self._rules = _rules(either("NO_PROXY"))
        self._in_cgi = bool(environ.get("REQUEST_METHOD"))

    def lead_to(self, *, scheme: str, host: str, port: int) -> str | None:
        """The proxy's URL for a request there, None = directly. UpstreamSettingsError by the REQUEST_METHOD rule."""
        proxy = self._https if scheme == "https" else self._http
        if proxy is None or not self._wanted(host.strip("[]").lower(), str(port)):
            return None
        if scheme == "http" and self._in_cgi:
            raise UpstreamSettingsError(
                "HTTP_PROXY is not trusted while REQUEST_METHOD is set; use HTTPS_PROXY and an https upstream"
            )
        return proxy

    def _wanted(self, host: str, port: str) -> bool:
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return False
        return not any(rule.match(host, port, address) for rule in self._rules)
