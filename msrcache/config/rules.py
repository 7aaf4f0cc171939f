"""Keys checked against each other: what no single value can show to be wrong.

Each rule is a function from the model to findings; a finding names every key it rests on, first the one to
change. Rules see only values that were accepted; a finding about refused keys is not believed (load.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from msrcache.config.cache import PeerSection, UpstreamEntry
from msrcache.config.fields import check_address
from msrcache.config.middleware import OriginSection
from msrcache.config.model import Config
from msrcache.config.problem import KeyPath, Kind


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong or doubtful between keys."""

    keys: tuple[KeyPath, ...]
    message: str
    kind: Kind = Kind.ERROR
    value: str | None = None


DELETE: KeyPath = ("storage", "delete", "enabled")
REDIRECT: KeyPath = ("storage", "redirect", "disable")
DOWNSTREAM: KeyPath = ("middleware", "registry", 0, "options")


def findings(config: Config) -> Iterator[Finding]:
    """Everything that the rules find."""
    rules = (
        _upstreams,
        _downstream,
        _proxy,
        _accounts,
        _auth,
        _listener,
        _tls,
        _trust,
        _middleware,
        _redirect,
        _local,
        _expiry,
        _peer,
        _workers,
    )
    for rule in rules:
        yield from rule(config)


def _upstreams(config: Config) -> Iterator[Finding]:
    if not config.upstreams:
        keys: tuple[KeyPath, ...] = (
            ("cache", "upstreams"),
            ("proxy", "remoteurl"),
            ("middleware", "registry"),
        )
        words = "names no upstream, nor do proxy and middleware: only what the store holds is served"
        yield Finding(keys, words, Kind.WARNING)
    for number, entry in enumerate(config.cache.upstreams):
        yield from _upstream(entry, ("cache", "upstreams", number))


def _upstream(entry: UpstreamEntry, path: KeyPath) -> Iterator[Finding]:
    if entry.password is not None and entry.password_file is not None:
        yield Finding(
            ((*path, "passwordfile"), (*path, "password")), "stands beside password: give one of the two"
        )
    if bool(entry.username) != (entry.password is not None or entry.password_file is not None):
        words = "should stand together with password (or passwordfile): here is one without the other"
        yield Finding(((*path, "username"), (*path, "password"), (*path, "passwordfile")), words)
    if (entry.certificate is None) != (entry.key is None):
        words = "should stand together with key: here is one without the other"
        yield Finding(((*path, "certificate"), (*path, "key")), words)
    if entry.skip_verify:
        words = (
            "lets whoever sits between this cache and the upstream change every image; give its ca instead"
        )
        yield Finding(((*path, "skipverify"),), words, Kind.WARNING)
    if entry.username and urlsplit(entry.url).scheme == "http":
        yield Finding(((*path, "url"), (*path, "username")), "sends the password in clear text", Kind.WARNING)


def _downstream(config: Config) -> Iterator[Finding]:
    options = config.middleware.downstream
    if options is None:
        return
    if len(config.middleware.registry) > 1:
        yield Finding((("middleware", "registry", 1),), "should hold downstream once, with all its upstreams")
    if options.blobttl is not None and not config.storage.delete_enabled:
        words = "needs storage.delete.enabled: true, without which nothing may be deleted"
        yield Finding(((*DOWNSTREAM, "blobttl"), DELETE), words)
    if options.blobttl == 0:
        yield Finding(
            ((*DOWNSTREAM, "blobttl"),), "should be more than 0, or be left out to keep content for ever"
        )
    hosts = {entry.originhost for entry in options.upstreams if isinstance(entry, OriginSection)}
    if len(hosts) > 1:
        words = "names several origins; all upstreams are asked in turn as if they were one registry"
        yield Finding(((*DOWNSTREAM, "upstreams"),), words, Kind.WARNING)


def _proxy(config: Config) -> Iterator[Finding]:
    proxy = config.proxy
    if proxy.remoteurl is None and (proxy.username or proxy.password is not None):
        yield Finding(
            (("proxy", "username"), ("proxy", "remoteurl")),
            "has no effect without proxy.remoteurl",
            Kind.WARNING,
        )
    elif bool(proxy.username) != (proxy.password is not None):
        words = "should stand together with proxy.password: here is one without the other"
        yield Finding((("proxy", "username"), ("proxy", "password")), words)
    if proxy.ttl and not config.storage.delete_enabled:
        words = "has no effect without storage.delete.enabled: true, without which nothing may be deleted"
        yield Finding((("proxy", "ttl"), DELETE), words, Kind.WARNING)
    if proxy.username and proxy.remoteurl and urlsplit(proxy.remoteurl).scheme == "http":
        yield Finding(
            (("proxy", "remoteurl"), ("proxy", "username")), "sends the password in clear text", Kind.WARNING
        )


