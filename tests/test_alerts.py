"""The alert rules and the dashboard: they name what exists, and fire on what a real cache really shows, not before.

Series are recorded from caches in this process, in good and in bad days, and given to promtool.
"""

import itertools
import json
import re
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from msrcache.assembly import Application
from msrcache.cache.layout import replica_key
from msrcache.oci.digest import Digest
from msrcache.storage.errors import Unusable
from msrcache.storage.memory import Contents, Memory
from msrcache.telemetry.metrics import TABLE, Kind, Metrics
from tests.cache.kitchen import Sickness
from tests.scenarios.plays import cache, pull, settled
from tests.stage import tools
from tests.stage.process import until
from tests.stage.scripted import Scripted, scripted

RULES = tools.PROJECT / "config/prometheus/msrcache.rules.yml"
DASHBOARD = tools.PROJECT / "config/grafana/msrcache.json"
SAMPLES = {
    f"{row.full_name}{suffix}"
    for row in TABLE
    for suffix in (("", "_bucket", "_sum", "_count") if row.kind is Kind.HISTOGRAM else ("",))
}
WATCHED = set(re.findall(r"msrcache_\w+", RULES.read_text()))
MACHINES = {"msrcache_loop_lag_seconds_bucket", "msrcache_visibility_lag_seconds_bucket"}
"""What they show depends on how busy this machine is: not recorded from real runs."""

MINUTES = 1
"""Between two samples; each snapshot stands for several."""
HELD = 3
WELL, BAD = 4, 7
"""Snapshots on good and on bad days."""

Step = Callable[[int], Awaitable[None]]


class Recorder:
    """Snapshots of a cache's metrics, as the time series of promtool's unit tests."""

    def __init__(self) -> None:
        self.samples: list[dict[str, str]] = []

    def take(self, metrics: Metrics, *, names: set[str] = WATCHED - MACHINES) -> None:
        """How they stand now."""
        taken: dict[str, str] = {}
        for family in text_string_to_metric_families(metrics.render().decode()):
            for sample in family.samples:
                if sample.name in names:
                    labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                    taken[f"{sample.name}{{{labels}}}"] = f"{sample.value:g}"
        self.samples += [taken] * HELD

    def series(self) -> list[dict[str, str]]:
        """Each with its values, and gaps where it did not exist."""
        names = sorted({name for taken in self.samples for name in taken})
        return [
            {"series": name, "values": " ".join(taken.get(name, "_") for taken in self.samples)}
            for name in names
        ]


async def recorded(
    application: Application, well: Step, bad: Step, *, breaks: Callable[[], Awaitable[None]]
) -> Any:
    """Good days, then what breaks, then bad days: the series."""
    recorder = Recorder()
    for number in range(WELL):
        await well(number)
        recorder.take(application.metrics)
    await breaks()
    for number in range(BAD):
        await bad(number)
        recorder.take(application.metrics)
    return recorder.series()


