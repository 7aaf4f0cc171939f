"""The access log of the whole cache, as JSON: who was served what, how, and which upstream had a part in it."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

from tests.scenarios.plays import pull, pulling
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.images import noise
from tests.stage.process import until
from tests.stage.scripted import Hold, Scripted, Turn, scripted

DATA = noise(300_000, 11)
K = 100_000
JSON = {"log": {"formatter": "json", "level": "warn"}}
Line = Mapping[str, object]


def lines(running: RunningCache, path: str) -> list[Line]:
    """The access lines about this path so far."""
    said, _, _ = running.process.said(1_000_000).rpartition("\n")  # the last line may be half written
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line for line in found if line.get("path") == path]


async def written(running: RunningCache, path: str, count: int) -> list[Line]:
    """The access lines about this path, once there are so many."""

    async def there() -> bool:
        return len(lines(running, path)) >= count

    await until(there, what=f"{count} access lines of {path}")
    return lines(running, path)


def named(upstream: Scripted) -> str:
    """As messages, metrics and the log name it."""
    return f"127.0.0.1:{upstream.port}"


async def test_the_upstream_of_a_miss_of_a_joiner_and_of_no_hit(tmp_path: Path) -> None:
    """A fill's opener and who joins it are served by its upstream; a hit that asks nobody names none."""
    async with (
        scripted() as upstream,
        cache(
            tmp_path, {"url": upstream.url}, settings={"access": {"mode": "open"}}, sections=JSON
        ) as running,
    ):
        port = running.port
        path = upstream.publish_blob(DATA)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold))
        async with pulling(port, path) as first, pulling(port, path) as joiner:
            await first.take(K)
            await joiner.take(K)
            hold.go.set()
            await asyncio.gather(first.rest(), joiner.rest())
        await written(running, path, 2)
        assert (await pull(port, path)).headers["x-cache"] in {"hit", "joined"}
        found = {line["outcome"]: line.get("upstream", "") for line in await written(running, path, 3)}
        while "hit" not in found:  # the third came while the fill was still publishing
            await pull(port, path)
            found = {line["outcome"]: line.get("upstream", "") for line in lines(running, path)}
        assert found == {"miss": named(upstream), "joined": named(upstream), "hit": ""}


async def test_a_refusal_names_who_refused_and_a_question_whom_it_was_put_to(tmp_path: Path) -> None:
    """401 of the upstream, and a hit whose caller had to be asked about: both name the upstream."""
    async with scripted() as upstream, cache(tmp_path, {"url": upstream.url}, sections=JSON) as running:
        port = running.port
        path = upstream.publish_blob(DATA)
        upstream.guard = lambda request: None if request.authorization else Turn(status=401)
        assert (await pull(port, path)).status == 401
        (refused,) = await written(running, path, 1)
        assert (refused["status"], refused["upstream"]) == (401, named(upstream))
        for who in ("alice", "bob"):
            assert (await pull(port, path, Authorization=f"Bearer {who}")).body == DATA
        told = await written(running, path, 3)
        assert [line["upstream"] for line in told] == [named(upstream)] * 3


async def test_a_body_that_went_on_elsewhere_names_both(tmp_path: Path) -> None:
    """The first upstream breaks for good at byte k and the second gives the rest: both had a part in it."""
    async with scripted() as one, scripted() as two:
        path = one.publish_blob(DATA)
        two.publish_blob(DATA)
        settings = {
            "upstreams": [{"url": one.url}, {"url": two.url}],
            "upstream": {"retries": 1, "retrybudget": "15s"},
            "access": {"mode": "open"},
        }
        for upstream in (one, two):  # whichever is asked first breaks, and then refuses to go on
            upstream.script(path, Turn(cut=K), Turn(status=503), Turn(status=503))
        async with cache(tmp_path, {"url": one.url}, settings=settings, sections=JSON) as running:
            port = running.port
            await pull(port, path)
            (line,) = await written(running, path, 1)
            assert set(str(line["upstream"]).split(",")) == {named(one), named(two)}
