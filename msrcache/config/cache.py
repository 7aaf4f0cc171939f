"""The `cache:` section: all of config.yml that is this cache's own. An unknown key below it is an error."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from msrcache.config.fields import (
    Bytes,
    FilePath,
    Flag,
    Network,
    OptionalAddress,
    OptionalUrl,
    Pattern,
    RegistryHost,
    Resolver,
    Seconds,
    Section,
    Url,
    Whole,
    Workers,
)
from msrcache.config.registry import HtpasswdSection

KIB = 1024
MIB = 1024 * KIB

Positive = Annotated[Whole, Field(ge=1)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]


class UpstreamEntry(Section):
    """One registry to pull from. Several are asked in turn, and each stands in for the others."""

    url: Url
    """https://host:port, with a path where the registry stands below one."""
    username: str = ""
    """The service account that fetches; empty: in mode upstream the caller's own credential does."""
    password: SecretStr | None = None
    """Its password."""
    password_file: FilePath | None = None
    """A file that holds the password, in place of password."""
    offline_token: Flag = False
    """true: its token service is asked for a refresh token, and is sent the password only where it gives none."""
    ca: tuple[FilePath, ...] = ()
    """PEM files of the authorities that sign its certificate, beside the system's own."""
    certificate: FilePath | None = None
    """PEM file: the certificate that this cache shows to it."""
    key: FilePath | None = None
    """PEM file: the private key of that certificate."""
    namespace: RegistryHost = ""
    """Sent as ?ns= with every request: for a mirror of several registries, the one that is meant. Empty: none."""
    skip_verify: Flag = False
    """true: its certificate is not checked. Whoever sits between can then read and change everything."""


class UpstreamSection(Section):
    """How upstreams are asked; there is no time-out on a whole body."""

    connect_timeout: PositiveSeconds = 10.0
    """To connect, TLS included."""
    header_timeout: PositiveSeconds = 30.0
    """From the request to the answer's headers."""
    stall_timeout: PositiveSeconds = 60.0
    """The longest pause between two pieces of a body."""
    retries: Whole = 3
    """How often a request is tried again, and a broken body resumed without progress."""
    retry_budget: Seconds = 30.0
    """How long all tries of one request may take together."""
    connections: Positive = 512
    """Open connections to all upstreams together."""
    resolver: tuple[Resolver, ...] = ()
    """DNS servers to ask, by IP address; empty: the system's."""


class FailuresSection(Section):
    """What is done about wrong passwords and refused questions."""

    per_minute: Whole = 30
    """Refusals per minute and client address before it has to wait; 0: no limit."""


class AccessSection(Section):
    """Who may read what."""

    mode: Literal["upstream", "basic", "open"] = "upstream"
    """upstream: the upstream decides for each caller; basic: accounts of this cache; open: everybody."""
    htpasswd: HtpasswdSection = HtpasswdSection()
    verdict: Seconds = 60.0
    """How long a yes of the upstream is remembered per caller and repository; a no never is."""
    grace: Seconds = 300.0
    """How long a yes still counts while the upstream cannot be asked."""
    fetch: Literal["account", "caller"] = "account"
    """Mode upstream: account: the upstream's username, where it has one, fetches what the caller was admitted to."""
    failures: FailuresSection = FailuresSection()


class BreakerSection(Section):
    """When an upstream, or the store, is left alone for a while."""

    failures: Positive = 5
    """Failures in a row that open the breaker."""
    open: PositiveSeconds = 10.0
    """How long it stays open before one request tries again."""


class FreshnessSection(Section):
    """How tags are kept up to date."""

    ttl: Seconds = 0.0
    """How long a tag is believed without asking; 0: the upstream is asked each time (with HEAD)."""
    immutable: tuple[Pattern, ...] = ()
    """Regular expressions over repository:tag; what matches wholly is asked for once."""
    budget: PositiveSeconds = 3.0
    """How long the upstream may take for a tag before the last known manifest is served, marked stale."""
    breaker: BreakerSection = BreakerSection()


class SpoolSection(Section):
    """Where a blob grows on local disk while it comes in."""

    path: str = ""
    """Folder; empty: msrcache/spool below the root of a filesystem store, else /var/lib/msrcache/spool."""
    size: Bytes = 0
    """The most that all spool files may hold, of all workers together; 0: 90 % of what is free."""


class FillSection(Section):
    """Bringing blobs in."""

    concurrency: Positive = 64
    """Fills under way at once."""
    queue: Seconds = 10.0
    """How long a pull waits for a place before it is passed through without being stored."""
    abandon: Seconds = 300.0
    """When a fill that nobody reads and whose upstream gives nothing is stopped."""


class LimitsSection(Section):
    """What a stranger may take."""

    connections: Whole = 0
    """Open client connections; 0: derived from the limit of open files."""
    per_address: Whole = 0
    """Open connections of one client address; 0: no limit."""
    headers: Annotated[Bytes, Field(ge=1 * KIB, le=16 * MIB)] = 64 * KIB
    """The header block of a request."""
    header_timeout: PositiveSeconds = 10.0
    """How long a client may take to send it."""
    idle: PositiveSeconds = 75.0
    """How long a connection may wait for its next request."""
    path: Annotated[Bytes, Field(ge=256, le=1 * MIB)] = 4 * KIB
    """Path and query of a request."""


class DrainSection(Section):
    """Leaving; how long bodies may still flow is http.draintimeout."""

    delay: Seconds = 5.0
    """From unready to closing the listener: the time a load balancer takes to notice."""


