"""Names are looked up off the loop, once for all who wait, and not forgotten while the name server is away."""

import asyncio
import socket
from dataclasses import dataclass, field

import pytest
from aiohttp.abc import ResolveResult

from msrcache.oci.errors import UpstreamUnavailable
from msrcache.upstream.resolver import RememberingResolver, open_resolver, system_resolver
from msrcache.upstream.settings import UpstreamSettings, UpstreamSettingsError
from tests.stage.clock import FakeClock
from tests.stage.serving import until
from tests.upstream.played import Say, blob_pull, played, upstream


def found(address: str) -> list[ResolveResult]:
    """One answer."""
    return [ResolveResult(hostname="h", host=address, port=1, family=socket.AF_INET, proto=6, flags=0)]


@dataclass(slots=True)
class Names:
    """A lookup that plays answers, the last again and again."""

    answers: list[list[ResolveResult] | OSError]
    asked: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        self.asked += 1
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


def remembering(*answers: list[ResolveResult] | OSError) -> tuple[RememberingResolver, Names, FakeClock]:
    """A resolver whose lookups are answered at once."""
    names, clock = Names(list(answers)), FakeClock()
    names.gate.set()
    return RememberingResolver(names, ttl=30, clock=clock), names, clock


async def test_remembered_for_its_time() -> None:
    """One lookup within the time, a new one after it."""
    resolver, names, clock = remembering(found("1.1.1.1"), found("2.2.2.2"))
    assert await resolver.resolve("h", 1) == found("1.1.1.1")
    clock.advance(29)
    assert await resolver.resolve("h", 1) == found("1.1.1.1")
    clock.advance(1)
    assert await resolver.resolve("h", 1) == found("2.2.2.2")
    assert names.asked == 2


async def test_the_last_known_address_while_the_name_server_is_away() -> None:
    """A failed lookup falls back on what was known, and asks again the next time."""
    resolver, names, clock = remembering(found("1.1.1.1"), OSError(None, "away"), found("2.2.2.2"))
    await resolver.resolve("h", 1)
    clock.advance(30)
    assert await resolver.resolve("h", 1) == found("1.1.1.1")
    assert await resolver.resolve("h", 1) == found("2.2.2.2")
    assert names.asked == 3


async def test_one_lookup_however_many_wait() -> None:
    """Equal questions at once are one; who leaves takes nothing from the others."""
    resolver, names, _ = remembering(found("1.1.1.1"))
    names.gate.clear()
    waiting = [asyncio.create_task(resolver.resolve("h", 1)) for _ in range(9)]
    await until(lambda: names.asked == 1)
    waiting[0].cancel()
    names.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [found("1.1.1.1")] * 8
    assert names.asked == 1


@pytest.mark.parametrize("answer", [OSError(None, "unknown"), []])
async def test_a_name_that_was_never_known(answer: list[ResolveResult] | OSError) -> None:
    """Raises, and is asked for again."""
    resolver, names, _ = remembering(answer)
    for _ in range(2):
        with pytest.raises(OSError, match=r"unknown|no address"):
            await resolver.resolve("h", 1)
    assert names.asked == 2


async def test_closing_stops_what_is_asked() -> None:
    """Nobody is left waiting."""
    resolver, names, _ = remembering(found("1.1.1.1"))
    names.gate.clear()
    waiting = asyncio.create_task(resolver.resolve("h", 1))
    await until(lambda: names.asked == 1)
    await resolver.close()
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)


async def test_the_systems_names() -> None:
    """localhost is what the system says; another name is an OSError."""
    resolver = system_resolver(ttl=30, clock=FakeClock())
    addresses = {result["host"] for result in await resolver.resolve("localhost", 80, socket.AF_INET)}
    assert addresses == {"127.0.0.1"}
    with pytest.raises(OSError, match=r".+"):
        await resolver.resolve("nowhere.invalid", 80)
    await resolver.close()


async def test_a_pull_by_name() -> None:
    """The whole way: a name, its address, an answer; and a name that does not exist, in words."""
    async with (
        played(lambda _: Say(body=b"abc")) as server,
        upstream(server, url=f"http://localhost:{server.port}") as client,
    ):
        assert (await client.resolve(blob_pull(b"abc"))).descriptor.size == 3
    async with upstream(server, url="http://nowhere.invalid") as client:
        with pytest.raises(UpstreamUnavailable, match=r"nowhere\.invalid:80 can't be found by its name"):
            await client.resolve(blob_pull(b"abc"))


@pytest.mark.parametrize("text", ["dns.example", "10.0.0.1:x", "10.0.0", "[::1", ""])
async def test_a_name_server_is_an_address(text: str) -> None:
    """A name for it could not be looked up."""
    with pytest.raises(UpstreamSettingsError, match="must be an address"):
        open_resolver(UpstreamSettings(url="http://x", resolver=(text,)), FakeClock())
