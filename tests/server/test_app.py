"""server.app: a process from start to drained."""

import asyncio
import resource
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.oci.registry import Chunk
from msrcache.server.admin import Health
from msrcache.server.binding import ListenFailed
from msrcache.server.settings import Limits, ServerSettings
from tests.server.test_deliver import url
from tests.stage.serving import RawClient, Served, serving, until

SOON = ServerSettings(drain_delay=0.0, drain_timeout=10.0)


class Held:
    """A body that stops in its middle until it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def body(self, span: Span) -> AsyncIterator[Chunk]:
        """As FakeRegistry's bodies."""
        yield b"x" * (span.size - 1)
        self.begun.set()
        await self.go.wait()
        yield b"x"


async def begin(served: Served, held: Held, size: int = 1000) -> RawClient:
    """A client in the middle of a body."""
    digest = served.registry.hold(b"x" * size, held.body)
    client = await served.connect()
    await client.send(f"GET {url(digest)} HTTP/1.1\r\nHost: a\r\n\r\n")
    await held.begun.wait()
    return client


async def test_draining_lets_bodies_end() -> None:
    """Unready first; idle connections and the listener close; the body under way ends whole, then its connection."""
    async with serving(SOON) as served:
        held = Held()
        busy, idle = await begin(served, held), await served.connect()
        assert (await idle.ask("/readyz")).status == 200
        draining = asyncio.create_task(served.service.drain())
        assert await idle.rest() == b""
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", served_port(served))
        assert not draining.done()
        held.go.set()
        assert (await busy.reply()).body == b"x" * 1000
        assert await busy.rest() == b""
        await draining
        assert served.count("connections") == 0


def served_port(served: Served) -> int:
    """The port that was listened on, when it is no more."""
    return int(served.clients[0].writer.get_extra_info("peername")[1])


async def test_during_the_delay_new_connections_are_served() -> None:
    """Load balancers need a moment: until then everything is answered, unready and with Connection: close."""
    async with serving(replace(SOON, drain_delay=600.0)) as served:
        idle = await served.connect()
        draining = asyncio.create_task(served.service.drain())
        await until(lambda: served.health.verdict()[0] == 503)
        late = await (await served.connect()).ask("/v2/")
        assert (late.status, late["Connection"]) == (200, "close")
        reply = await idle.ask("/readyz")
        assert (reply.status, b"draining" in reply.body, reply["Connection"]) == (503, True, "close")
        draining.cancel()


async def test_what_does_not_end_in_time_is_cut() -> None:
    """After the drain's time the rest is cut, counted, and never looks whole."""
    async with serving(replace(SOON, drain_timeout=0.05)) as served:
        client = await begin(served, Held())
        await served.service.drain()
        await served.service.close()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.reply()
        assert served.count("delivery_cut_total", reason="drain") == 1
        assert repr(served.service) == "<Service draining [0 requests, 0 connections]>"


async def test_before_the_start_it_is_not_ready() -> None:
    """Readiness tells starting from ready."""
    assert Health().verdict() == (503, {"status": "unready", "reason": "starting"})


async def test_the_prefix() -> None:
    """Everything of the registry below http.prefix, nothing beside it; health stays where balancers look."""
    async with serving(ServerSettings(prefix="/registry/")) as served:
        served.registry.hold_manifest("v1", b"{}")
        client = await served.connect()
        targets = ("/registry/v2/", "/registry/v2/a/manifests/v1", "/v2/", "/", "/registry/", "/registryv2/")
        statuses = [(await client.ask(target)).status for target in targets]
        assert statuses == [200, 200, 404, 200, 404, 404]


async def test_an_encoded_path_is_decoded_once(served: Served) -> None:
    """%61 is a; %2561 is not."""
    served.registry.hold_manifest("v1", b"{}")
    client = await served.connect()
    assert (await client.ask("/v2/te%61m/manifests/v1")).status == 200
    assert (await client.ask("/v2/te%2561m/manifests/v1")).status == 400
    assert (await client.ask("/v2/team%00/manifests/v1")).status == 400


async def test_a_long_path() -> None:
    """Path and query beyond their limit are 414, before anything is parsed."""
    async with serving(ServerSettings(limits=Limits(path=300))) as served:
        client = await served.connect()
        assert (await client.ask("/v2/?" + "a" * 290)).status == 200
        reply = await client.ask("/v2/?" + "a" * 300)
        assert (reply.status, b"longer than 300 bytes" in reply.body) == (414, True)


@pytest.mark.parametrize(
    "target", ["*", "http://cache.test", "v2/", "//", "/v2/../../etc/passwd", "/%2e%2e/"]
)
async def test_strange_targets(served: Served, target: str) -> None:
    """Whatever stands for the path: an answer in JSON below 500."""
    method = "OPTIONS" if target == "*" else "GET"
    client = await served.connect()
    await client.send(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n")
    reply = await client.reply()
    assert reply.status < 500
    assert reply["Content-Type"].startswith("application/json")


async def test_a_reload_changes_what_comes_next(served: Served) -> None:
    """Headers and limits are new for the next request on an old connection."""
    client = await served.connect()
    await client.ask("/v2/")
    headers = {"X-Content-Type-Options": ("nosniff",), "X-Two": ("a", "b")}
    await served.service.reload(
        ServerSettings(headers=headers, addr="127.0.0.1:1", limits=Limits(connections=1))
    )
    reply = await client.ask("/v2/")
    assert (reply["X-Content-Type-Options"], reply["X-Two"]) == ("nosniff", "a, b")
    assert (await (await served.connect()).reply()).status == 503


async def test_a_start_that_fails_leaves_nothing(served: Served, tmp_path: Path) -> None:
    """A debug address that is taken: one sentence, and the main address is free again."""
    path = tmp_path / "cache.sock"
    settings = ServerSettings(addr=str(path), net="unix", debug_addr=f"127.0.0.1:{served.port}")
    with pytest.raises(ListenFailed):
        async with serving(settings):
            pass
    assert not path.exists()


CROWD = """
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
crowd = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
print("here", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 19_000,
    reason="10,000 connections need a hard limit of 19,000 open files (ulimit -Hn)",
)
async def test_ten_thousand_idle_connections() -> None:
    """They are held, a pull beside them is served, and all go when the service drains."""
    async with serving(ServerSettings(limits=Limits(idle=600.0), drain_delay=0.0)) as served:
        crowd = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CROWD, str(served.port), "10000"), stdin=PIPE, stdout=PIPE
        )
        assert crowd.stdout is not None
        try:
            assert await crowd.stdout.readline() == b"here\n"
            await until(lambda: served.count("connections") == 10_000)
            assert (await (await served.connect()).ask("/v2/")).status == 200
            await served.service.drain()
            await until(lambda: served.count("connections") == 0)
        finally:
            await crowd.communicate(b"")
