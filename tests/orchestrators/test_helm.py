"""The Helm chart: linted, rendered in the shapes that it promises, and taken by Kubernetes' own schemas, strictly."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from msrcache import __version__
from msrcache.config.load import parse
from tests.orchestrators.manifests import (
    VERSIONS,
    Document,
    acceptable,
    container,
    documents,
    hardened,
    named,
    pod,
    seconds,
    the,
    watched,
)
from tests.stage.clients import Ran, ran, run
from tests.stage.tools import PROJECT, need

pytestmark = [pytest.mark.real]

CHART = PROJECT / "config/helm/msrcache"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SECRETS = {
    "httpSecret": {"existingSecret": "fleet"},
    "tls": {"existingSecret": "cache-tls"},
    "upstreamCa": {"existingSecret": "msr-ca"},
    "existingConfigSecret": "cache-config",
    "env": [
        {
            "name": "REGISTRY_STORAGE_S3_SECRETKEY",
            "valueFrom": {"secretKeyRef": {"name": "bucket", "key": "secret"}},
        }
    ],
}
EVERYTHING = {
    **SECRETS,
    "image": {"repository": "registry.example.com/msrcache", "tag": "1.2"},
    "imagePullSecrets": [{"name": "pull"}],
    "service": {
        "type": "LoadBalancer",
        "nodePort": 30500,
        "annotations": {"a": "b"},
        "loadBalancerClass": "example.com/lb",
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "externalTrafficPolicy": "Local",
    },
    "trusted": ["10.0.0.2"],
    "spool": {"storageClassName": "fast"},
    "store": {"existingClaim": "nfs"},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {
        "clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "metrics": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}],
    },
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:x"}},
    "podAnnotations": {"c": "d"},
    "podLabels": {"e": "f"},
    "nodeSelector": {"msr.cache": "true"},
    "tolerations": [{"key": "cache", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "envFrom": [{"secretRef": {"name": "more"}}],
}
SHAPES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "everything": EVERYTHING,
    "a daemonset per zone": {"kind": "DaemonSet", "zones": ["a", "b"], "hostPort": 5000},
}


async def rendered(folder: Path, values: dict[str, Any], *, kubernetes: str = "1.37.0") -> Ran:
    """`helm template`, whatever becomes of it."""
    path = folder / "values.json"
    path.write_text(json.dumps(values))
    argv = ("template", "fleet", CHART, "--namespace", "msr", "--kube-version", kubernetes, "--values", path)
    return await run(need("helm"), *argv, env={"HOME": str(folder)})


async def shape(folder: Path, values: dict[str, Any]) -> list[Document]:
    """The documents of a release."""
    said = await rendered(folder, values)
    assert said.code == 0, said.err
    return documents(said.out)


async def test_it_passes_the_lint(tmp_path: Path) -> None:
    """Strictly, as it is and with everything set."""
    path = tmp_path / "values.json"
    path.write_text(json.dumps(EVERYTHING))
    argv = ("lint", "--strict", "--kube-version", "1.37.0", CHART)
    await ran(need("helm"), *argv, env={"HOME": str(tmp_path)})
    await ran(need("helm"), *argv, "--values", path, env={"HOME": str(tmp_path)})


async def test_its_version_is_the_caches() -> None:
    """The image that is taken without a tag is this version's."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


@pytest.mark.parametrize("name", SHAPES)
async def test_kubernetes_takes_every_shape(tmp_path: Path, name: str) -> None:
    """Strict schemas: a word that Kubernetes does not know is an error, not ignored."""
    said = await rendered(tmp_path, SHAPES[name])
    assert said.code == 0, said.err
    await acceptable(said.out, tmp_path, versions=VERSIONS if name == "everything" else VERSIONS[1:])
    found = documents(said.out)
    for workload in (*named(found, "Deployment"), *named(found, "DaemonSet")):
        hardened(workload)
        watched(workload, "HTTPS" if "tls" in SHAPES[name] else "HTTP")


