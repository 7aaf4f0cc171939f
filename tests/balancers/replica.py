"""A replica that can be told to leave and come back at the same address, as an orchestrator does with it."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from tests.stage.process import Process, listens, start, until

STRANGER: Final = "127.0.0.2"
"""Speaks for itself even where the load balancer, 127.0.0.1, begins with a PROXY header."""


@dataclass(slots=True)
class Replica:
    """A cache process of its own; it says its name in every answer (X-Replica)."""

    name: str
    folder: Path
    port: int
    config: Mapping[str, object]
    tls: bool = False
    process: Process | None = field(default=None)

    @property
    def log(self) -> Path:
        """What it says, of all its lives."""
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """Come up, again or for the first time; returns when it is ready."""
        path = self.folder / f"{self.name}.yml"
        path.write_text(json.dumps(self.config, indent=1))  # JSON is YAML
        argv: list[str | Path] = [sys.executable, "-m", "msrcache", "serve", path]
        self.process = start(f"replica {self.name}", argv, log=self.log)
        await until(self._ready, what=f"replica {self.name} to be ready", seconds=60)

    async def _ready(self) -> bool:
        assert self.process is not None
        assert not self.process.ended, self.process.said()
        url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/readyz"
        connector = aiohttp.TCPConnector(local_addr=(STRANGER, 0))
        timeout = aiohttp.ClientTimeout(total=5)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(url, ssl=False) as answer,
            ):
                return answer.status == 200
        except (OSError, aiohttp.ClientError, TimeoutError):
            return False

    def leave(self) -> None:
        """SIGTERM, as every orchestrator says it."""
        assert self.process is not None
        self.process.popen.terminate()

    async def closed(self) -> None:
        """Returns when it takes no more connections."""

        async def away() -> bool:
            return not await listens(self.port)

        await until(away, what=f"the listener of {self.name} to close", seconds=60)

    async def ended(self) -> int:
        """Its exit code, once it has left by itself."""
        assert self.process is not None
        return await self.process.wait(60)

    async def stop(self) -> None:
        """Gone at once, whatever it is doing."""
        if self.process is not None and not self.process.ended:
            self.process.kill()

    def served(self) -> list[dict[str, object]]:
        """Its access log."""
        said, _, _ = self.log.read_text(errors="replace").rpartition(
            "\n"
        )  # the last line may be half written
        lines = [line for line in said.splitlines() if line.startswith("{")]
        return [entry for line in lines if "path" in (entry := json.loads(line))]
