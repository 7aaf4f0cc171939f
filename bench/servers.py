"""Starts what is measured, each in a process group of its own, and reads what the group has used.

CPU is user and system time of all of a group's processes, from /proc; memory the sum of their peaks.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stage.certificates import authority
from tests.stage.process import free_port
from tests.stage.tools import find

PEERS = Path(__file__).parent / "peers"
Storage = Mapping[str, Mapping[str, object]]
"""A section `storage:` of config.yml, but for what all have."""
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens."""

    name: str
    port: int
    tls: int  # a port, or 0
    popen: subprocess.Popen[bytes]
    log: Path
    debug: int = 0  # a port, or 0

    @property
    def url(self) -> str:
        """Where it is pulled from: by TLS where it has that."""
        return f"https://localhost:{self.tls}" if self.tls else f"http://127.0.0.1:{self.port}"

    def logged(self) -> int:
        """Bytes of blobs that a registry's access log says were sent."""
        found = re.findall(r'"GET /v2/[^"]*/blobs/[^"]*" 20[06] (\d+) ', self.log.read_text())
        return sum(map(int, found))

    def cpu(self) -> float:
        """CPU seconds so far, of all its processes."""
        return sum(int(stat[11]) + int(stat[12]) for _, stat in _group(self.popen.pid)) / TICK

    def peak(self) -> float:
        """MiB of resident memory at most, all its processes summed."""
        total = 0
        for pid, _ in _group(self.popen.pid):
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(status.split("VmHWM:")[1].split()[0])
        return total / 1024

    def resident(self) -> float:
        """MiB of resident memory now, all its processes summed."""
        pages = sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid, _ in _group(self.popen.pid)
        )
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def ask(self, path: str, *, debug: bool = False) -> bytes:
        """GET."""
        address = f"http://127.0.0.1:{self.debug if debug else self.port}{path}"
        wanted = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        with urllib.request.urlopen(urllib.request.Request(address, headers=wanted), timeout=60) as answer:
            data: bytes = answer.read()
            return data

    def counts(self) -> dict[str, Any]:
        """What an upstream has been asked and has sent."""
        found: dict[str, Any] = json.loads(self.ask("/counts"))
        return found

    def stop(self) -> None:
        """End it."""
        self.popen.terminate()
        try:
            self.popen.wait(8)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


def _storage(data: Path | Storage, **more: object) -> str:
    """The `storage:` section's own lines."""
    section = {"filesystem": {"rootdirectory": str(data), **more}} if isinstance(data, Path) else data
    return "\n  ".join(f"{key}: {json.dumps(value)}" for key, value in section.items())


def _group(group: int) -> list[tuple[int, list[str]]]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat[2]) == group:
            found.append((int(entry.name), stat))
    return found


class Yard:
    """Starts servers below one folder, and ends all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority = authority(folder / "ca")
        self.pair = self._authority.issue("bench")
        self._running: list[Running] = []
        self._made = 0

    def close(self) -> None:
        """End all that still run."""
        for one in self._running:
            if one.popen.poll() is None:
                one.stop()

    def upstream(self, data: Path, *, rate: int = 0) -> Running:
        """The counting upstream over a folder; ``rate`` in bytes a second, to all together; 0: no limit."""
        port = free_port()
        argv = [sys.executable, "-m", "bench.upstream", str(port), str(data), str(rate)]
        return self._start("upstream", argv, port, 0)

    def origin(self, data: Path) -> Running:
        """A real registry over a folder, by https with a private CA, as an MSR is reached; of low priority."""
        return self.registry("registry", data, tls=True, nice=10)

    def nginx(self, data: Path) -> Running:
        """nginx over a registry's folder."""
        port, tls = free_port(), free_port()
        config = self._config("nginx.conf", PORT=port, TLSPORT=tls, DATA=data)
        return self._start("nginx", [str(find("nginx")), "-c", str(config)], port, tls)

    def registry(
        self,
        program: str,
        data: Path | Storage,
        *,
        tls: bool = False,
        quiet: bool = False,
        proxy: str = "",
        nice: int = 0,
    ) -> Running:
        """docker-registry (2.8) or registry (3.1); as a pull-through cache where `proxy` names an upstream."""
        port = free_port()
        extra = (self._text("tls.yml") if tls else "") + (
            self._text("proxy.yml", UPSTREAM=proxy) if proxy else ""
        )
        storage = _storage(data, maxthreads=100)
        config = self._config(
            "registry.yml", PORT=port, STORAGE=storage, EXTRA=extra, QUIET=str(quiet).lower()
        )
        argv = ["nice", "-n", str(nice), str(find(program)), "serve", str(config)]
        return self._start(program, argv, port, port if tls else 0)

    def cache(
        self,
        data: Path | Storage,
        upstream: Running,
        *,
        tls: bool = False,
        quiet: bool = False,
        local: Path | None = None,
        fleet: bool = False,
        workers: int = 1,
    ) -> Running:
        """msrcache with a store of its own; with a hot tier in `local`; as one of a `fleet` on that store."""
        port, debug, peer = free_port(), free_port() if fleet else 0, free_port() if fleet else 0
        tier = f"  local: {{path: {local}, size: 2GiB, admit: first}}" if local else ""
        config = self._config(
            "msrcache.yml",
            PORT=port,
            STORAGE=_storage(data),
            SPOOL=self.folder / f"spool-{port}",
            LOCAL=tier,
            UPSTREAM=upstream.url,
            TRUST=f', ca: ["{self._authority.bundle}"]' if upstream.tls else "",
            EXTRA=(self._text("tls.yml") if tls else "")
            + (self._text("fleet.yml", DEBUG=debug) if fleet else ""),
            PEER=f"  peer: {{addr: 127.0.0.1:{peer}}}" if fleet else "",
            WORKERS=workers,
            QUIET=str(quiet).lower(),
        )
        argv = [sys.executable, "-m", "msrcache", "serve", str(config)]
        return self._start("msrcache", argv, port, port if tls else 0, debug)

    def _text(self, name: str, **values: object) -> str:
        text = (PEERS / name).read_text()
        for key, value in {"CERTIFICATE": self.pair.certificate, "KEY": self.pair.key, **values}.items():
            text = text.replace(f"@{key}@", str(value))
        return text

    def _config(self, name: str, **values: object) -> Path:
        self._made += 1
        folder = self.folder / f"{self._made}"
        folder.mkdir()
        path = folder / name
        path.write_text(self._text(name, FOLDER=folder, **values))
        return path

    def _start(self, name: str, argv: list[str], port: int, tls: int, debug: int = 0) -> Running:
        log = self.folder / f"{name}-{port}.log"
        # distribution as a pull-through cache has no setting for a CA: Go's own variable is its way.
        quiet: Mapping[str, str] = {
            "OTEL_TRACES_EXPORTER": "none",
            "SSL_CERT_FILE": str(self._authority.bundle),
        }
        with log.open("wb") as sink:
            popen = subprocess.Popen(
                argv, stdout=sink, stderr=sink, env={**os.environ, **quiet}, start_new_session=True
            )
        running = Running(name, port, tls, popen, log, debug)
        self._running.append(running)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return running
            except OSError:
                if popen.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{name} did not start: {log.read_text()[-2000:]}") from None
                time.sleep(0.05)
