"""telemetry.merging: several processes' metrics as those of one, exactly."""

import json

from msrcache.telemetry.merging import lasting, merged, parsed, plain, rendered, snapshot
from msrcache.telemetry.metrics import TABLE, Kind, Metrics


def _counted(pulls: int, *, seconds: float = 0.2) -> Metrics:
    metrics = Metrics()
    for _ in range(pulls):
        metrics.observe_pull("blob", "hit", 200, sent=10, seconds=seconds, first_byte=0.1)
    return metrics


def _text(*several: Metrics) -> list[str]:
    return rendered(merged(snapshot(one.registry) for one in several)).decode().splitlines()


def test_counters_and_histograms_are_sums() -> None:
    """Also where only one of them has a label set."""
    one, other = _counted(3), _counted(4, seconds=700.0)
    other.fills_total.labels("complete").inc()
    text = _text(one, other)
    assert 'msrcache_pulls_total{kind="blob",outcome="hit",status="200"} 7.0' in text
    assert 'msrcache_bytes_total{outcome="hit"} 70.0' in text
    assert 'msrcache_pull_seconds_bucket{kind="blob",le="600.0",outcome="hit"} 3.0' in text
    assert 'msrcache_pull_seconds_bucket{kind="blob",le="+Inf",outcome="hit"} 7.0' in text
    assert 'msrcache_pull_seconds_count{kind="blob",outcome="hit"} 7.0' in text
    assert 'msrcache_fills_total{ending="complete"} 1.0' in text


def test_gauges_are_what_their_row_says() -> None:
    """Amounts add up; what is 0 or 1 is 1 where it is 1 anywhere."""
    one, other = Metrics(), Metrics()
    for metrics, amount in ((one, 2), (other, 3)):
        metrics.fills_active.set(amount)
        metrics.storage_breaker_open.labels("reading").set(amount - 2)
    text = _text(one, other)
    assert "msrcache_fills_active 5.0" in text
    assert 'msrcache_storage_breaker_open{side="reading"} 1.0' in text
    assert sum(line.startswith("msrcache_build_info{") and line.endswith(" 1.0") for line in text) == 1


def test_a_gauge_that_is_no_amount_is_never_summed() -> None:
    """The table says so for each of them, and for what all workers see alike."""
    largest = {row.name for row in TABLE if row.kind is Kind.GAUGE and row.together == "max"}
    assert largest >= {row.name for row in TABLE if row.unit in ("0 or 1", "1")}
    assert largest >= {"held_blobs", "held_bytes", "replicas"}
    assert not largest & {"workers", "connections", "spool_bytes", "local_bytes", "fills_active"}


def test_the_process_is_all_processes() -> None:
    """CPU and memory add up, the start is the first one's, Python is there once."""
    text = _text(Metrics(), Metrics())
    alone = {line.split(" ")[0]: line.split(" ")[1] for line in Metrics().render().decode().splitlines()}
    both = {line.split(" ")[0]: line.split(" ")[1] for line in text}
    assert both["process_start_time_seconds"] == alone["process_start_time_seconds"]
    assert float(both["process_max_fds"]) == 2 * float(alone["process_max_fds"])
    assert next(line for line in text if line.startswith("python_info{")).endswith(" 1.0")


def test_one_alone_is_rendered_as_it_renders_itself() -> None:
    """Series, help and types of the cache's own are the same lines."""

    def own(text: str) -> list[str]:
        return [line for line in text.splitlines() if "msrcache_" in line]

    metrics = _counted(2)
    assert own("\n".join(_text(metrics))) == own(metrics.render().decode())


def test_what_lasts_of_one_that_has_ended() -> None:
    """What it counted, not what it held."""
    metrics = _counted(2)
    metrics.fills_active.set(1)
    kept = lasting(snapshot(metrics.registry))
    assert "msrcache_pulls" in kept
    assert "msrcache_pull_seconds" in kept
    assert "msrcache_fills_active" not in kept
    assert "process_resident_memory_bytes" not in kept


def test_a_snapshot_can_be_sent() -> None:
    """Through JSON and back it is equal."""
    found = snapshot(_counted(2).registry)
    assert parsed(json.loads(json.dumps(plain(found)))) == found
