"""A network that misbehaves between the cache and a service: toxiproxy, one proxy in front of one port.

Its program is called `server` where Go builds it.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.stage.process import answers, free_port, running
from tests.stage.tools import need


@dataclass(frozen=True, slots=True)
class Toxic:
    """One proxy; bytes pass as they are until told otherwise."""

    port: int
    _session: aiohttp.ClientSession
    _api: str

    async def add(self, kind: str, attributes: Mapping[str, int], *, upstream: bool = False) -> None:
        """A toxic such as latency, timeout, reset_peer, limit_data; on what the service says, or (`upstream`)
        on what it is told.
        """
        stream = "upstream" if upstream else "downstream"
        toxic = {"name": kind, "type": kind, "stream": stream, "attributes": dict(attributes)}
        await self._ask("POST", f"{self._api}/toxics", toxic)

    async def remove(self, kind: str) -> None:
        """Bytes pass as they are again."""
        await self._ask("DELETE", f"{self._api}/toxics/{kind}")

    async def enable(self, *, up: bool) -> None:
        """Down, connections are cut and new ones refused."""
        await self._ask("POST", self._api, {"enabled": up})

    async def _ask(self, method: str, url: str, body: object = None) -> None:
        async with self._session.request(method, url, json=body) as answer:
            assert answer.status < 300, await answer.text()


@contextlib.asynccontextmanager
async def toxic(folder: Path, port: int) -> AsyncIterator[Toxic]:
    """A proxy in front of the loopback port."""
    folder.mkdir(parents=True, exist_ok=True)
    program, control, front = need("server"), free_port(), free_port()
    url = f"http://127.0.0.1:{control}"

    async def ready() -> bool:
        return await answers(f"{url}/version")

    argv: list[str | Path] = [program, "-host", "127.0.0.1", "-port", str(control)]
    async with (
        running("toxiproxy", argv, ready=ready, log=folder / "toxiproxy.log"),
        aiohttp.ClientSession() as session,
    ):
        proxy = {"name": "service", "listen": f"127.0.0.1:{front}", "upstream": f"127.0.0.1:{port}"}
        async with session.post(f"{url}/proxies", json=proxy) as answer:
            assert answer.status == 201, await answer.text()
        yield Toxic(front, session, f"{url}/proxies/service")
