"""docker-compose.yml without a profile: three replicas behind HAProxy, a store, a demonstration registry."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import yaml

from msrcache.config.load import parse
from tests.stage import clients, demo, images
from tests.stage.clients import ran
from tests.stage.enginenet import engine_network
from tests.stage.engines import Docker, docker_daemon
from tests.stage.imagebuild import emulator_context, import_base
from tests.stage.images import digest_of
from tests.stage.process import answers, until
from tests.stage.tools import PROJECT, need

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

REPLICAS = ("cache1", "cache2", "cache3")
FLEET = {*REPLICAS, "balancer", "store", "upstream"}


async def composed(*, profiles: bool = False, **env: str) -> dict[str, dict[str, object]]:
    """The services as docker-compose understands the file, by their names; those of profiles too, where asked for."""
    said = await ran(need("docker-compose"), "-f", PROJECT / "docker-compose.yml", "config", env=env)
    found: dict[str, dict[str, object]] = yaml.safe_load(said.out)["services"]
    return {name: service for name, service in found.items() if profiles or not service.get("profiles")}


def seconds(text: object) -> float:
    """A duration as docker-compose writes it back."""
    minutes, _, rest = str(text).rpartition("m")
    return 60 * float(minutes or 0) + float(rest.removesuffix("s") or 0)


async def test_a_clone_is_enough() -> None:
    """No variable has to be set, every image is built here from one base, and only the balancer is reached."""
    found = await composed(BASE_IMAGE="base.example.com/python:3", UPSTREAM="")
    assert found.keys() == FLEET
    for name, service in found.items():
        build = service["build"]
        assert isinstance(build, dict)
        assert build["context"] == str(PROJECT)
        assert build["args"]["BASE_IMAGE"] == "base.example.com/python:3"
        assert (PROJECT / build.get("dockerfile", "Dockerfile")).is_file()
        assert bool(service.get("ports")) == (name == "balancer")


async def test_nothing_in_it_is_trusted_with_more_than_it_needs() -> None:
    """Nobody is root, only volumes and /tmp are written, memory and processes have an end, health is looked at."""
    for service in (await composed(profiles=True)).values():
        assert service["user"] == "65532:65532"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["pids_limit"]
        assert service["healthcheck"]


async def test_replicas_are_given_the_time_to_leave() -> None:
    """The grace period is what draining takes by its defaults, and what is all here still reaches the store."""
    found = await composed()
    config = parse(
        "version: 0.1\nstorage: {inmemory: {}}\nproxy: {remoteurl: https://x.test}", "config.yml", {}
    ).config
    for name in REPLICAS:
        needed = config.cache.drain.delay + config.http.drain_timeout + 20
        assert needed <= seconds(found[name]["stop_grace_period"]) <= needed + 10
    assert seconds(found["balancer"]["stop_grace_period"]) >= config.http.drain_timeout


async def test_replicas_are_alike() -> None:
    """One configuration for all: the same store, secret and upstream; only the spool is each one's own."""
    found = await composed(UPSTREAM="https://msr.example.com", HTTP_SECRET="ours")
    environments = [found[name]["environment"] for name in REPLICAS]
    assert environments[0] == environments[1] == environments[2]
    assert isinstance(environments[0], dict)
    loaded = parse("version: 0.1", "none", environments[0])
    assert [str(problem) for problem in loaded.problems] == []
    assert [entry.url for entry in loaded.config.upstreams] == ["https://msr.example.com"]
    assert loaded.config.storage.driver == "s3"
    assert len({str(found[name]["volumes"]) for name in REPLICAS}) == 3
    networks = found["balancer"]["networks"]
    assert isinstance(networks, dict)
    assert [str(network) for network in loaded.config.cache.trusted] == [
        f"{networks['default']['ipv4_address']}/32"
    ]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is up, and where clients go."""

    docker: Docker
    file: Path
    env: dict[str, str]
    host: str

    async def __call__(self, *argv: str) -> str:
        """`docker-compose ARGV…`; what it printed."""
        return (await ran(need("docker-compose"), "-f", self.file, *argv, env=self.env, seconds=900)).out

    async def container(self, service: str) -> str:
        """The id of a service's container."""
        return (await self("ps", "-q", service)).strip()

    async def well(self, container: str) -> None:
        """Returns when its health check has passed."""

        async def healthy() -> bool:
            said = await self.docker("inspect", "--format", "{{.State.Health.Status}}", container)
            return said.out.strip() == "healthy"

        await until(healthy, what="a replica to be well again", seconds=240)