async def test_replicas_spread_and_leave_one_by_one(tmp_path: Path) -> None:
    """Over zones and nodes; a drain of nodes takes one at a time, an upgrade none before another is there."""
    found = await shape(tmp_path, {})
    workload = the(found, "Deployment")
    keys = [one["topologyKey"] for one in pod(workload)["topologySpreadConstraints"]]
    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert workload["spec"]["replicas"] == 3
    assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budget = the(found, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert (
        budget["selector"]["matchLabels"].items()
        <= workload["spec"]["template"]["metadata"]["labels"].items()
    )


async def test_each_zone_has_its_own(tmp_path: Path) -> None:
    """Three replicas in each of three zones, apart from each other, behind one service and under one budget."""
    found = await shape(tmp_path, {"zones": ["a", "b", "c"], "replicas": 3})
    workloads = named(found, "Deployment")
    assert [one["metadata"]["name"] for one in workloads] == [f"fleet-msrcache-{zone}" for zone in "abc"]
    assert [pod(one)["nodeSelector"] for one in workloads] == [
        {"topology.kubernetes.io/zone": zone} for zone in "abc"
    ]
    chosen = [tuple(one["spec"]["selector"]["matchLabels"].items()) for one in workloads]
    assert len(set(chosen)) == 3
    for service in named(found, "Service"):
        for one in workloads:
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert service["spec"]["selector"].items() <= labels.items()


async def test_leaving_has_time_and_the_spool_an_end() -> None:
    """The grace period is above both parts of draining; the cache stops before the kubelet would evict it."""
    drain, spool = VALUES["drain"], VALUES["spool"]
    assert drain["gracePeriod"] >= seconds(drain["delay"]) + seconds(drain["timeout"]) + 20
    assert spool["size"].endswith("GiB")
    assert spool["sizeLimit"].endswith("Gi")
    assert int(spool["size"][:-3]) < int(spool["sizeLimit"][:-2])


@pytest.mark.parametrize("name", ["as it is", "everything"])
async def test_the_cache_takes_its_configuration(tmp_path: Path, name: str) -> None:
    """What the pod is given, file and variables together, is right for the cache, without a warning."""
    values = {key: value for key, value in SHAPES[name].items() if key != "existingConfigSecret"}
    found = await shape(tmp_path, values)
    text = the(found, "ConfigMap")["data"]["config.yml"]
    given = container(the(found, "Deployment"))["env"]
    environment = {entry["name"]: entry.get("value", "from-a-secret") for entry in given}
    loaded = parse(text, "config.yml", environment, strict=True)
    assert [str(problem) for problem in loaded.problems] == []
    assert loaded.config.http.drain_timeout == 60
    assert loaded.config.cache.metrics.addr == ":9090"
    assert loaded.config.cache.spool.size == 18 << 30


async def test_secrets_are_yours(tmp_path: Path) -> None:
    """No secret is made here, and none stands in the configuration: they are named, and mounted or read from there."""
    found = await shape(tmp_path, SECRETS)
    assert named(found, "Secret") == named(found, "ConfigMap") == []
    spec = pod(the(found, "Deployment"))
    mounted = {
        volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume
    }
    assert mounted == {"config": "cache-config", "tls": "cache-tls", "upstream-ca": "msr-ca"}
    taken = [entry for entry in spec["containers"][0]["env"] if "valueFrom" in entry]
    assert [entry["name"] for entry in taken] == ["REGISTRY_HTTP_SECRET", "REGISTRY_STORAGE_S3_SECRETKEY"]


async def test_only_replicas_reach_the_peer_port(tmp_path: Path) -> None:
    """The network policy lets clients to the registry, and nobody but replicas to where they follow each other."""
    policy = the(await shape(tmp_path, {"workers": 4}), "NetworkPolicy")["spec"]
    ports = [{"port": 5005, "endPort": 5008}]
    (peers,) = [rule["from"] for rule in policy["ingress"] if rule["ports"] == ports]
    assert peers == [{"podSelector": policy["podSelector"]}]


async def test_metrics_are_found(tmp_path: Path) -> None:
    """The monitor selects the metrics' service, by its labels, its port's name and where the release is."""
    found = await shape(tmp_path, {"serviceMonitor": {"enabled": True}})
    monitor = the(found, "ServiceMonitor")["spec"]
    (service,) = [
        one
        for one in named(found, "Service")
        if monitor["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    assert [port["name"] for port in service["spec"]["ports"]] == [
        one["port"] for one in monitor["endpoints"]
    ]
    assert monitor["namespaceSelector"] == {"matchNames": ["msr"]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replica": 3}, "replica"),
        ({"kind": "StatefulSet"}, "kind"),
        ({"spool": {"sizeLimit": "20"}}, "sizeLimit"),
        ({"drain": {"delay": 5}}, "delay"),
        ({"tls": {"secret": "x"}}, "secret"),
        ({"zones": ["Zone A"]}, "zones"),
    ],
)
async def test_wrong_values_are_refused(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    """With their name, before anything is made."""
    refused = await rendered(tmp_path, values)
    assert refused.code != 0
    assert said in refused.err


async def test_what_the_documentation_shows_is_taken(tmp_path: Path) -> None:
    """The values of docs/high-availability.md render, and the cache takes the configuration in them."""
    page = (PROJECT / "docs/high-availability.md").read_text()
    _, _, rest = page.partition("```\n# cache.yaml\n")
    found = await shape(tmp_path, yaml.safe_load(rest.partition("```")[0]))
    text = the(found, "ConfigMap")["data"]["config.yml"]
    loaded = parse(text, "config.yml", {"REGISTRY_STORAGE_S3_SECRETKEY": "x"}, strict=True)
    assert [str(problem) for problem in loaded.problems] == []
