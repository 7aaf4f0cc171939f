"""Container engines of our own: a Docker daemon and a containerd, each with its state in a folder of a test.

They make no bridge, no firewall rule and no cgroup of the machine's own engine; containers run on the host's
network, so that 127.0.0.1 in them is the test's. They need root.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.stage.clients import Account, Ran, docker_config, ran, run
from tests.stage.process import Process, running
from tests.stage.tools import need, need_root


@contextlib.contextmanager
def engine_folder() -> Iterator[Path]:
    """A short path (UNIX sockets end at 108 bytes) that is unmounted and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="msrc-", dir="/tmp"))
    try:
        yield folder
    finally:
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (place := line.split()[1]).startswith(f"{folder}/"):
                subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Docker:
    """A Docker daemon that runs, and its command line."""

    socket: Path
    folder: Path
    daemon: Process

    async def __call__(
        self,
        *argv: str | Path,
        env: Mapping[str, str] | None = None,
        account: tuple[str, Account] | None = None,
        seconds: float = 90,
    ) -> Ran:
        """`docker ARGV…`; account is (host, Account). Raises where it fails."""
        config = docker_config(self.folder / "client", dict([account]) if account else None)
        base = {"DOCKER_CONFIG": str(config), "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}
        return await ran(need("docker"), *argv, env=base | dict(env or {}), seconds=seconds)

    async def pull(self, reference: str, *, account: Account | None = None) -> str:
        """Pulls afresh (an image of that name is removed before) and returns the digest it was pulled by."""
        await self.forget(reference)
        named = (reference.split("/", 1)[0], account) if account else None
        said = (await self("pull", reference, account=named)).out
        return next(line.split()[1] for line in said.splitlines() if line.startswith("Digest:"))

    async def forget(self, reference: str) -> None:
        """Removes an image, if it is there, with layers that nothing else uses."""
        env = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.folder / "client")}
        await run(need("docker"), "image", "rm", "-f", reference, env=env)

    async def layers(self, reference: str) -> list[str]:
        """The diff ids it unpacked: proof that the bytes were right."""
        said = await self("image", "inspect", "--format", "{{json .RootFS.Layers}}", reference)
        parsed: list[str] = json.loads(said.out)
        return parsed


@contextlib.asynccontextmanager
async def docker_daemon(
    *, insecure: Sequence[str] = (), mirrors: Sequence[str] = (), inside: Sequence[str | Path] = ()
) -> AsyncIterator[Docker]:
    """A Docker daemon; loopback registries may speak plain HTTP anyway. mirrors are URLs for docker.io.

    `inside` is how a program is started in a network of its own: there it makes bridges and firewall rules as it
    always does.
    """
    need_root()
    program = need("dockerd")
    need("containerd")
    with engine_folder() as folder:
        socket = folder / "docker.sock"
        settings: dict[str, object] = {
            "data-root": str(folder / "data"),
            "exec-root": str(folder / "exec"),
            "pidfile": str(folder / "docker.pid"),
            "hosts": [f"unix://{socket}"],
            "insecure-registries": list(insecure),
            "registry-mirrors": list(mirrors),
        }
        if not inside:
            settings |= {"bridge": "none", "iptables": False}
        (folder / "docker.json").write_text(json.dumps(settings))

        async def ready() -> bool:
            env = {"DOCKER_HOST": f"unix://{socket}"}
            return socket.exists() and (await run(need("docker"), "version", env=env, seconds=20)).code == 0

        argv: list[str | Path] = [*inside, program, "--config-file", folder / "docker.json"]
        async with running("dockerd", argv, ready=ready, log=folder / "log", env=_daemon_path()) as daemon:
            yield Docker(socket, folder, daemon)


@dataclass(frozen=True, slots=True)
class Containerd:
    """A containerd that runs, driven by ctr."""

    socket: Path
    folder: Path
    daemon: Process

    async def __call__(self, *argv: str | Path) -> Ran:
        """`ctr ARGV…`. Raises where it fails."""
        return await ran(need("ctr"), "-a", self.socket, "-n", "test", *argv)

    async def pull(self, reference: str, *, hosts: Mapping[str, str], account: Account | None = None) -> None:
        """Pulls with a hosts.toml per registry name: {"registry.example.test": "http://127.0.0.1:5000"}."""
        folder = self.folder / "certs"
        shutil.rmtree(folder, ignore_errors=True)
        for name, url in hosts.items():
            place = folder / name
            place.mkdir(parents=True)
            may = 'capabilities = ["pull", "resolve"]\nskip_verify = true'
            (place / "hosts.toml").write_text(f'server = "{url}"\n[host."{url}"]\n{may}\n')
        argv: list[str | Path] = ["images", "pull", "--hosts-dir", folder]
        if account is not None:
            argv += ["--user", f"{account.user}:{account.password}"]
        await self(*argv, reference)

    async def forget(self, reference: str) -> None:
        """Removes the image and, at once, everything that only it held."""
        await self("images", "rm", "--sync", reference)

    async def blobs(self) -> list[str]:
        """Digests of all content that it holds."""
        return (await self("content", "ls", "-q")).out.split()


@contextlib.asynccontextmanager
async def containerd_daemon() -> AsyncIterator[Containerd]:
    """A containerd without the CRI plugin."""
    need_root()
    program = need("containerd")
    need("ctr")
    with engine_folder() as folder:
        socket = folder / "c.sock"
        config = folder / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
            f'[grpc]\n  address = "{socket}"\n'
        )

        async def ready() -> bool:
            return socket.exists() and (await run(need("ctr"), "-a", socket, "version")).code == 0

        argv: list[str | Path] = [program, "-c", config]
        async with running("containerd", argv, ready=ready, log=folder / "log", env=_daemon_path()) as daemon:
            yield Containerd(socket, folder, daemon)


def _daemon_path() -> dict[str, str]:
    return {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
