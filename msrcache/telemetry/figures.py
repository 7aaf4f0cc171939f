"""The few figures of a replica that the others and `msrcache status` show, taken from its metrics."""

from collections.abc import Mapping

from prometheus_client import Counter, Gauge

from msrcache.telemetry.metrics import Metrics

HITS = frozenset({"hit", "stale"})
BODIES = frozenset({"blob", "manifest"})


def figures(metrics: Metrics) -> Mapping[str, float]:
    """Since the start: pulls of blobs and manifests that were answered, hits among them, bytes, fills, failures."""
    pulls = hits = failed = 0.0
    for labels, value in _children(metrics.pulls_total):
        if labels["kind"] not in BODIES:
            continue
        if labels["status"].startswith(("2", "3")):
            pulls += value
            hits += value if labels["outcome"] in HITS else 0
        elif labels["status"].startswith("5"):
            failed += value
    return {
        "pulls": pulls,
        "hits": hits,
        "failed": failed,
        "bytes": _total(metrics.bytes_total),
        "redirected_bytes": _total(metrics.redirected_bytes_total),
        "upstream_bytes": _total(metrics.upstream_bytes_total),
        "fills_active": _total(metrics.fills_active),
        "fills_queued": _total(metrics.fills_queued),
        "violations": _total(metrics.readafterwrite_violations_total),
        "cut": _total(metrics.delivery_cut_total),
    }


def _children(metric: Counter | Gauge) -> list[tuple[Mapping[str, str], float]]:
    return [(sample.labels, sample.value) for family in metric.collect() for sample in family.samples]


def _total(metric: Counter | Gauge) -> float:
    return sum(value for _, value in _children(metric))
