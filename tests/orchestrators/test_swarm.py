"""The stack for Swarm: read by the clients that deploy it, and deployed on a swarm of one node, label by label."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from msrcache.config.load import parse
from tests.stage import clients, images
from tests.stage.certificates import authority
from tests.stage.clients import ClientFailedError, run
from tests.stage.enginenet import EngineNetwork, engine_network
from tests.stage.engines import Docker, docker_daemon
from tests.stage.imagebuild import build_image
from tests.stage.process import answers, free_port, until
from tests.stage.shelf import shelf
from tests.stage.tools import PROJECT, need

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

FOLDER = PROJECT / "config/swarm"
IMAGE = "127.0.0.1:1/msrcache:swarm"
"""A swarm asks the registry of an image each time: this one refuses at once, and the image is here."""


async def read(product: Mapping[str, str]) -> dict[str, Any]:
    """The stack as `docker stack config` understands it; as docker-compose does, where docker is older than that."""
    file = FOLDER / "docker-stack.yml"
    said = await run(need("docker"), "stack", "config", "-c", file, env=product)
    if "unknown command" in said.err + said.out or "not a docker command" in said.err or "Usage:" in said.out:
        said = await run(need("docker-compose"), "-f", file, "config", env=product)
    assert said.code == 0, said.err
    found: dict[str, Any] = yaml.safe_load(said.out)
    return found


@pytest.mark.parametrize("product", ["msr", "dtr"])
async def test_the_stack_has_the_originals_names(product: str) -> None:
    """Label, entry point, port, config and secrets are where the caches of MSR and DTR have them."""
    found = await read({} if product == "msr" else {"PRODUCT": product})
    (service,) = found["services"].values()
    assert list(found["services"]) == ["cache"]
    assert service["entrypoint"] == ["/start.sh", "/config.yml"]
    assert service["deploy"]["mode"] == "global"
    assert service["deploy"]["placement"]["constraints"] == [f"node.labels.{product}.cache == true"]
    assert service["deploy"]["restart_policy"]["condition"] == "on-failure"
    assert [(one["target"], one["published"], one["mode"]) for one in service["ports"]] == [
        (443, 443, "host")
    ]
    assert [one["target"] for one in service["configs"]] == ["/config.yml"]
    assert [one["target"] for one in service["secrets"]] == [
        f"{product}.cert.pem",
        "cache.cert.pem",
        "cache.key.pem",
    ]
    options = found["volumes"]["registry"]["driver_opts"]
    assert options["type"] == "nfs"
    assert "lookupcache=positive" in options["o"]


async def test_the_stack_says_how_to_export() -> None:
    """The options of the export that the documentation of the original asks for stand where they are looked for."""
    assert "rw,root_squash,no_wdelay" in (FOLDER / "docker-stack.yml").read_text()


def test_the_configuration_is_the_caches() -> None:
    """And its files are where the stack puts the secrets."""
    loaded = parse((FOLDER / "config.yml").read_text(), "config.yml", {}, strict=True)
    assert [str(problem) for problem in loaded.problems] == []
    assert loaded.config.http.addr == "0.0.0.0:443"
    assert str(loaded.config.http.tls.key) == "/run/secrets/cache.key.pem"
    assert str(loaded.config.cache.spool.path) == "/var/lib/msrcache/spool"


def copied(folder: Path, upstream: str, address: str) -> Path:
    """The stack and its files; a volume of this host in place of the file server's, and another upstream."""
    ca = authority(folder / "ca")
    pair = ca.issue("cache", address)
    (folder / "msr.cert.pem").write_bytes(ca.bundle.read_bytes())
    (folder / "cache.cert.pem").write_bytes(pair.certificate.read_bytes())
    (folder / "cache.key.pem").write_bytes(pair.key.read_bytes())
    config = yaml.safe_load((FOLDER / "config.yml").read_text())
    config["middleware"]["registry"][0]["options"]["upstreams"] = [upstream]
    config["http"]["secret"] = "of-the-fleet-in-this-test"
    (folder / "config.yml").write_text(json.dumps(config))
    stack = yaml.safe_load((FOLDER / "docker-stack.yml").read_text())
    stack["volumes"]["registry"] = {}
    del stack["services"]["cache"]["ulimits"]  # an engine in a sandbox may have fewer descriptors itself
    path = folder / "docker-stack.yml"
    path.write_text(yaml.safe_dump(stack))
    return path


