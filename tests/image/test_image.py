"""The container image: built on a base made here, it starts in all the ways it must, and serves pulls."""

import contextlib
import json
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.stage import clients, images
from tests.stage.engines import Docker
from tests.stage.imagebuild import build_image
from tests.stage.process import answers, free_port, until
from tests.stage.push import push
from tests.stage.registries import RunningRegistry
from tests.stage.tools import need

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

NON_ROOT = 65532
STORES = [
    "aiobotocore",
    "azure.storage.blob",
    "google.cloud.storage",
    "keystoneauth1",
    "alibabacloud_oss_v2.aio",
]
ENTRY_POINTS = {
    "config-alone": ([], ["/config.yml"]),
    "start.sh": (["--entrypoint", "/start.sh"], ["/config.yml"]),
    "relative": (["--entrypoint", "bin/sh"], ["start.sh", "/config/config.yaml"]),
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def built(docker: Docker) -> str:
    """The image's name."""
    need("mmdebstrap")
    return await build_image(docker)


@contextlib.asynccontextmanager
async def container(
    docker: Docker, image: str, folder: Path, upstream: str, how: str, *, name: str = "", workers: int = 1
) -> AsyncIterator[int]:
    """The cache in a container as an operator would harden it; yields its port on loopback."""
    port, name = free_port(), name or f"cache-{uuid.uuid4().hex[:8]}"
    store = folder / "store"
    store.mkdir()
    os.chown(store, NON_ROOT, NON_ROOT)
    config = folder / "config.yml"
    settings = {
        "version": "0.1",
        "http": {"addr": f"127.0.0.1:{port}"},
        "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}},
        "proxy": {"remoteurl": upstream},
        "cache": {"workers": workers, "drain": {"delay": "0s"}},
    }
    config.write_text(json.dumps(settings))
    config.chmod(0o644)
    options, arguments = ENTRY_POINTS[how]
    argv = ["run", "-d", "--name", name, "--network", "host", "--read-only", "--cap-drop", "ALL"]
    argv += ["--tmpfs", "/tmp", "-v", f"{store}:/var/lib/registry", "-v", f"{config}:{arguments[-1]}:ro"]
    await docker(*argv, *options, image, *arguments)
    try:
        await until(lambda: answers(f"http://127.0.0.1:{port}/v2/"), what=f"the container ({how})")
        yield port
    except AssertionError as error:
        said = await docker("logs", name)
        raise AssertionError(f"{error}\nthe container said:\n{said.out}{said.err}") from error
    finally:
        await docker("rm", "-f", name)


def _open_to_all(folder: Path) -> None:
    # the container is somebody else and must reach what is mounted from below pytest's 0700 folders
    for place in (folder, *folder.parents):
        if place.stat().st_uid == os.geteuid() and str(place).startswith("/tmp/"):
            place.chmod(place.stat().st_mode | 0o055)


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_images_come_through_the_container(
    tmp_path: Path, docker: Docker, built: str, open_registry: RunningRegistry, how: str
) -> None:
    """Each way to start it serves a pull cold and warm, and what it pulled is on the volume."""
    image = images.simple_image(2, seed=5)
    await push(open_registry.url, "lib/app", image, "1")
    _open_to_all(tmp_path)
    async with container(docker, built, tmp_path, open_registry.url, how) as port:
        reference = f"127.0.0.1:{port}/lib/app:1"
        assert await docker.pull(reference) == image.digest
        await docker.forget(reference)
        asked = len(
            [line for line in open_registry.requests() if line.startswith("GET") and "/blobs/" in line]
        )
        await clients.crane_pull(reference, tmp_path / "crane")
        after = len(
            [line for line in open_registry.requests() if line.startswith("GET") and "/blobs/" in line]
        )
        assert after == asked == len(image.all_blobs())
    for digest in image.all_blobs():
        place = tmp_path / "store/docker/registry/v2/blobs/sha256" / digest[7:9] / digest[7:] / "data"
        assert place.stat().st_uid == NON_ROOT


ORPHAN = """
import os, signal, time
from pathlib import Path
workers = Path("/proc/1/task/1/children").read_text().split()
os.kill(int(workers[0]), signal.SIGKILL)
if not os.fork():
    if not os.fork():
        time.sleep(0.1)
    os._exit(0)
print(len(workers))
"""
ZOMBIES = "import glob; print(sum(' Z ' in open(path).read() for path in glob.glob('/proc/[0-9]*/stat')))"


async def test_several_workers_in_a_container(
    tmp_path: Path, docker: Docker, built: str, open_registry: RunningRegistry
) -> None:
    """The supervisor is PID 1: a killed worker is back, orphans are reaped, SIGHUP is passed on, stop ends with 0."""
    image, name = images.simple_image(1, seed=6), f"cache-{uuid.uuid4().hex[:8]}"
    await push(open_registry.url, "lib/crew", image, "1")
    _open_to_all(tmp_path)

    async def told(words: str, times: int) -> bool:
        said = await docker("logs", name)
        return (said.out + said.err).count(words) >= times

    async with container(
        docker, built, tmp_path, open_registry.url, "config-alone", name=name, workers=2
    ) as port:
        await until(lambda: told("msrcache is listening", 2), what="both workers")
        assert (await docker("exec", name, "python3", "-c", ORPHAN)).out.split() == ["2"]
        await until(lambda: told("msrcache is listening", 3), what="a worker to be started anew")

        async def reaped() -> bool:
            return (await docker("exec", name, "python3", "-c", ZOMBIES)).out.split() == ["0"]

        await until(reaped, what="all that ended to be reaped")
        await docker("kill", "-s", "HUP", name)
        await until(lambda: told("configuration re-read", 2), what="both workers to re-read")
        await clients.crane_pull(f"127.0.0.1:{port}/lib/crew:1", tmp_path / "crane")
        await docker("stop", "-t", "60", name)
        assert (await docker("inspect", "-f", "{{.State.ExitCode}}", name)).out.strip() == "0"


async def test_it_carries_what_it_may_need(docker: Docker, built: str) -> None:
    """Every store's SDK, the CA bundle, a shell; nobody is root, / is the working directory."""
    imports = "import " + ", ".join(STORES) + ", ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    said = await docker("run", "--rm", "--network", "none", "--entrypoint", "python3", built, "-c", imports)
    assert int(said.out) > 50
    shell = "id -u; pwd; test -w /opt/msrcache || echo sealed; touch /var/lib/registry/x && echo writable"
    said = await docker("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", built, "-c", shell)
    assert said.out.split() == [str(NON_ROOT), "/", "sealed", "writable"]
