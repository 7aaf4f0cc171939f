"""The profiles of docker-compose.yml: one per emulator; that of S3 is built on a base made here and pulled through."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.stage import clients, images
from tests.stage.clients import ran
from tests.stage.engines import Docker
from tests.stage.imagebuild import emulator_context, import_base
from tests.stage.process import answers, free_port, until
from tests.stage.push import push
from tests.stage.registries import RunningRegistry
from tests.stage.tools import PROJECT, need
from tests.stage.trystore import EMULATORS

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


async def services(store: str, file: Path, env: dict[str, str]) -> dict[str, dict[str, object]]:
    """What a profile starts by its cache's name, as docker-compose understands the file."""
    said = await ran(need("docker-compose"), "-f", file, "--profile", store, "config", env=env)
    found: dict[str, dict[str, object]] = yaml.safe_load(said.out)["services"]
    return {name: found[name] for name in (store, f"on-{store}")}


@pytest.mark.parametrize("store", EMULATORS)
async def test_each_store_has_a_profile(store: str) -> None:
    """The emulator is built here from BASE_IMAGE, on loopback only, and the cache starts when it is ready."""
    env = {"UPSTREAM": "https://msr.example.com", "BASE_IMAGE": "base.example.com/python:3"}
    found = await services(store, PROJECT / "docker-compose.yml", env)
    emulator, cache = found[store], found[f"on-{store}"]
    assert emulator["profiles"] == cache["profiles"] == [store]
    assert emulator["build"] == {
        "context": str(PROJECT),
        "dockerfile": "docker/emulator.Dockerfile",
        "args": {"BASE_IMAGE": "base.example.com/python:3", "STORE": store},
    }
    assert emulator["ports"] == ["127.0.0.1:5000:5000/tcp"]
    healthy = {"condition": "service_healthy"}
    assert cache["depends_on"] == {store: healthy, "upstream": healthy}
    assert cache["volumes"] == emulator["volumes"] == [f"{store}:/shared:rw"]


async def test_every_profile_is_a_store_that_make_run_knows() -> None:
    """And one is a single replica on its volume, alone."""
    file = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    profiles = {name for service in file.values() for name in service.get("profiles", ())}
    assert profiles == {*EMULATORS, "one"}
    assert [name for name, service in file.items() if service.get("profiles") == ["one"]] == ["cache"]


async def test_the_stand_in_says_what_it_is() -> None:
    """Nobody takes `oss` for the service of Alibaba Cloud, or for an emulator that others trust."""
    found = await services("oss", PROJECT / "docker-compose.yml", {"UPSTREAM": "https://msr.example.com"})
    labels = found["oss"]["labels"]
    assert isinstance(labels, dict)
    assert labels["msrcache.store"].startswith("OUR OWN STAND-IN for Alibaba Cloud OSS")


@dataclass(frozen=True, slots=True)
class Composed:
    """docker-compose on a file of its own."""

    docker: Docker
    file: Path
    env: dict[str, str]

    async def __call__(self, *argv: str) -> clients.Ran:
        """`docker-compose ARGV…`."""
        env = {
            "DOCKER_HOST": f"unix://{self.docker.socket}",
            "COMPOSE_PROJECT_NAME": self.file.stem,
            **self.env,
        }
        return await ran(need("docker-compose"), "-f", self.file, *argv, env=env, seconds=600)


@contextlib.asynccontextmanager
async def profile(docker: Docker, store: str, folder: Path, upstream: str) -> AsyncIterator[int]:
    """A profile, built and up; yields the cache's port. Its network is the host's: the daemon here has no other."""
    port = free_port()
    images_ = {"IMAGE": "msrcache:compose", "BASE_IMAGE": await import_base(docker)}
    env = {"UPSTREAM": upstream, "EMULATOR": "msrcache-emulator", **images_}
    await Composed(docker, folder / "docker-compose.yml", env)(
        "--profile", store, "build", store, f"on-{store}"
    )
    found = await services(store, folder / "docker-compose.yml", env)
    del found[store]["ports"]
    found[store]["network_mode"] = found[f"on-{store}"]["network_mode"] = "host"
    found[f"on-{store}"]["depends_on"] = {store: {"condition": "service_healthy"}}
    found[f"on-{store}"].pop("ulimits", None)  # a daemon in a sandbox may have fewer descriptors itself
    found[f"on-{store}"]["environment"] = {
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_PROXY_REMOTEURL": upstream,
    }
    file = folder / f"{store}-{uuid.uuid4().hex[:8]}.yml"
    file.write_text(yaml.safe_dump({"services": found, "volumes": {store: {}}}))
    composed = Composed(docker, file, env)
    try:
        await composed("--profile", store, "up", "-d", "--no-build", f"on-{store}")
        await until(lambda: answers(f"http://127.0.0.1:{port}/v2/"), what=f"the cache on {store}")
        yield port
    except AssertionError as error:
        said = await composed("--profile", store, "logs", "--no-color")
        raise AssertionError(f"{error}\nthe containers said:\n{said.out}{said.err}") from error
    finally:
        await composed("--profile", store, "down", "-v", "-t", "10")


@pytest.mark.slow
async def test_the_profile_of_s3_serves_pulls(
    tmp_path: Path, docker: Docker, open_registry: RunningRegistry
) -> None:
    """Built without a network, up by one command, a pull cold and warm: the blobs come from the emulator."""
    need("mmdebstrap")
    image = images.simple_image(2, seed=5)
    await push(open_registry.url, "lib/app", image, "1")
    await emulator_context(tmp_path / "context", "versitygw")
    async with profile(docker, "s3", tmp_path / "context", open_registry.url) as port:
        for turn in ("cold", "warm"):
            layout = await clients.crane_pull(f"127.0.0.1:{port}/lib/app:1", tmp_path / turn)
            assert image.digest in (layout / "index.json").read_text()
        fetched = [line for line in open_registry.requests() if line.startswith("GET") and "/blobs/" in line]
        assert len(fetched) == len(image.all_blobs())