@dataclass(frozen=True, slots=True)
class Swarm:
    """A swarm of one node with the stack on it."""

    docker: Docker
    network: EngineNetwork
    folder: Path

    async def label(self, change: str, label: str) -> None:
        """`--label-add` or `--label-rm` on the node."""
        node = (await self.docker("node", "ls", "-q")).out.strip()
        await self.docker("node", "update", change, label, node)

    async def running(self) -> list[str]:
        """The ids of the containers that run."""
        return (await self.docker("ps", "-q", "--filter", f"ancestor={IMAGE}")).out.split()

    async def replicas(self, count: int) -> None:
        """Returns when so many run."""

        async def as_wanted() -> bool:
            return len(await self.running()) == count

        await until(as_wanted, what=f"{count} replicas", seconds=120)

    async def serves(self) -> None:
        """Returns when the cache answers on the node's own port."""
        await until(
            lambda: answers(f"https://{self.network.address}/readyz"), what="the node's port", seconds=120
        )

    async def told(self, container: str) -> tuple[str, str, str]:
        """Where a replica says that others reach it, what that name means there, and the way that leads out."""
        says = (
            "import os, socket as s; name = os.environ['REGISTRY_CACHE_PEER_ADVERTISE'].rpartition(':')[0]; "
        )
        says += "u = s.socket(s.AF_INET, s.SOCK_DGRAM); u.connect(('192.0.2.1', 9)); "
        says += "print(name, s.gethostbyname(name), u.getsockname()[0])"
        name, address, outward = (await self.docker("exec", container, "python3", "-c", says)).out.split()
        return name, address, outward

    async def pull(self, name: str) -> None:
        """With a real client, which looks at the certificate."""
        trusted = self.folder / "trusted"
        trusted.mkdir(exist_ok=True)
        (trusted / "ca.crt").write_bytes((self.folder / "msr.cert.pem").read_bytes())
        reference = f"{self.network.address}:443/team/app:1"
        await clients.skopeo_copy(reference, self.folder / name, ca_folder=trusted)


@asynccontextmanager
async def swarm(folder: Path, image: images.Image) -> AsyncIterator[Swarm]:
    """One node, and the stack deployed before any node has the label."""
    with engine_network() as network:
        async with (
            docker_daemon(inside=network.inside) as docker,
            shelf({("team/app", "1"): image}, free_port(), host=network.host) as upstream,
        ):
            await build_image(docker, IMAGE)
            try:
                await docker("swarm", "init", "--advertise-addr", network.address)
            except ClientFailedError as refused:
                pytest.skip(f"no swarm on this engine: {refused}")
            path = copied(folder, upstream, network.address)
            await docker(
                "stack", "deploy", "--resolve-image", "never", "-c", path, "msr-cache", env={"IMAGE": IMAGE}
            )
            try:
                yield Swarm(docker, network, folder)
            except AssertionError as error:
                told = await docker("service", "ps", "--no-trunc", "msr-cache_cache")
                said = await docker("service", "logs", "msr-cache_cache")
                raise AssertionError(f"{error}\n{told.out}\n{said.out}{said.err}") from error
            finally:
                await docker("swarm", "leave", "--force")


@pytest.mark.slow
async def test_labels_decide_where_replicas_are(tmp_path: Path) -> None:
    """None without the label; one with it, which real clients pull from; another after an update; none at last."""
    need("mmdebstrap")
    async with swarm(tmp_path, images.simple_image(2, seed=7)) as one:
        assert await one.running() == []
        await one.label("--label-add", "msr.cache=true")
        await one.replicas(1)
        await one.serves()
        await one.pull("first")
        (before,) = await one.running()
        name, address, outward = await one.told(before)
        assert name.startswith("msr-cache_cache.")
        # The stack's own network, which all nodes are on. The way out is each node's own bridge, which none shares.
        assert address != outward
        assert f"{name}:5005" in (await one.docker("logs", before)).err
        await one.docker("service", "update", "--force", "--detach", "msr-cache_cache")

        async def replaced() -> bool:
            return await one.running() not in ([], [before])

        await until(replaced, what="another replica", seconds=180)
        await one.serves()
        await one.pull("second")
        await one.label("--label-rm", "msr.cache")
        await one.replicas(0)