class LeaseSection(Section):
    """One fill for the whole fleet."""

    ttl: PositiveSeconds = 10.0
    """How long a replica that fills may show no sign of life before another one goes on; the same on all replicas."""
    patience: PositiveSeconds = 2.0
    """How long a store that does not answer may hold up a fill before it goes on without the others."""
    threshold: Bytes = 1 * MIB
    """Blobs of at most this size are fetched by each replica, because asking the others costs more."""


class PeerTlsSection(Section):
    """TLS between replicas; each shows a certificate to the others. Read again on SIGHUP."""

    certificate: FilePath | None = None
    """PEM file with this replica's certificate, good for servers and clients; its names do not matter."""
    key: FilePath | None = None
    """PEM file with its private key."""
    ca: tuple[FilePath, ...] = ()
    """PEM files of the authorities that sign replicas' certificates: whoever has one of theirs is a replica."""

    @property
    def enabled(self) -> bool:
        return self.certificate is not None and self.key is not None and bool(self.ca)


class PeerSection(Section):
    """How replicas reach each other, to follow each other's fills; needs http.secret."""

    addr: OptionalAddress = ":5005"
    """host:port of a listener for replicas only; not set and taken: any free port. Empty: none, nobody is followed."""
    advertise: OptionalAddress = ""
    """host:port that the others are told; empty: found, the address of the interface that a route goes out by."""
    tls: PeerTlsSection = PeerTlsSection()


class StoreSection(Section):
    """What is expected of the store, and what is done when it is sick."""

    breaker: BreakerSection = BreakerSection()
    require: tuple[Literal["read-after-write", "delete", "create", "exclusive-create"], ...] = ()
    """Promises without which nothing is started; others that are found broken are a warning."""


class ClientsSection(Section):
    """How the clients of some networks get stored blobs; the first entry that has the client's network decides."""

    networks: tuple[Network, ...]
    """Their networks."""
    mode: Literal["redirect", "stream"] = "redirect"
    """redirect: they are sent to the storage service; stream: the bytes flow through the cache."""
    endpoint: OptionalUrl = ""
    """Where they reach the storage service: scheme, host and port; empty: where the driver does."""


class ExpirySection(Section):
    """What is deleted beside what was unused for blobttl, and what never is. Needs storage.delete.enabled."""

    budget: Bytes = 0
    """The most that the store should hold: above it what was unused for longest goes, down to 90 %. 0: no limit."""
    pins: tuple[Pattern, ...] = ()
    """Regular expressions over repository names; what was pulled through one that matches wholly never expires."""
    interval: PositiveSeconds = 3600.0
    """How often it is looked for what has expired, by one replica for all."""


class RedirectSection(Section):
    """Which hits are left to the storage service, where the driver has URLs and storage.redirect.disable is false."""

    threshold: Bytes = 64 * KIB
    """Smaller blobs are streamed: a second connection costs the client more."""
    lifetime: PositiveSeconds = 1200.0
    """How long a signed URL is good; equal on all replicas where content expires."""
    clients: tuple[ClientsSection, ...] = ()
    """What differs by the client's network; a network without an entry is redirected to the driver's own endpoint."""


class LocalSection(Section):
    """A bounded local folder that streamed hits of a remote store are kept in and served from."""

    path: str = ""
    """Folder on a local disk; empty: none. Each process takes a subfolder of its own."""
    size: Bytes = 0
    """The most that is kept there, by all workers together; what was unused for longest leaves first."""
    admit: Literal["second", "first"] = "second"
    """second: a blob is kept at its second use; first: at once."""


class VerifySection(Section):
    """The look at a blob after it was stored."""

    timeout: PositiveSeconds = 5.0
    """How long the store may take to show what it has just stored."""


class MetricsSection(Section):
    """Metrics for Prometheus."""

    enabled: Flag = True
    """/metrics on the main listener (and on http.debug.addr)."""
    addr: OptionalAddress = ""
    """host:port of a listener of their own; the main listener then has no /metrics. Empty: none."""


class CacheSection(Section):
    """What is ours."""

    workers: Workers = 1
    """Processes that serve the same address: 1 to 64, or auto: one for each core that may be used, at most 8."""
    upstreams: tuple[UpstreamEntry, ...] = ()
    """The registries to pull from, asked in turn; each stands in for the others."""
    upstream: UpstreamSection = UpstreamSection()
    access: AccessSection = AccessSection()
    freshness: FreshnessSection = FreshnessSection()
    spool: SpoolSection = SpoolSection()
    fill: FillSection = FillSection()
    range: Literal["verified", "early"] = "verified"
    """verified: the last byte of a Range answered from a fill waits for the digest; early: it does not."""
    limits: LimitsSection = LimitsSection()
    trusted: tuple[Network, ...] = ()
    """Networks of proxies whose X-Forwarded-*, Forwarded, X-Request-Id and PROXY protocol are believed."""
    proxy_protocol: Flag = False
    """Connections from trusted networks begin with a PROXY protocol header (v1 or v2)."""
    drain: DrainSection = DrainSection()
    catalog: Literal["upstream", "store"] = "upstream"
    """Who answers _catalog."""
    heartbeat: Seconds = 5.0
    """How often a replica shows the others that it lives, and looks at one of them; 0: never, for a single one."""
    lease: LeaseSection = LeaseSection()
    peer: PeerSection = PeerSection()
    storage: StoreSection = StoreSection()
    belief: PositiveSeconds = 600.0
    """How long a blob or a link that was seen in the store is believed to be there, unless a read says otherwise."""
    journal: PositiveSeconds = 300.0
    """How often each replica writes down what it served; equal on all replicas."""
    expiry: ExpirySection = ExpirySection()
    redirect: RedirectSection = RedirectSection()
    local: LocalSection = LocalSection()
    verify: VerifySection = VerifySection()
    metrics: MetricsSection = MetricsSection()
