"""The wires of a run: started, and told what is wrong with them (`wire` does it, in a process of its own)."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.chaos.ledger import Body
from tests.chaos.wire import Spoil
from tests.stage.process import free_port, running
from tests.stage.tools import PROJECT


@dataclass(frozen=True, slots=True)
class Network:
    """Wires by their names; `ports` are where each is entered."""

    ports: Mapping[str, int]
    ledger: Path
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _turn: asyncio.Lock

    async def spoil(self, names: Sequence[str], spoil: Spoil) -> None:
        """Returns when these wires are as bad as that; a wire is spoilt in one way at a time."""
        async with self._turn:
            order = {"wires": list(names), "spoil": asdict(spoil)}
            self._writer.write(json.dumps(order).encode() + b"\n")
            assert await self._reader.readline() == b"done\n"

    @contextlib.asynccontextmanager
    async def spoilt(self, names: Sequence[str], spoil: Spoil) -> AsyncIterator[None]:
        """As bad as that inside."""
        await self.spoil(names, spoil)
        try:
            yield
        finally:
            await self.spoil(names, Spoil())

    def bodies(self) -> list[Body]:
        """What the watched services' answers have brought so far."""
        if not self.ledger.exists():
            return []
        return [Body(**json.loads(line)) for line in self.ledger.read_text().splitlines()]


@contextlib.asynccontextmanager
async def network(
    folder: Path, targets: Mapping[str, int], *, watched: Iterable[str] = ()
) -> AsyncIterator[Network]:
    """A wire before each of these ports; of those `watched` the bodies are written down."""
    folder.mkdir(parents=True, exist_ok=True)
    ledger, plan, path = folder / "ledger.jsonl", folder / "wires.json", folder / "wires.sock"
    ports = {name: free_port() for name in targets}
    seen = set(watched)
    wires = {
        name: {"front": ports[name], "target": port, "ledger": str(ledger) if name in seen else None}
        for name, port in targets.items()
    }
    plan.write_text(json.dumps({"socket": str(path), "wires": wires}))

    async def ready() -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(path))
        except OSError:
            return False
        writer.close()
        return True

    argv: list[str | Path] = [sys.executable, "-m", "tests.chaos.wire", plan]
    log, env = folder / "wires.log", {"PYTHONPATH": str(PROJECT)}
    async with running("wires", argv, ready=ready, log=log, env=env):
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            yield Network(ports, ledger, reader, writer, asyncio.Lock())
        finally:
            writer.close()
