"""The cache as its user starts it: `msrcache serve config.yml`, a process of its own on a free loopback port."""

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.stage.process import Process, answers, free_port, running


@dataclass(frozen=True, slots=True)
class RunningCache:
    """A cache that answers; `data` is its store, laid out as Docker Registry's."""

    host: str
    url: str
    data: Path
    process: Process

    @property
    def port(self) -> int:
        """The loopback port."""
        return int(self.host.rpartition(":")[2])

    @property
    def resident(self) -> int:
        """Bytes of memory that the process holds now."""
        return int(self._proc("statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def descriptors(self) -> int:
        """Files and sockets that it has open now."""
        return sum(1 for _ in self._proc("fd").iterdir())

    @property
    def workers(self) -> list[int]:
        """The pids of its workers, where it is their supervisor."""
        return [
            int(pid) for pid in (self._proc("task") / str(self.process.pid) / "children").read_text().split()
        ]

    def worker_of(self, client: int) -> int | None:
        """The worker that has the connection from this loopback port of a client; None: nobody has yet."""
        pair = [f"0100007F:{port:04X}" for port in (self.port, client)]
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
        sockets = {f"socket:[{row[9]}]" for row in rows if row[1:3] == pair}
        for pid in self.workers:
            with contextlib.suppress(FileNotFoundError):  # it, or one of its files, has just gone
                if any(str(fd.readlink()) in sockets for fd in Path(f"/proc/{pid}/fd").iterdir()):
                    return pid
        return None

    def _proc(self, name: str) -> Path:
        return Path("/proc") / str(self.process.pid) / name


@contextlib.asynccontextmanager
async def cache(
    folder: Path,
    upstream: Mapping[str, object],
    *,
    data: Path | None = None,
    settings: Mapping[str, object] | None = None,
    sections: Mapping[str, object] | None = None,
    tls: Mapping[str, object] | None = None,
    secret: str = "",
) -> AsyncIterator[RunningCache]:
    """A cache of one upstream (an entry of cache.upstreams); settings are added to the `cache` section, sections
    replace others, tls is http.tls, secret http.secret.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    store = data or folder / "data"
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(store)}},
        "http": {"addr": host, "tls": dict(tls or {}), **({"secret": secret} if secret else {})},
        # no load balancer has to notice that it leaves
        "cache": {"upstreams": [dict(upstream)], "drain": {"delay": "0s"}, **dict(settings or {})},
    } | dict(sections or {})
    path = folder / "cache.yml"
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML
    url = f"{'https' if tls else 'http'}://{host}"

    async def ready() -> bool:
        return await answers(f"{url}/v2/")

    argv: list[str | Path] = [sys.executable, "-m", "msrcache", "serve", path]
    async with running("msrcache", argv, ready=ready, log=folder / "cache.log") as process:
        yield RunningCache(host, url, store, process)
