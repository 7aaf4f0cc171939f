"""The plain manifests: by the names that MSR's and DTR's documentation uses, for those who swap the image alone."""

from pathlib import Path

import pytest

from msrcache.config.load import parse
from msrcache.config.model import Config
from tests.orchestrators.manifests import (
    VERSIONS,
    acceptable,
    container,
    documents,
    hardened,
    pod,
    the,
    watched,
)
from tests.stage.tools import PROJECT

FOLDER = PROJECT / "config/kubernetes"
PEERS = int(Config().cache.peer.addr.rpartition(":")[2])


@pytest.mark.parametrize("product", ["msr", "dtr"])
async def test_kubernetes_takes_them(tmp_path: Path, product: str) -> None:
    """By strict schemas; hardened, and looked at in the way that the cache is served."""
    text = (FOLDER / f"{product}cache.yaml").read_text()
    await acceptable(text, tmp_path, versions=VERSIONS[product == "msr" :])
    workload = the(documents(text), "Deployment")
    hardened(workload)
    watched(workload, "HTTPS")
    assert pod(workload)["terminationGracePeriodSeconds"] >= 5 + 60 + 20


@pytest.mark.parametrize("product", ["msr", "dtr"])
def test_names_are_the_originals(product: str) -> None:
    """Namespace, secret, config map, label, port and the relative command: nothing that exists has to be made anew."""
    found = documents((FOLDER / f"{product}cache.yaml").read_text())
    workload = the(found, "Deployment")
    one, spec = container(workload), pod(workload)
    assert {each["metadata"]["namespace"] for each in found} == {product}
    assert {each["metadata"]["name"] for each in found} == {f"{product}-cache"}
    assert workload["spec"]["selector"]["matchLabels"] == {"app": f"{product}-cache"}
    assert (one["command"], one["args"]) == (["bin/sh"], ["start.sh", "/config/config.yaml"])
    https, peer = {"name": "https", "containerPort": 443}, {"name": "peer", "containerPort": PEERS}
    assert one["ports"] == [https, peer]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[f"{product}-certs"]["secret"]["secretName"] == f"{product}-certs"
    assert volumes[f"{product}-cache-config"]["configMap"]["name"] == f"{product}-cache-config"
    mounts = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
    assert mounts[f"{product}-certs"] == "/certs"
    assert mounts[f"{product}-cache-config"] == "/config"
    assert the(found, "Service")["spec"]["type"] == "NodePort"


def test_the_configuration_is_the_caches() -> None:
    """And what it names is where the manifests put it."""
    loaded = parse((FOLDER / "config.yaml").read_text(), "config.yaml", {}, strict=True)
    assert [str(problem) for problem in loaded.problems] == []
    assert loaded.config.http.addr.endswith(":443")
    assert str(loaded.config.http.tls.certificate).startswith("/certs/")