def _accounts(config: Config) -> Iterator[Finding]:
    if config.auth.token is not None:
        words = "is not available in this version: without it the upstream itself decides (cache.access.mode)"
        yield Finding((("auth", "token"),), words)
    if config.access.mode == "basic" and config.access.htpasswd.path is None:
        own = config.auth.htpasswd is None
        path: KeyPath = ("cache", "access", "htpasswd", "path") if own else ("auth", "htpasswd", "path")
        yield Finding(
            (path, ("cache", "access", "mode")), "is required for accounts of this cache: the htpasswd file"
        )


def _auth(config: Config) -> Iterator[Finding]:
    own = config.cache.access
    mode: KeyPath = ("cache", "access", "mode")
    if config.auth.htpasswd is not None and "mode" in own.model_fields_set and own.mode != "basic":
        yield Finding(
            (mode, ("auth", "htpasswd")),
            "contradicts auth.htpasswd, which asks for mode basic: keep one of them",
        )
    if own.mode == "open" and any(entry.username for entry in config.upstreams):
        words = "lets everyone who can reach this cache read all that its service account can"
        yield Finding((mode,), words, Kind.WARNING)


def _listener(config: Config) -> Iterator[Finding]:
    addr = config.http.addr
    if config.http.net == "unix":
        if not addr.startswith("/"):
            yield Finding(
                (("http", "addr"), ("http", "net")),
                "should be the absolute path of a socket, as http.net is unix",
            )
        return
    try:
        check_address(addr)
    except ValueError as cause:
        yield Finding((("http", "addr"), ("http", "net")), str(cause), value=addr)
    for path, other in (
        (("http", "debug", "addr"), config.http.debug.addr),
        (("cache", "metrics", "addr"), config.cache.metrics.addr),
    ):
        if other and other == addr:
            yield Finding((path, ("http", "addr")), "is the address of the main listener: choose another")


def _tls(config: Config) -> Iterator[Finding]:
    tls = config.http.tls
    if (tls.certificate is None) != (tls.key is None):
        words = "should stand together with http.tls.key: here is one without the other"
        yield Finding((("http", "tls", "certificate"), ("http", "tls", "key")), words)
    elif not tls.enabled and (tls.client_cas or tls.client_auth):
        words = "asks for client certificates, but there is no TLS: http.tls.certificate and key are missing"
        yield Finding(
            (("http", "tls", "clientcas"), ("http", "tls", "clientauth"), ("http", "tls", "certificate")),
            words,
        )
    if tls.enabled and tls.client_auth == "require-any-client-cert":
        words = (
            "is served as require-and-verify-client-cert: a certificate that nobody verifies proves nothing"
        )
        yield Finding((("http", "tls", "clientauth"),), words, Kind.WARNING)


def _trust(config: Config) -> Iterator[Finding]:
    if config.cache.proxy_protocol and not config.cache.trusted:
        words = "needs cache.trusted: the networks of the load balancers whose word is taken"
        yield Finding((("cache", "proxyprotocol"), ("cache", "trusted")), words)


def _middleware(config: Config) -> Iterator[Finding]:
    for number, entry in enumerate(config.middleware.storage):
        path: KeyPath = ("middleware", "storage", number)
        baseurl: KeyPath = (*path, "options", "baseurl")
        if entry.name != "redirect":
            words = (
                "is accepted and has no effect: URLs are made by the driver itself, not by a content network"
            )
            yield Finding(((*path, "name"),), words, Kind.IGNORED)
        elif not entry.options.baseurl:
            yield Finding((baseurl,), "is required for redirect: the host that clients are sent to for blobs")
        elif urlsplit(entry.options.baseurl).path:
            words = "should end after the host: of its path nothing is used, as in Docker Registry"
            yield Finding((baseurl,), words, Kind.WARNING)
        elif config.storage.redirect_disable:
            yield Finding(
                ((*path, "name"), REDIRECT), "has no effect beside storage.redirect.disable", Kind.WARNING
            )


