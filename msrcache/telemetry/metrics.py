"""Every metric of the cache, in one table: name, kind, unit, labels, buckets, help.

The table makes the objects, their documentation (docs/metrics.md is tested against it) and their types. Label
sets are bounded: their values come from enums, from the configuration or from HTTP statuses, never from a
client's text.
Not here: who counts what; the parts are handed a Metrics and count themselves.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from msrcache import __version__
from msrcache.telemetry.zeros import FROM_ZERO

PREFIX = "msrcache_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Kind(StrEnum):
    """What a metric is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric; `name` lacks the prefix, and is the attribute of Metrics."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    together: Literal["sum", "max"] = "sum"
    """What a gauge of several workers is; a counter or histogram is always the sum."""

    @property
    def full_name(self) -> str:
        """The name as Prometheus sees it."""
        return PREFIX + self.name

    def document(self) -> str:
        """The metric's line in docs/metrics.md."""
        labels = ", ".join(f"`{label}`" for label in self.labels) or "-"
        return f"| `{self.full_name}` | {self.kind} | {self.unit} | {labels} | {self.help} |"


def _counter(name: str, unit: str, text: str, *labels: str) -> Row:
    return Row(name=name, kind=Kind.COUNTER, unit=unit, help=text, labels=labels)


def _gauge(name: str, unit: str, text: str, *labels: str, shared: bool = False) -> Row:
    """The sum over workers; the largest where it is no amount (0 or 1, 1), or all see the same thing (`shared`)."""
    together: Literal["sum", "max"] = "max" if shared or unit in ("0 or 1", "1") else "sum"
    return Row(name=name, kind=Kind.GAUGE, unit=unit, help=text, labels=labels, together=together)


def _seconds(name: str, buckets: tuple[float, ...], text: str, *labels: str) -> Row:
    return Row(name=name, kind=Kind.HISTOGRAM, unit="seconds", help=text, labels=labels, buckets=buckets)


_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_WAIT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LONG = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0)

