"""A service on the loopback for tests, and raw clients that say exactly what they mean."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from msrcache.server.admin import Health
from msrcache.server.app import Service, Surroundings
from msrcache.server.settings import ServerSettings
from msrcache.telemetry.accesslog import AccessRecord
from msrcache.telemetry.metrics import Metrics
from tests.stage.fakes import FakeRegistry, OpenGate

DEADLINE = 20.0


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; TimeoutError where it does not in time."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.002)


@dataclass(slots=True)
class Records:
    """An access log that keeps its records."""

    kept: list[AccessRecord] = field(default_factory=list)

    def write(self, record: AccessRecord) -> None:
        """As AccessSink.write."""
        self.kept.append(record)


@dataclass(slots=True)
class Reply:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, list[str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        return ", ".join(self.headers[name.lower()])

    def get(self, name: str) -> str | None:
        """The header's values in one, or None."""
        values = self.headers.get(name.lower())
        return None if values is None else ", ".join(values)


@dataclass(slots=True)
class RawClient:
    """One connection; sends bytes and reads answers."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, target: str, *, method: str = "GET", headers: str = "") -> Reply:
        """One request, one answer."""
        await self.send(f"{method} {target} HTTP/1.1\r\nHost: cache.test\r\n{headers}\r\n")
        return await self.reply(head=method == "HEAD")

    async def send(self, text: str | bytes) -> None:
        """Send exactly this."""
        self.writer.write(text.encode() if isinstance(text, str) else text)
        await self.writer.drain()

    async def reply(self, *, head: bool = False) -> Reply:
        """Read one answer; IncompleteReadError or ConnectionError where it was cut."""
        status, headers = await self.heading()
        length = int(headers.get("content-length", ["0"])[0])
        no_body = head or status in (204, 304)
        async with asyncio.timeout(DEADLINE):
            body = b"" if no_body else await self.reader.readexactly(length)
        return Reply(status, headers, body)

    async def heading(self) -> tuple[int, dict[str, list[str]]]:
        """Read status and headers only."""
        async with asyncio.timeout(DEADLINE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers: dict[str, list[str]] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            headers.setdefault(name.lower(), []).append(value.strip())
        return int(lines[0].split(" ")[1]), headers

    async def rest(self) -> bytes:
        """All that still comes until the connection ends, however it ends."""
        found = b""
        async with asyncio.timeout(DEADLINE):
            try:
                while data := await self.reader.read(1 << 20):
                    found += data
            except ConnectionError:
                pass
        return found

    async def close(self) -> None:
        """Leave."""
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


@dataclass(slots=True)
class Served:
    """A running service with all that surrounds it."""

    service: Service
    registry: FakeRegistry
    gate: OpenGate
    metrics: Metrics
    health: Health
    records: Records
    clients: list[RawClient] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The main listener's port."""
        return int(self.service.addresses[0].rpartition(":")[2])

    async def connect(self, context: ssl.SSLContext | None = None, *, limit: int = 1 << 20) -> RawClient:
        """A client; closed with the stage."""
        name = "localhost" if context else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=name, limit=limit
        )
        client = RawClient(reader, writer)
        self.clients.append(client)
        return client

    def count(self, name: str, **labels: str) -> float:
        """A sample of the metrics, 0 where it was never counted."""
        return self.metrics.registry.get_sample_value(f"msrcache_{name}", labels) or 0.0


@asynccontextmanager
async def serving(
    settings: ServerSettings | None = None,
    *,
    registry: FakeRegistry | None = None,
    gate: OpenGate | None = None,
    health: Health | None = None,
) -> AsyncIterator[Served]:
    """A service on a free port of the loopback; everything is closed on leaving."""
    served = Served(
        service=None,  # type: ignore[arg-type]
        registry=registry or FakeRegistry(),
        gate=gate or OpenGate(),
        metrics=Metrics(),
        health=health or Health(),
        records=Records(),
    )
    around = Surroundings(metrics=served.metrics, health=served.health, access_log=served.records)
    served.service = Service(served.registry, served.gate, settings or ServerSettings(), around)
    await served.service.start()
    try:
        yield served
    finally:
        await served.service.close()
        for client in served.clients:
            await client.close()
