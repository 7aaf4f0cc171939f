"""A real OpenStack Swift: proxy, account, container and object server over three devices in a folder, and memcached.

Its own authentication (tempauth) knows three users: one that owns the account, one that may only what a container lets
it, and one that may nothing. Every request is noted before it is answered, at the proxy and at the object server.
"""

import asyncio
import contextlib
import itertools
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from msrcache.storage.swift import Swift
from msrcache.storage.swiftparameters import parameters
from tests.stage.process import Process, answers, free_port, listens, running
from tests.stage.swiftconfig import configure
from tests.stage.tools import PROJECT, absent, cache_folder, need

USER, KEY = "test:tester", "testing"
GUEST, GUEST_KEY = "test:guest", "guesting"
STRANGER, STRANGER_KEY = "test:stranger", "stranging"
USERS = {USER: f"{KEY} .admin", GUEST: GUEST_KEY, STRANGER: STRANGER_KEY}

_numbers = itertools.count(1)


def swift_python() -> Path:
    """The Python of Swift's environment; skips or fails the test where it is absent."""
    pins = (PROJECT / "scripts" / "swift-constraints.txt").read_text().split()
    version = next(pin.partition("==")[2] for pin in pins if pin.startswith("swift=="))
    folder = cache_folder() / f"swift-{version}"
    if not (folder / "bin" / "swift-proxy-server").exists():
        absent("OpenStack Swift is not installed: run scripts/test-deps")
    return folder / "bin" / "python"


@dataclass(frozen=True, slots=True)
class RunningSwift:
    """A Swift that answers."""

    port: int
    folder: Path
    proxy: Process
    memcached: int
    """Its port."""
    account: str = "AUTH_test"
    _seen: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of the whole service."""
        return f"http://127.0.0.1:{self.port}"

    def settings(self, container: str, *, port: int | None = None, **more: object) -> dict[str, object]:
        """What stands below `storage: swift:`; `port` is that of a proxy in front."""
        authurl = f"http://127.0.0.1:{port or self.port}/auth/v1.0"
        return {"authurl": authurl, "username": USER, "password": KEY, "container": container, **more}

    def driver(self, container: str, *, port: int | None = None, **more: object) -> Swift:
        """A driver of our own on a container of it."""
        return Swift(parameters(self.settings(container, port=port, **more)))

    def requests(self, *, server: str = "proxy") -> list[str]:
        """`METHOD path` of what a server was asked since the last look, in order, without authentication."""
        lines = (self.folder / f"{server}.ledger").read_text().splitlines()
        new = lines[self._seen.get(server, 0) :]
        self._seen[server] = len(lines)
        return [line.replace(f"/v1/{self.account}", "") for line in new if "/auth/v1" not in line]

    def forget_tokens(self) -> None:
        """As after a restart of what keeps them: every token is refused from now on."""
        command = f"printf 'flush_all\\r\\nquit\\r\\n' > /dev/tcp/127.0.0.1/{self.memcached}"
        subprocess.run(["bash", "-c", command], check=True)

    def device(self, number: int, *, up: bool) -> None:
        """Take one of three devices away, or bring it back with what it had."""
        here, away = (self.folder / "devices" / f"{name}{number}" for name in ("d", "away"))
        source, target = (away, here) if up else (here, away)
        source.rename(target)

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, data: bytes | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """A request of the account's owner, path below the account."""
        async with aiohttp.ClientSession() as session:
            named = {"X-Auth-User": USER, "X-Auth-Key": KEY}
            async with session.get(f"{self.url}/auth/v1.0", headers=named) as granted:
                token = granted.headers["X-Auth-Token"]
            url, said = f"{self.url}/v1/{self.account}{path}", {"X-Auth-Token": token, **(headers or {})}
            async with session.request(method, url, headers=said, data=data) as answer:
                return answer.status, answer.headers, await answer.read()

    async def make_container(self, name: str = "", **headers: str) -> str:
        """A new container."""
        name = name or f"container-{next(_numbers)}"
        status, _, _ = await self.ask("PUT", f"/{name}", headers=headers)
        assert status in (201, 202)
        return name

    async def names(self, container: str, below: str = "") -> list[str]:
        """The objects of a container."""
        _, _, body = await self.ask("GET", f"/{container}?prefix={below}")
        return body.decode().split()


@contextlib.asynccontextmanager
async def swift(folder: Path, *, token_life: int = 86_400) -> AsyncIterator[RunningSwift]:
    """All of it, ready."""
    python, memcached = swift_python(), need("memcached")
    ports = {name: free_port() for name in ("memcached", "account", "container", "object", "proxy")}
    configure(folder, python, ports, users=USERS, token_life=token_life)
    programs = python.parent
    env = {"PYTHONPATH": str(folder / "etc"), "PYTHONDONTWRITEBYTECODE": "1"}
    async with AsyncExitStack() as stack:

        async def started(name: str, argv: Sequence[str | Path]) -> Process:
            async def ready() -> bool:
                if name == "memcached":
                    return await listens(ports[name])
                return await answers(f"http://127.0.0.1:{ports[name]}/healthcheck")

            log = folder / f"{name}.log"
            return await stack.enter_async_context(running(name, argv, ready=ready, log=log, env=env))

        port = str(ports["memcached"])
        starting = [
            started("memcached", [memcached, "-u", "root", "-l", "127.0.0.1", "-p", port, "-m", "64"])
        ]
        for kind in ("account", "container", "object", "proxy"):
            program, conf = programs / f"swift-{kind}-server", folder / "etc" / f"{kind}-server.conf"
            starting.append(started(kind, [python, program, conf]))
        *_, process = await asyncio.gather(*starting)
        yield RunningSwift(ports["proxy"], folder, process, ports["memcached"])
