"""The stage of a run: a real registry, a real object store, three replicas, HAProxy, and a network that can be cut.

Every replica reaches the upstream, the store and the other replicas through proxies of its own; the store has a front
that can answer "denied" and "full". Everything listens on loopback.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.balancers.replica import Replica
from tests.balancers.samples import FOLDER, REPLICAS, changed
from tests.chaos.network import Network, network
from tests.chaos.plan import REPLICAS as COUNT
from tests.stage.process import answers, free_port, running, start, until
from tests.stage.registries import Kind, RunningRegistry, registry
from tests.stage.s3services import RunningS3, versitygw
from tests.stage.tools import need

BUCKET: Final = "chaos"
FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
THRESHOLD: Final = 1 << 20
TTL: Final = "6s"
"""What nobody has pulled for so long is due; it is deleted some six seconds later (belief, URLs, journals)."""
DELETED: Final = re.compile(
    r"^(?P<time>[\d:]{8}) .* \| 204 \|.*\| DELETE "
    r"\| /chaos/docker/registry/v2/blobs/sha256/../(?P<hex>[0-9a-f]{64})/data "
)


@dataclass(slots=True)
class ClockedReplica(Replica):
    """A replica whose wall clock can be set; nothing else of it is told another time."""

    @property
    def clock(self) -> Path:
        """The file that says how far its clock is off."""
        return self.folder / f"{self.name}.clock"

    def set_clock(self, seconds: float) -> None:
        """Set it off by so much."""
        part = self.clock.with_suffix(".new")
        part.write_text(f"{seconds:+.0f}\n")
        part.replace(self.clock)

    async def start(self) -> None:
        """As Replica."""
        self.set_clock(0)
        path = self.folder / f"{self.name}.yml"
        path.write_text(json.dumps(self.config, indent=1))
        env = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        argv: list[str | Path] = [sys.executable, "-m", "msrcache", "serve", path]
        self.process = start(f"replica {self.name}", argv, log=self.log, env=env)
        await until(self._ready, what=f"replica {self.name} to be ready", seconds=60)


@dataclass(slots=True)
class Front:
    """What stands before the store: passes everything, or refuses what would change it."""

    port: int
    socket: Path
    files: Mapping[str, Path]

    async def refuse(self, how: str, *, on: bool) -> None:
        """``denied`` (403) or ``full`` (507), to everybody."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        writer.write(f"{'add' if on else 'del'} acl {self.files[how]} 127.0.0.0/8\n".encode())
        writer.write_eof()
        said = (await reader.read()).decode().strip()
        writer.close()
        assert not said, said