def without_ulimits(file: Path) -> None:
    """An engine in a sandbox may have fewer descriptors itself."""
    text = file.read_text()
    wanted = "  ulimits:\n    nofile: 65536\n"
    assert wanted in text
    file.write_text(text.replace(wanted, ""))


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """`docker-compose up` in a copy of the project, on an engine with a network of its own."""
    need("mmdebstrap")
    await emulator_context(folder, "versitygw")
    without_ulimits(folder / "docker-compose.yml")
    with engine_network() as network:
        async with docker_daemon(inside=network.inside) as docker:
            env = {
                "DOCKER_HOST": f"unix://{docker.socket}",
                "COMPOSE_PROJECT_NAME": f"fleet{uuid.uuid4().hex[:8]}",
                "BASE_IMAGE": await import_base(docker, "haproxy"),
            }
            up = Fleet(docker, folder / "docker-compose.yml", env, f"{network.address}:5000")
            await up("build")
            try:
                await up("up", "-d")
                await until(lambda: answers(f"http://{up.host}/v2/"), what="the fleet", seconds=120)
                yield up
            except (AssertionError, ExceptionGroup) as error:
                raise AssertionError(
                    f"{error}\n{await up('ps')}\n{await up('logs', '--no-color')}"
                ) from error
            finally:
                await up("down", "-v", "-t", "5")


async def pull_all(host: str, image: images.Image) -> int:
    """Every byte of an image, with a new try where a connection breaks, as every client does."""
    tries = 0
    async with aiohttp.ClientSession(f"http://{host}") as session:
        for digest in image.all_blobs():
            for _ in range(5):
                tries += 1
                try:
                    async with session.get(f"/v2/{demo.REPOSITORY}/blobs/{digest}") as answer:
                        body = await answer.read()
                except (OSError, aiohttp.ClientError):
                    continue
                assert answer.status == 200, (answer.status, body[:500])
                assert digest_of(body) == digest
                break
            else:
                raise AssertionError(f"five tries, and no {digest}")
    return tries


@dataclass(slots=True)
class Pulling:
    """Clients that pull again and again, and how often they had to try a second time."""

    again: int = 0
    pulls: int = 0
    ending: bool = False

    async def keep_on(self, host: str, image: images.Image) -> None:
        """One of them."""
        while not self.ending:
            self.again += await pull_all(host, image) - len(image.all_blobs())
            self.pulls += 1
            await asyncio.sleep(1)  # the machine is for the fleet, too

    @asynccontextmanager
    async def running(self, host: str, image: images.Image) -> AsyncIterator[None]:
        """Two of them."""
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(self.keep_on(host, image))
            try:
                yield
            finally:
                self.ending = True


@pytest.mark.slow
async def test_it_comes_up_and_bears_what_happens_to_replicas(tmp_path: Path) -> None:
    """Up by one command. Real clients pull through HAProxy, also when a replica is killed, and a rolling restart
    costs nobody a second try.
    """
    image = await asyncio.to_thread(demo.demonstration_image)
    async with fleet(tmp_path / "clone") as up:
        reference = f"{up.host}/{demo.REPOSITORY}:{demo.TAG}"
        await asyncio.gather(*(pull_all(up.host, image) for _ in range(20)))
        await clients.skopeo_copy(reference, tmp_path / "skopeo")
        victim = await up.container("cache2")
        pulls = asyncio.gather(*(pull_all(up.host, image) for _ in range(20)))
        await up.docker("kill", "-s", "KILL", victim)
        await pulls
        assert await clients.crane_digest(reference, tmp_path / "crane") == image.digest
        await up.docker("start", victim)
        await up.well(victim)
        load = Pulling()
        async with load.running(up.host, image):
            for name in REPLICAS:
                container = await up.container(name)
                await up.docker("restart", "--time", "90", container, seconds=150)
                await up.well(container)
        assert (load.again, load.pulls > 0) == (0, True)