TABLE: tuple[Row, ...] = (
    _counter(
        "pulls_total",
        "pulls",
        "Pulls answered, by what was asked and how it was served.",
        "kind",
        "outcome",
        "status",
    ),
    _counter("bytes_total", "bytes", "Body bytes sent to clients.", "outcome"),
    _seconds("pull_seconds", _LONG, "From a pull's headers read to its last byte sent.", "kind", "outcome"),
    _seconds(
        "first_byte_seconds",
        _WAIT,
        "From a pull's headers read to the answer's headers sent.",
        "kind",
        "outcome",
    ),
    _counter("delivery_cut_total", "answers", "Answers cut after their first byte, by reason.", "reason"),
    _counter(
        "passed_total", "pulls", "Pulls passed through unstored, by reason: queue, spool or range.", "reason"
    ),
    _counter(
        "redirects_total",
        "hits",
        "Hits on blobs that could have been redirected, by what became of them.",
        "result",
    ),
    _counter(
        "redirected_bytes_total",
        "bytes",
        "Body bytes that clients were sent to the store for; none of them were sent here.",
    ),
    _gauge("local_bytes", "bytes", "Bytes of the local folder's blobs, those on their way in included."),
    _counter("local_hits_total", "hits", "Hits that were served from the local folder."),
    _counter(
        "local_admissions_total", "blobs", "Blobs on their way into the local folder, by result.", "result"
    ),
    _counter("local_evictions_total", "blobs", "Blobs that left the local folder to make room."),
    _counter(
        "local_failures_total", "failures", "Failures of the local folder's disk, by operation.", "operation"
    ),
    _gauge("fills_active", "fills", "Fills under way."),
    _gauge("fills_queued", "fills", "Fills waiting for their turn."),
    _gauge("fills_behind", "fills", "Fills whose bytes are all here, and which the store has not taken yet."),
    _counter(
        "unstored_total",
        "blobs",
        "Blobs that came in whole and were not stored: slow, skipped, failed or invisible.",
        "reason",
    ),
    _counter(
        "fills_total",
        "fills",
        "Fills ended: complete, found, refused, absent, failed, cut or left.",
        "ending",
    ),
    _seconds("fill_seconds", _LONG, "From the start of a fill to its end."),
    _counter(
        "fill_resumes_total", "resumes", "Upstream bodies that broke and were resumed where they broke."
    ),
    _counter(
        "lease_skipped_total", "fills", "Fills that went on without the fleet's lease, by reason.", "reason"
    ),
    _counter(
        "follows_total", "follows", "Fills of other replicas that were followed, by how that ended.", "ending"
    ),
    _gauge(
        "peers_unreached",
        "replicas",
        "Replicas that could not be reached at their peer port when they were tried last.",
        shared=True,
    ),
    _counter(
        "peer_requests_total", "requests", "Requests of other replicas to the peer port.", "kind", "status"
    ),
    _counter(
        "peer_bytes_total", "bytes", "Bytes of fills sent to replicas and received from them.", "direction"
    ),
    _counter("lease_turns_total", "turns", "What fills were told to do: fetch, follow or found.", "turn"),
    _counter(
        "lease_successions_total",
        "leases",
        "Holders of a lease that were succeeded: expired or gone.",
        "reason",
    ),
    _counter("leases_lost_total", "leases", "Leases that another replica took over while they were held."),
    _gauge("leases_held", "leases", "Leases held now."),
    _gauge("spool_bytes", "bytes", "Bytes of local disk that the spool holds or has reserved."),
    _counter("spool_full_total", "fills", "Fills that found no space in the spool."),
    _counter(
        "upstream_requests_total",
        "requests",
        "Requests to the upstream; status is 000 without an answer.",
        "upstream",
        "method",
        "status",
    ),
    _counter("upstream_bytes_total", "bytes", "Body bytes received from the upstream.", "upstream"),
    _gauge(
        "upstream_breaker_open",
        "0 or 1",
        "Whether this upstream is left alone because it failed.",
        "upstream",
    ),
    _counter(
        "upstream_tokens_total",
        "tokens",
        "Tokens asked of the upstream's token service, by result.",
        "result",
    ),
    _counter(
        "storage_calls_total", "calls", "Calls to the store, by operation and result.", "operation", "result"
    ),
    _seconds("storage_seconds", _WAIT, "How long calls to the store took.", "operation"),
    _counter("storage_bytes_total", "bytes", "Bytes read from and written to the store.", "direction"),
    _gauge(
        "storage_breaker_open",
        "0 or 1",
        "Whether the store is left alone because it failed, for reading and for writing.",
        "side",
    ),
    _gauge(
        "storage_promise_broken",
        "0 or 1",
        "Whether the store was found not to keep a promise when it was checked at the start.",
        "promise",
    ),
    _seconds(
        "visibility_lag_seconds",
        _WAIT,
        "From another replica's word that it has written to the store until that was read here.",
    ),
    _counter(
        "readafterwrite_violations_total",
        "objects",
        "Objects that the store said were not there, or old, after another replica had written them: beat or blob.",
        "kind",
    ),
    _counter("readafterwrite_failures_total", "objects", "Objects not found right after their commit."),
    _counter("journals_total", "journals", "Journals of uses: written, failed or merged.", "result"),
    _counter("uses_lost_total", "uses", "Uses that were forgotten because they could not be written down."),
    _counter(
        "janitor_runs_total",
        "runs",
        "Looks for what has expired: done, busy (another one looks), early (one has just looked), blocked or failed.",
        "result",
    ),
    _gauge(
        "held_blobs", "blobs", "Blobs and manifests in the store when this replica last looked.", shared=True
    ),
    _gauge("held_bytes", "bytes", "Bytes of them.", shared=True),
    _counter(
        "condemned_total", "blobs", "Blobs marked to be deleted, by reason: blobttl or budget.", "reason"
    ),
    _counter(
        "rescued_total",
        "blobs",
        "Marks removed because the blob was used: by the replica that served it, or by the janitor.",
        "by",
    ),
    _counter("expired_total", "blobs", "Blobs deleted, by reason: blobttl or budget.", "reason"),
    _counter("expired_bytes_total", "bytes", "Bytes of the blobs that were deleted."),
    _counter(
        "verdicts_total",
        "verdicts",
        "Decisions: yes, remembered, grace, refused, limited or unavailable.",
        "verdict",
    ),
    _counter(
        "questions_total",
        "questions",
        "Questions of access: yes, refused, unavailable, or joined to an equal one.",
        "answer",
    ),
    _gauge(
        "replicas",
        "replicas",
        "Replicas on this store as this one sees them, itself included: alive or silent.",
        "state",
        shared=True,
    ),
    _seconds("loop_lag_seconds", _SHORT, "How late the event loop was for a timer."),
    _gauge("connections", "connections", "Client connections open."),
    _counter("connections_refused_total", "connections", "Client connections refused, by reason.", "reason"),
    _counter(
        "access_log_dropped_total", "lines", "Access log lines dropped because their reader was too slow."
    ),
    _counter("config_reloads_total", "reloads", "Configuration reloads, by result.", "result"),
    _counter("tls_reloads_total", "reloads", "Certificate reloads, by result.", "result"),
    _gauge("workers", "processes", "Processes that serve: those of cache.workers that are up."),
    _counter("worker_restarts_total", "processes", "Workers that ended by themselves and were started anew."),
    _gauge("build_info", "1", "The version that runs.", "version"),
)


