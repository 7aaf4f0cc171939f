"""Metrics of several processes as those of one: snapshots that can be sent, and their sum.

A counter or histogram is the sum over all, those of processes that have ended included (`lasting`): it never falls. A
gauge is what its row of the table says, the sum or the largest; the process's own are sums, its start the earliest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from msrcache.telemetry.metrics import TABLE, Kind

Labels = tuple[tuple[str, str], ...]
GROWING = ("counter", "histogram")
_GAUGES: Mapping[str, Callable[[float, float], float]] = {
    **{row.full_name: max for row in TABLE if row.kind is Kind.GAUGE and row.together == "max"},
    "process_start_time_seconds": min,
    "python_info": max,
}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: what it is, and its samples in order."""

    kind: str
    help: str
    samples: Mapping[tuple[str, Labels], float]


Snapshot = Mapping[str, Family]


def snapshot(registry: CollectorRegistry) -> Snapshot:
    """All that a registry has now; reads /proc, which waits for no disk."""
    return {
        metric.name: Family(
            metric.type,
            metric.documentation,
            {(one.name, tuple(one.labels.items())): one.value for one in metric.samples},
        )
        for metric in registry.collect()
    }


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """All of them as one."""
    found: dict[str, Family] = {}
    for one in snapshots:
        for name, family in one.items():
            known = found.get(name)
            found[name] = family if known is None else _added(name, known, family)
    return found


def _added(name: str, known: Family, family: Family) -> Family:
    join = _sum if known.kind in GROWING else _GAUGES.get(name, _sum)
    samples = dict(known.samples)
    for key, value in family.samples.items():
        samples[key] = join(samples[key], value) if key in samples else value
    return Family(known.kind, known.help, samples)


def _sum(one: float, other: float) -> float:
    return one + other


def lasting(one: Snapshot) -> Snapshot:
    """What stays true of a process when it has ended: what it counted, not how it was."""
    return {name: family for name, family in one.items() if family.kind in GROWING}


def rendered(one: Snapshot) -> bytes:
    """In Prometheus' text format, as Metrics.render."""
    return prometheus_client.generate_latest(_Shown(one))


@dataclass(frozen=True, slots=True)
class _Shown:
    """What generate_latest wants of a registry."""

    snapshot: Snapshot

    def collect(self) -> Iterable[Metric]:
        for name, family in self.snapshot.items():
            metric = Metric(name, family.help, family.kind)
            for (sample, labels), value in family.samples.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric


def plain(one: Snapshot) -> list[Any]:
    """As JSON has it."""
    return [
        [name, family.kind, family.help, [[*key, value] for key, value in family.samples.items()]]
        for name, family in one.items()
    ]


def parsed(told: Sequence[Any]) -> Snapshot:
    """The reverse of plain. Raises ValueError or TypeError for what plain did not make."""
    return {
        name: Family(kind, text, {(sample, _labels(labels)): value for sample, labels, value in samples})
        for name, kind, text, samples in told
    }


def _labels(told: Sequence[Sequence[str]]) -> Labels:
    return tuple((name, value) for name, value in told)