@dataclass(slots=True)
class Fleet:
    """Everything that can be broken."""

    folder: Path
    registry: RunningRegistry
    store: RunningS3
    front: Front
    replicas: list[ClockedReplica]
    network: Network
    url: str = ""

    def to(self, what: str, replica: int | None = None) -> list[str]:
        """The wires of a replica, or of all: to upstream and store; to it from a peer, from the balancer (front)."""
        wanted = range(COUNT) if replica is None else [replica]
        return [f"{what}-{number + 1}" for number in wanted]

    def leases(self) -> list[str]:
        """Lease records in the store."""
        root = self.store.folder / BUCKET / "msrcache/leases"
        return (
            [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
            if root.is_dir()
            else []
        )

    def stored(self) -> Mapping[str, Path]:
        """The stored blobs by their digest."""
        root = self.store.folder / BUCKET / "docker/registry/v2/blobs/sha256"
        return {f"sha256:{path.parent.name}": path for path in root.glob("*/*/data")}

    def deleted(self, began: float) -> dict[str, list[float]]:
        """When each blob was deleted, by the store's own log: to the second, on the run's clock."""
        wall, now = time.time(), time.monotonic() - began
        today = time.localtime(wall)
        seconds = (today.tm_hour * 60 + today.tm_min) * 60 + today.tm_sec
        found: dict[str, list[float]] = {}
        for line in self.store.process.log.read_text(errors="replace").splitlines():
            if match := DELETED.match(line):
                hour, minute, second = map(int, match["time"].split(":"))
                ago = (seconds - (hour * 60 + minute) * 60 - second) % 86_400
                found.setdefault(f"sha256:{match['hex']}", []).append(now - wall % 1 - ago)
        return found

    def spooled(self) -> int:
        """Files in the spools."""
        return sum(len(list((self.folder / one.name).glob("spool/*.spool"))) for one in self.replicas)


FRONT = """
global
    stats socket {socket} mode 600 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend store
    bind 127.0.0.1:{port}
    http-request return status 403 content-type application/xml lf-string "<Error><Code>AccessDenied</Code></Error>" \
if {{ src -f {denied} }} METH_PUT or {{ src -f {denied} }} METH_POST or {{ src -f {denied} }} METH_DELETE
    http-request return status 500 content-type application/xml lf-string "<Error><Code>InternalError</Code>\
<Message>no space left on device</Message></Error>" \
if {{ src -f {full} }} METH_PUT or {{ src -f {full} }} METH_POST
    default_backend service
backend service
    server service 127.0.0.1:{service}
"""


@contextlib.asynccontextmanager
async def front(folder: Path, service: int) -> AsyncIterator[Front]:
    """A front before the store's port."""
    files = {how: folder / f"{how}.acl" for how in ("denied", "full")}
    for file in files.values():
        file.touch()
    made = Front(free_port(), folder / "front.sock", files)
    path = folder / "front.cfg"
    path.write_text(FRONT.format(socket=made.socket, port=made.port, service=service, **files))

    async def ready() -> bool:
        return await answers(f"http://127.0.0.1:{made.port}/")

    argv: list[str | Path] = [need("haproxy"), "-db", "-f", path]
    async with running("front", argv, ready=ready, log=folder / "front.log"):
        yield made


@contextlib.asynccontextmanager
async def balancer(folder: Path, ports: tuple[int, ...]) -> AsyncIterator[str]:
    """HAProxy with the sample's own file before the replicas; yields its URL."""
    port, path = free_port(), folder / "haproxy.cfg"
    changes = {"bind :5000": f"bind 127.0.0.1:{port}"}
    changes |= {f"{name}:5000": f"127.0.0.1:{at}" for name, at in zip(REPLICAS, ports, strict=True)}
    path.write_text(changed((FOLDER / "haproxy-http.cfg").read_text(), changes))
    url = f"http://127.0.0.1:{port}"

    async def ready() -> bool:
        return await answers(f"{url}/readyz", below=400)

    argv: list[str | Path] = [need("haproxy"), "-db", "-f", path]
    async with running("haproxy", argv, ready=ready, log=folder / "haproxy.log"):
        yield url


def _config(
    folder: Path, number: int, port: int, peer: int, wires: Mapping[str, int], store: RunningS3
) -> dict[str, object]:
    (folder / str(number)).mkdir()
    return {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {
            "s3": store.settings(BUCKET, port=wires[f"store-{number}"]),
            "redirect": {"disable": True},
            "delete": {"enabled": True},
        },
        "proxy": {"remoteurl": f"http://127.0.0.1:{wires[f'upstream-{number}']}", "ttl": TTL},
        "http": {
            "addr": f"127.0.0.1:{port}",
            "secret": "chaos-chaos-chaos-chaos",
            "relativeurls": True,
            "draintimeout": "20s",
            "headers": {"X-Replica": [str(number)]},
        },
        "cache": {
            "spool": {"path": str(folder / str(number) / "spool")},
            "peer": {
                "addr": f"127.0.0.1:{peer}",
                "advertise": f"127.0.0.1:{wires[f'peer-{number}']}",
            },
            "trusted": ["127.0.0.1"],
            "drain": {"delay": "3s"},
            "belief": "4s",
            "journal": "500ms",
            "expiry": {"interval": "2s"},
            "redirect": {"lifetime": "1s"},
            "upstream": {"stalltimeout": "20s"},
        },
    }


@contextlib.asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """Everything up and serving."""
    folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(registry(Kind.V3, folder / "upstream"))
        store = await stack.enter_async_context(versitygw(folder / "store"))
        store.make_bucket(BUCKET)
        before = await stack.enter_async_context(front(folder, store.port))
        ports = [(free_port(), free_port()) for _ in range(COUNT)]
        targets: dict[str, int] = {}
        for number, (port, peer) in enumerate(ports, 1):
            targets |= {
                f"upstream-{number}": upstream.port,
                f"store-{number}": before.port,
                f"peer-{number}": peer,
                f"front-{number}": port,
            }
        watched = [name for name in targets if name.startswith("upstream")]
        wires = await stack.enter_async_context(network(folder, targets, watched=watched))
        replicas = [
            ClockedReplica(str(number), folder, port, _config(folder, number, port, peer, wires.ports, store))
            for number, (port, peer) in enumerate(ports, 1)
        ]
        for one in replicas:
            stack.push_async_callback(one.stop)
        await asyncio.gather(*(one.start() for one in replicas))
        made = Fleet(folder, upstream, store, before, replicas, wires)
        fronts = tuple(wires.ports[name] for name in made.to("front"))
        made.url = await stack.enter_async_context(balancer(folder, fronts))
        yield made


def pause(pid: int, number: int) -> None:
    """Send a signal to a process that this run has started."""
    os.kill(pid, number)
