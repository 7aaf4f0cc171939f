"""server.admin: health, metrics, fills."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from msrcache.config.registry import FileCheckSection, HealthSection
from msrcache.server.admin import Health
from msrcache.server.checks import Checks
from msrcache.server.settings import ServerSettings
from tests.stage.serving import RawClient, Served, serving, until


@pytest.mark.parametrize("target", ["/", "/readyz"])
async def test_ready(served: Served, target: str) -> None:
    """200, not to be remembered by anybody."""
    reply = await (await served.connect()).ask(target)
    assert (reply.status, reply["Cache-Control"]) == (200, "no-cache")
    assert json.loads(reply.body) == {"status": "ready"}


async def test_sick_is_not_unready() -> None:
    """A store that is away makes a slow cache: 200 with the reason."""
    health = Health(degraded=lambda: {"store": "read-only file system"})
    async with serving(health=health) as served:
        reply = await (await served.connect()).ask("/readyz")
        assert reply.status == 200
        assert json.loads(reply.body) == {"status": "ready", "degraded": {"store": "read-only file system"}}


async def test_the_operators_check_makes_unready(tmp_path: Path) -> None:
    """A file that must not be: 503 while it is, 200 again when it has gone; alive all the time, and pulls go on."""
    path = tmp_path / "maintenance"
    section = HealthSection(file=(FileCheckSection(file=str(path), interval=0.1),))
    async with serving(health=Health(checks=Checks(section))) as served:
        client = await served.connect()
        path.touch()
        await until(lambda: served.health.verdict()[0] == 503)
        reply = await client.ask("/readyz")
        assert (reply.status, json.loads(reply.body)["failing"]) == (503, {str(path): "file exists"})
        assert (await client.ask("/healthz")).status == (await client.ask("/v2/")).status == 200
        path.unlink()
        await until(lambda: served.health.verdict()[0] == 200)


@pytest.fixture
async def aside() -> AsyncIterator[tuple[Served, RawClient]]:
    """A service with a debug listener, and a client of that."""
    health = Health(fills=lambda: [{"digest": "sha256:aa", "bytes": 7}], fleet=lambda: {"replicas": []})
    async with serving(ServerSettings(debug_addr="127.0.0.1:0"), health=health) as served:
        host, _, port = served.service.aside_addresses[0].rpartition(":")
        import asyncio

        client = RawClient(*await asyncio.open_connection(host, int(port)))
        served.clients.append(client)
        yield served, client


async def test_the_debug_listener(aside: tuple[Served, RawClient]) -> None:
    """Health, metrics, fills and vitals; not the registry."""
    _, client = aside
    assert json.loads((await client.ask("/debug/fills")).body) == [{"digest": "sha256:aa", "bytes": 7}]
    assert json.loads((await client.ask("/debug/fleet")).body) == {"replicas": []}
    assert json.loads((await client.ask("/debug/health")).body) == {}
    assert {"version", "pid", "uptime_seconds", "connections", "state"} <= set(
        json.loads((await client.ask("/debug/vars")).body)
    )
    assert b"msrcache_pulls_total" in (await client.ask("/metrics")).body
    assert (await client.ask("/readyz")).status == 200
    assert (await client.ask("/v2/")).status == 404


async def test_debug_pages_are_not_public(served: Served) -> None:
    """Nothing of /debug on the main listener; /metrics only where configured; all read-only."""
    client = await served.connect()
    for target in ("/debug/fills", "/debug/fleet", "/debug/vars", "/debug/health"):
        assert (await client.ask(target)).status == 404
    reply = await client.ask("/metrics")
    assert reply["Content-Type"].startswith("text/plain; version=0.0.4")
    assert (await client.ask("/readyz", method="DELETE")).status == 405
    assert (await client.ask("/metrics", method="HEAD")).body == b""
    async with serving(ServerSettings(metrics_on_main=False)) as other:
        assert (await (await other.connect()).ask("/metrics")).status == 404
