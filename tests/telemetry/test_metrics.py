"""Promises of telemetry.metrics: one table, typed attributes, documented, and accepted by Prometheus."""

import re
import subprocess

import pytest
from prometheus_client import CollectorRegistry

from msrcache.telemetry.metrics import TABLE, Kind, Metrics, Row
from tests.stage import tools

NAMES = {row.name for row in TABLE}
DOCUMENT = tools.PROJECT / "docs" / "metrics.md"


def touched() -> Metrics:
    """Metrics with a value under every label set, so that each has its series."""
    metrics = Metrics()
    for row in TABLE:
        metric = getattr(metrics, row.name)
        child = metric.labels(*(["x"] * len(row.labels))) if row.labels else metric
        match row.kind:
            case Kind.COUNTER:
                child.inc()
            case Kind.GAUGE:
                child.set(1)
            case Kind.HISTOGRAM:
                child.observe(0.1)
    return metrics


def test_each_row_is_a_typed_attribute_and_each_attribute_a_row() -> None:
    """What the type checker knows and what the table makes are the same set."""
    assert set(Metrics.__annotations__) == NAMES
    assert len(NAMES) == len(TABLE)
    for row in TABLE:
        assert Metrics.__annotations__[row.name].__name__.lower() == row.kind


def test_two_caches_in_one_process_share_nothing() -> None:
    """Each Metrics counts in its own registry."""
    one, other = Metrics(), Metrics()
    one.spool_full_total.inc()
    assert b"msrcache_spool_full_total 1.0" in one.render()
    assert b"msrcache_spool_full_total 0.0" in other.render()


def test_a_registry_can_be_given() -> None:
    """Whoever merges registries hands in its own."""
    registry = CollectorRegistry()
    assert Metrics(registry).registry is registry
    assert registry.get_sample_value("msrcache_fills_active") == 0


def test_render_brings_the_process_along() -> None:
    """CPU, memory and descriptors are there; *_created series are not."""
    text = Metrics().render().decode()
    for name in (
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "python_info",
    ):
        assert f"\n{name}" in text
    assert "_created" not in text


def test_a_pull_is_counted_once_in_each_of_its_metrics() -> None:
    """observe_pull counts the pull, its bytes and its times under its own labels."""
    metrics = Metrics()
    for _ in range(2):
        metrics.observe_pull("blob", "hit", 206, sent=10, seconds=0.2, first_byte=0.1)
    metrics.observe_pull("blob", "hit", 200, sent=1, seconds=0.2, first_byte=None)
    value = metrics.registry.get_sample_value
    assert value("msrcache_pulls_total", {"kind": "blob", "outcome": "hit", "status": "206"}) == 2
    assert value("msrcache_pulls_total", {"kind": "blob", "outcome": "hit", "status": "200"}) == 1
    assert value("msrcache_bytes_total", {"outcome": "hit"}) == 21
    assert value("msrcache_pull_seconds_count", {"kind": "blob", "outcome": "hit"}) == 3
    assert value("msrcache_first_byte_seconds_count", {"kind": "blob", "outcome": "hit"}) == 2


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_each_metric_has_its_line_in_the_documentation(row: Row) -> None:
    """docs/metrics.md tells name, kind, unit, labels and meaning exactly as the table does."""
    assert row.document() in DOCUMENT.read_text().splitlines()


def test_the_documentation_names_no_metric_that_is_gone() -> None:
    """Every msrcache_ name in docs/metrics.md is in the table."""
    told = set(re.findall(r"\bmsrcache_(\w+)", DOCUMENT.read_text()))
    assert told <= NAMES


def test_units_follow_prometheus() -> None:
    """Counters end in _total, histograms of time in _seconds with rising buckets."""
    for row in TABLE:
        assert row.name.endswith("_total") == (row.kind is Kind.COUNTER)
        assert bool(row.buckets) == (row.kind is Kind.HISTOGRAM)
        assert list(row.buckets) == sorted(set(row.buckets))


@pytest.mark.real
def test_promtool_finds_nothing_to_say() -> None:
    """Prometheus' own linter accepts what we publish."""
    promtool = tools.need("promtool")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=touched().render(), capture_output=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