def _redirect(config: Config) -> Iterator[Finding]:
    for number, entry in enumerate(config.cache.redirect.clients):
        path: KeyPath = ("cache", "redirect", "clients", number)
        if not entry.networks:
            yield Finding(((*path, "networks"),), "should name at least one network, such as 10.0.0.0/8")
        if entry.endpoint and entry.mode == "stream":
            yield Finding(
                ((*path, "endpoint"), (*path, "mode")), "contradicts mode stream: keep one of the two"
            )
        elif urlsplit(entry.endpoint).path:
            words = "should end after host and port: the path is made from bucket and object"
            yield Finding(((*path, "endpoint"),), words)
        if config.storage.redirect_disable:
            yield Finding((path, REDIRECT), "has no effect beside storage.redirect.disable", Kind.WARNING)


def _local(config: Config) -> Iterator[Finding]:
    section = config.cache.local
    path: KeyPath = ("cache", "local", "path")
    size: KeyPath = ("cache", "local", "size")
    if not section.path:
        if section.size:
            yield Finding((size, path), "has no effect without cache.local.path", Kind.WARNING)
        return
    if not section.path.startswith("/"):
        yield Finding((path,), "should be an absolute path", value=section.path)
    if not section.size:
        yield Finding(
            (size, path), "is required beside path: the most that may be kept there, such as 200GiB"
        )
    if config.storage.driver == "filesystem":
        words = "has no effect: what a filesystem store holds is served as files already"
        yield Finding((path,), words, Kind.WARNING)


def _expiry(config: Config) -> Iterator[Finding]:
    section = config.cache.expiry
    budget: KeyPath = ("cache", "expiry", "budget")
    pins: KeyPath = ("cache", "expiry", "pins")
    if section.budget and not config.storage.delete_enabled:
        words = "needs storage.delete.enabled: true, without which nothing may be deleted"
        yield Finding((budget, DELETE), words)
    elif section.pins and not config.expires:
        words = "has no effect without blobttl or cache.expiry.budget: nothing expires"
        yield Finding((pins, budget, DELETE), words, Kind.WARNING)
    if config.expires and config.storage.readonly:
        words = "has no effect beside storage.maintenance.readonly: nothing is deleted"
        yield Finding((DELETE, ("storage", "maintenance", "readonly", "enabled")), words, Kind.WARNING)


def _peer(config: Config) -> Iterator[Finding]:
    section = config.cache.peer
    path: KeyPath = ("cache", "peer")
    given = {name for name in ("certificate", "key", "ca") if getattr(section.tls, name)}
    if given and len(given) < 3:
        keys: tuple[KeyPath, ...] = tuple((*path, "tls", name) for name in ("certificate", "key", "ca"))
        yield Finding(keys, "should stand together with key and ca: here is one without the others")
    if section.advertise and not section.advertise.rpartition(":")[0]:
        words = "should name a host: it is what the other replicas connect to"
        yield Finding(((*path, "advertise"),), words, value=section.advertise)
    if section.addr and section.addr == config.http.addr and not section.addr.endswith(":0"):
        yield Finding(
            ((*path, "addr"), ("http", "addr")), "is the address of the main listener: choose another"
        )
    if section != PeerSection() and section.addr and config.secret is None and config.cache.workers == 1:
        words = "has no effect without http.secret, equal on all replicas"
        yield Finding((path, ("http", "secret")), words, Kind.WARNING)


def _workers(config: Config) -> Iterator[Finding]:
    if config.cache.workers == 1:
        return
    key: KeyPath = ("cache", "workers")
    addresses: tuple[tuple[KeyPath, str], ...] = (
        (("http", "addr"), config.http.addr),
        (("http", "debug", "addr"), config.http.debug.addr),
        (("cache", "metrics", "addr"), config.cache.metrics.addr),
    )
    if config.http.net == "unix":
        words = "needs cache.workers: 1: the kernel shares a port among processes, not the path of a socket"
        yield Finding(((("http", "net")), key), words)
        addresses = addresses[1:]
    for path, addr in addresses:
        if addr.endswith(":0"):
            yield Finding((path, key), "should name a port: each worker would get another one", value=addr)
    if config.storage.driver == "inmemory":
        words = "gives each worker a memory of its own beside an inmemory store: they share nothing"
        yield Finding((key, ("storage", "inmemory")), words, Kind.WARNING)