def fired(folder: Path, series: object, expected: Sequence[str]) -> None:
    """Nothing fires on the good days, and exactly these on the last of the bad ones."""

    def at(sample: int, names: Sequence[str]) -> dict[str, object]:
        return {
            "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": f"{sample * MINUTES}m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)],
        }

    steps = (at(WELL * HELD - 1, ()), at((WELL + BAD) * HELD - 1, expected))
    test = {"interval": f"{MINUTES}m", "input_series": series, "promql_expr_test": steps}
    path = folder / "tests.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    promtool = tools.need("promtool")
    ran = subprocess.run(
        [promtool, "test", "rules", path], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


async def read(application: Application, upstream: Scripted, number: int) -> None:
    """A cold pull and a warm one of another blob each time."""
    path = upstream.publish_blob(b"good %d" % number)
    for _ in range(2):
        assert (await pull(application, path)).status == 200
        await settled(application)


@pytest.mark.real
async def test_good_days_fire_nothing(tmp_path: Path) -> None:
    """Two replicas that pull, hit, beat and leave: no alert."""
    async with scripted() as upstream, cache(tmp_path, upstream, heartbeat="50ms") as one:

        async def well(number: int) -> None:
            await read(one, upstream, number)

        async def breaks() -> None:
            async with cache(tmp_path, upstream, heartbeat="50ms") as two:
                await read(two, upstream, 99)

            async def alone() -> bool:
                return one.fleet.heartbeat.others() == []

            await until(alone, what="a replica that is alone again")

        async def later(number: int) -> None:
            await read(one, upstream, 100 + number)

        series = await recorded(one, well, later, breaks=breaks)
    fired(tmp_path, series, [])


@pytest.mark.real
async def test_an_upstream_that_is_away(tmp_path: Path) -> None:
    """What is not cached fails; the upstream is left alone."""
    more = "  freshness: {breaker: {failures: 1, open: 1h}}\n  upstream: {retries: 0}\n"
    async with scripted() as upstream, cache(tmp_path, upstream, more=more) as one:

        async def well(number: int) -> None:
            await read(one, upstream, number)

        async def bad(number: int) -> None:
            path = upstream.publish_blob(b"bad %d" % number)
            assert (await pull(one, path)).status >= 500
            await settled(one)

        series = await recorded(one, well, bad, breaks=upstream.stop)
    fired(tmp_path, series, ["MsrcacheFillsFail", "MsrcachePullsFail", "MsrcacheUpstreamLeftAlone"])


@pytest.mark.real
async def test_a_store_whose_bucket_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses, is left alone, and nothing is kept; no pull fails."""
    contents, faults = Contents(), Gone()
    monkeypatch.setattr("msrcache.assembly.open_driver", lambda section: Memory(contents, faults=faults))
    more = "  storage: {breaker: {failures: 2, open: 10ms}}\n"
    async with scripted() as upstream, cache(tmp_path, upstream, more=more) as one:

        async def well(number: int) -> None:
            await read(one, upstream, number)

        async def breaks() -> None:
            faults.gone = True

        async def bad(number: int) -> None:
            before = faults.refused

            async def refused() -> bool:
                return faults.refused > before

            await read(one, upstream, 10 + number)
            await until(refused, what="a probe that was refused")

        series = await recorded(one, well, bad, breaks=breaks)
    fired(tmp_path, series, ["MsrcacheNotStored", "MsrcacheStoreLeftAlone", "MsrcacheStoreUnusable"])


class Gone(Sickness):
    """A bucket that is gone, from some moment on."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = False
        self.refused = 0

    async def before(self, operation: str, key: str) -> None:
        """As Faults.before."""
        await super().before(operation, key)
        if self.gone:
            self.refused += 1
            raise Unusable("inmemory", key, None, "the bucket is gone")


@pytest.mark.real
async def test_a_fleet_in_trouble(tmp_path: Path) -> None:
    """A replica that does not beat, cannot be reached, and had published what the store denies to have."""
    environ = {"REGISTRY_HTTP_SECRET": "equal on all replicas", "REGISTRY_CACHE_PEER_ADDR": "127.0.0.1:0"}
    async with scripted() as upstream, cache(tmp_path, upstream, heartbeat="50ms", environ=environ) as one:

        async def well(number: int) -> None:
            await read(one, upstream, number)

        async def breaks() -> None:
            record, beats = tmp_path / "store" / replica_key("ghost"), itertools.count(1)

            async def unreached() -> bool:
                # It beats meanwhile: who is silent is not told anything.
                (tmp_path / "ghost").write_text(
                    json.dumps({"v": 1, "beat": next(beats), "address": "127.0.0.1:1"})
                )
                (tmp_path / "ghost").replace(record)
                return "ghost" in one.peering.unreached()

            async def silent() -> bool:
                return any(quiet for _, quiet in one.fleet.heartbeat.others())

            await until(unreached, what="a replica that cannot be reached")
            await until(silent, what="a silent replica")

        async def bad(number: int) -> None:
            data = b"denied %d" % number
            path = upstream.publish_blob(data)
            one.fleet.news.heard([(Digest.of(data), 0.001)])
            assert (await pull(one, path)).status == 200
            await settled(one)

        series = await recorded(one, well, bad, breaks=breaks)
    fired(
        tmp_path,
        series,
        ["MsrcachePeersUnreached", "MsrcacheReadAfterWriteViolated", "MsrcacheReplicaSilent"],
    )


@pytest.mark.real
def test_what_no_short_run_shows(tmp_path: Path) -> None:
    """Machines that are late, workers that die, settings that were refused: counted as their parts count them."""
    recorder, metrics = Recorder(), Metrics()
    metrics.loop_lag_seconds.observe(0.001)
    metrics.visibility_lag_seconds.observe(0.001)
    for _ in range(WELL):
        metrics.delivery_cut_total.labels("client").inc(1000)
        metrics.delivery_cut_total.labels("source").inc()
        recorder.take(metrics, names=WATCHED)
    metrics.storage_promise_broken.labels("create").set(1)
    for _ in range(BAD):
        metrics.loop_lag_seconds.observe(0.2)
        metrics.visibility_lag_seconds.observe(3.0)
        metrics.delivery_cut_total.labels("source").inc(20)
        metrics.spool_full_total.inc()
        metrics.verdicts_total.labels("unavailable").inc()
        metrics.config_reloads_total.labels("failed").inc()
        metrics.worker_restarts_total.inc(2)
        recorder.take(metrics, names=WATCHED)
    names = "AnswersCut CallersTurnedAway LoopLag ReloadFailed SpoolFull StorePromiseBroken VisibilityLag WorkersDie"
    fired(tmp_path, recorder.series(), [f"Msrcache{name}" for name in names.split()])


@pytest.mark.real
def test_promtool_finds_the_rules_right() -> None:
    """Syntax, expressions, templates."""
    promtool = tools.need("promtool")
    checked = subprocess.run(
        [promtool, "check", "rules", "--lint-fatal", RULES],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rules_name_what_exists() -> None:
    """Metrics of the table; each alert has a severity, a summary and a description, and a name of ours."""
    assert set() == WATCHED - SAMPLES
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]:
        assert rule["alert"].startswith("Msrcache")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names)


def test_the_operators_page_lists_every_alert() -> None:
    """Whoever is called at night finds the alert by its name."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    page = (tools.PROJECT / "docs/operations.md").read_text()
    assert [rule["alert"] for rule in group["rules"] if f"`{rule['alert']}`" not in page] == []


def test_the_dashboard_names_what_exists() -> None:
    """Valid JSON with a stable uid, one data source variable, panels that do not overlap, metrics of the table."""
    text = DASHBOARD.read_text()
    board = json.loads(text)
    assert set(re.findall(r"msrcache_\w+", text)) - SAMPLES == set()
    assert (board["uid"], board["id"]) == ("msrcache", None)
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
        assert all(target["expr"] for target in panel["targets"])
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
