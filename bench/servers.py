"""Starts what is measured, each in a process group of its own, and reads what the group has used.

CPU is user and system time of all of a group's processes, from /proc; memory the sum of their peaks.
"""

import json
import os
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
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens."""

    name: str
    port: int
    tls: int  # a port, or 0
    popen: subprocess.Popen[bytes]

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

    def ask(self, path: str) -> bytes:
        """GET."""
        address = f"http://127.0.0.1:{self.port}{path}"
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
        self.pair = authority(folder / "ca").issue("bench")
        self._running: list[Running] = []
        self._made = 0

    def close(self) -> None:
        """End all that still run."""
        for one in self._running:
            if one.popen.poll() is None:
                one.stop()

    def upstream(self, data: Path) -> Running:
        """The counting upstream over a folder."""
        port = free_port()
        return self._start(
            "upstream", [sys.executable, "-m", "bench.upstream", str(port), str(data)], port, 0
        )

    def nginx(self, data: Path) -> Running:
        """nginx over a registry's folder."""
        port, tls = free_port(), free_port()
        config = self._config("nginx.conf", PORT=port, TLSPORT=tls, DATA=data)
        return self._start("nginx", [str(find("nginx")), "-c", str(config)], port, tls)

    def registry(
        self, program: str, data: Path, *, tls: bool = False, quiet: bool = False, proxy: str = ""
    ) -> Running:
        """docker-registry (2.8) or registry (3.1); as a pull-through cache where `proxy` names an upstream."""
        port = free_port()
        extra = (self._text("tls.yml") if tls else "") + (
            self._text("proxy.yml", UPSTREAM=proxy) if proxy else ""
        )
        config = self._config("registry.yml", PORT=port, DATA=data, EXTRA=extra, QUIET=str(quiet).lower())
        return self._start(program, [str(find(program)), "serve", str(config)], port, port if tls else 0)

    def cache(self, data: Path, upstream: Running, *, tls: bool = False, quiet: bool = False) -> Running:
        """msrcache with a store of its own."""
        port = free_port()
        values = {"EXTRA": self._text("tls.yml") if tls else "", "QUIET": str(quiet).lower()}
        config = self._config(
            "msrcache.yml", PORT=port, DATA=data, UPSTREAM=f"http://127.0.0.1:{upstream.port}", **values
        )
        return self._start(
            "msrcache", [sys.executable, "-m", "msrcache", "serve", str(config)], port, port if tls else 0
        )

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

    def _start(self, name: str, argv: list[str], port: int, tls: int) -> Running:
        log = self.folder / f"{name}-{port}.log"
        quiet: Mapping[str, str] = {"OTEL_TRACES_EXPORTER": "none"}
        with log.open("wb") as sink:
            popen = subprocess.Popen(
                argv, stdout=sink, stderr=sink, env={**os.environ, **quiet}, start_new_session=True
            )
        running = Running(name, port, tls, popen)
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