class Metrics:
    """The objects of TABLE, each as the attribute of its name, in a CollectorRegistry of their own."""

    pulls_total: Counter
    bytes_total: Counter
    pull_seconds: Histogram
    first_byte_seconds: Histogram
    delivery_cut_total: Counter
    passed_total: Counter
    redirects_total: Counter
    redirected_bytes_total: Counter
    local_bytes: Gauge
    local_hits_total: Counter
    local_admissions_total: Counter
    local_evictions_total: Counter
    local_failures_total: Counter
    fills_active: Gauge
    fills_queued: Gauge
    fills_behind: Gauge
    unstored_total: Counter
    fills_total: Counter
    fill_seconds: Histogram
    fill_resumes_total: Counter
    lease_skipped_total: Counter
    follows_total: Counter
    peers_unreached: Gauge
    peer_requests_total: Counter
    peer_bytes_total: Counter
    lease_turns_total: Counter
    lease_successions_total: Counter
    leases_lost_total: Counter
    leases_held: Gauge
    spool_bytes: Gauge
    spool_full_total: Counter
    upstream_requests_total: Counter
    upstream_bytes_total: Counter
    upstream_breaker_open: Gauge
    upstream_tokens_total: Counter
    storage_calls_total: Counter
    storage_seconds: Histogram
    storage_bytes_total: Counter
    storage_breaker_open: Gauge
    storage_promise_broken: Gauge
    visibility_lag_seconds: Histogram
    readafterwrite_violations_total: Counter
    readafterwrite_failures_total: Counter
    journals_total: Counter
    uses_lost_total: Counter
    janitor_runs_total: Counter
    held_blobs: Gauge
    held_bytes: Gauge
    condemned_total: Counter
    rescued_total: Counter
    expired_total: Counter
    expired_bytes_total: Counter
    verdicts_total: Counter
    questions_total: Counter
    replicas: Gauge
    loop_lag_seconds: Histogram
    connections: Gauge
    connections_refused_total: Counter
    access_log_dropped_total: Counter
    config_reloads_total: Counter
    tls_reloads_total: Counter
    workers: Gauge
    worker_restarts_total: Counter
    build_info: Gauge

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        # A *_created series beside each counter doubles what is scraped; nobody here reads them.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry or CollectorRegistry(auto_describe=True)
        for row in TABLE:
            setattr(self, row.name, _make(row, self.registry))
        for name, value in FROM_ZERO:
            getattr(self, name).labels(value)
        self.build_info.labels(__version__).set(1)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._pulls: dict[tuple[str, str, int], tuple[Counter, Counter, Histogram, Histogram]] = {}

    def __repr__(self) -> str:
        return f"<Metrics [{len(TABLE)} metrics]>"

    def observe_pull(
        self, kind: str, outcome: str, status: int, *, sent: int, seconds: float, first_byte: float | None
    ) -> None:
        """Count one answered pull; times in seconds, `first_byte` None where no header went out.

        The children are kept here, because looking them up by label costs as much as counting.
        """
        key = (kind, outcome, status)
        children = self._pulls.get(key)
        if children is None:
            children = self._pulls[key] = (
                self.pulls_total.labels(kind, outcome, str(status)),
                self.bytes_total.labels(outcome),
                self.pull_seconds.labels(kind, outcome),
                self.first_byte_seconds.labels(kind, outcome),
            )
        pulls, total, whole, first = children
        pulls.inc()
        total.inc(sent)
        whole.observe(seconds)
        if first_byte is not None:
            first.observe(first_byte)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format (CONTENT_TYPE); reads /proc, which waits for no disk."""
        return prometheus_client.generate_latest(self.registry)


def _make(row: Row, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    match row.kind:
        case Kind.COUNTER:
            return Counter(row.full_name, row.help, row.labels, registry=registry)
        case Kind.GAUGE:
            return Gauge(row.full_name, row.help, row.labels, registry=registry)
        case Kind.HISTOGRAM:
            return Histogram(row.full_name, row.help, row.labels, registry=registry, buckets=row.buckets)
