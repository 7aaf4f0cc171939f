"""Documents of Kubernetes, and whether Kubernetes would take them as they are."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.stage.clients import ran

VERSIONS = ("1.30", "1.37")
"""The oldest and the newest Kubernetes that the files are held against."""

Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    """What stands in a file of several."""
    return [one for one in yaml.safe_load_all(text) if one]


def named(found: list[Document], kind: str) -> list[Document]:
    """Those of a kind."""
    return [one for one in found if one["kind"] == kind]


def the(found: list[Document], kind: str) -> Document:
    """The one of a kind."""
    (one,) = named(found, kind)
    return one


def pod(workload: Document) -> Document:
    """What a workload starts."""
    spec: Document = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Document) -> Document:
    """Its one container."""
    (one,) = pod(workload)["containers"]
    found: Document = one
    return found


async def acceptable(text: str, folder: Path, *, versions: Sequence[str] = VERSIONS) -> None:
    """Every document is right by the strict schemas of these versions; a kind of an extension has none."""
    kept = [one for one in documents(text) if "monitoring.coreos.com" not in one["apiVersion"]]
    path = folder / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(kept))
    for version in versions:
        said = await ran(sys.executable, "-m", "kubernetes_validate", "--strict", "-k", version, path)
        assert said.out.count(" passed for ") + said.err.count(" passed for ") == len(kept), said


def seconds(duration: str) -> int:
    """A duration in whole seconds or minutes."""
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def hardened(workload: Document) -> None:
    """Nobody is root, nothing is written but volumes, nothing can be gained, and Kubernetes is not asked."""
    spec, one = pod(workload), container(workload)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert one["resources"]["limits"]["memory"]


def watched(workload: Document, scheme: str) -> None:
    """Readiness decides about traffic, liveness only about the process."""
    probes = {
        name: container(workload)[f"{name}Probe"]["httpGet"] for name in ("readiness", "liveness", "startup")
    }
    assert {probe["scheme"] for probe in probes.values()} == {scheme}
    assert [probes[name]["path"] for name in probes] == ["/readyz", "/healthz", "/healthz"]
