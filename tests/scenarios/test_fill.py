"""Many clients and one fill: who fetches, who waits, who leaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msrcache.assembly import Application
from tests.scenarios.plays import cache, following, left_behind, pull, pulling, settled, stored
from tests.stage.images import noise
from tests.stage.scripted import Hold, Scripted, Turn, scripted

DATA = noise(300_000, 1)
K = 100_000


@asynccontextmanager
async def held(folder: Path, *, mode: str = "open") -> AsyncIterator[tuple[Scripted, Application, str, Hold]]:
    """A cache before an upstream that holds its one blob after byte k: both, the blob's path, and the hold."""
    async with scripted() as upstream, cache(folder, upstream, mode=mode) as application:
        path = upstream.publish_blob(DATA)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold))
        yield upstream, application, path, hold


async def test_a_cold_herd_costs_the_upstream_one_request(tmp_path: Path) -> None:
    """A hundred clients ask for one cold blob at once: one GET upstream, all get the right bytes."""
    async with held(tmp_path) as (upstream, application, path, hold):
        pulls = [asyncio.create_task(pull(application, path)) for _ in range(100)]
        await following(application, 100)
        hold.go.set()
        answers = await asyncio.gather(*pulls)
        assert {answer.status for answer in answers} == {200}
        assert all(answer.body == DATA for answer in answers)
        await settled(application)
        assert upstream.lines == [f"GET {path}"]
        assert stored(tmp_path, DATA) == DATA
        assert left_behind(tmp_path) == []


async def test_the_herds_callers_are_each_asked_about(tmp_path: Path) -> None:
    """Ten callers of their own credentials join a fill: the upstream is asked once for each, and fetched from once."""
    async with held(tmp_path, mode="upstream") as (upstream, application, path, hold):
        first = asyncio.create_task(pull(application, path, Authorization="Bearer opener"))
        await asyncio.wait_for(hold.reached.wait(), 20)
        others = [
            asyncio.create_task(pull(application, path, Authorization=f"Bearer {n}")) for n in range(10)
        ]
        await upstream.asked(11)
        hold.go.set()
        answers = await asyncio.gather(first, *others)
        assert all(answer.body == DATA for answer in answers)
        assert upstream.lines == [f"GET {path}"] + [f"HEAD {path}"] * 10
        asked = {request.authorization for request in upstream.ledger[1:]}
        assert asked == {f"Bearer {n}" for n in range(10)}


async def test_a_joiner_at_byte_k_gets_what_is_there_at_once(tmp_path: Path) -> None:
    """Who comes while the upstream holds at byte k gets the first k bytes before another one is sent."""
    async with held(tmp_path) as (upstream, application, path, hold):
        async with pulling(application, path) as first:
            assert await first.take(K) == DATA[:K]
            async with pulling(application, path) as joiner:
                assert joiner.headers["content-length"] == str(len(DATA))
                assert await joiner.take(K) == DATA[:K]
                hold.go.set()
                assert await joiner.rest() == DATA[K:]
            assert await first.rest() == DATA[K:]
        assert (first.headers["x-cache"], joiner.headers["x-cache"]) == ("miss", "joined")
        assert upstream.lines == [f"GET {path}"]


async def test_the_opener_may_leave(tmp_path: Path) -> None:
    """The client that opened the fill leaves at byte k: the joiner does not notice."""
    async with held(tmp_path) as (upstream, application, path, hold):
        async with pulling(application, path) as first, pulling(application, path) as joiner:
            await first.take(K)
            first.leave()
            hold.go.set()
            assert await joiner.rest() == DATA
        assert upstream.lines == [f"GET {path}"]


async def test_the_last_client_leaves_and_the_fill_completes(tmp_path: Path) -> None:
    """Nobody reads any more, the upstream goes on: the blob is stored, and the next pull is a hit."""
    async with held(tmp_path) as (upstream, application, path, hold):
        async with pulling(application, path) as only:
            await only.take(K)
            only.leave()
        hold.go.set()
        await settled(application)
        again = await pull(application, path)
        assert (again.body, again.headers["x-cache"]) == (DATA, "hit")
        assert upstream.lines == [f"GET {path}"]
        assert left_behind(tmp_path) == []


async def test_head_while_filling(tmp_path: Path) -> None:
    """HEAD of a blob on its way tells its size from the fill, without a request upstream or a byte waited for."""
    async with scripted() as upstream, cache(tmp_path, upstream) as application:
        path = upstream.publish_blob(DATA)
        hold = Hold(0)
        upstream.script(path, Turn(hold=hold))
        async with pulling(application, path) as first:
            head = await pull(application, path, method="HEAD")
            assert (head.status, head.headers["content-length"], head.body) == (200, str(len(DATA)), b"")
            hold.go.set()
            assert await first.rest() == DATA
        assert upstream.lines == [f"GET {path}"]


async def test_a_drain_lets_bodies_end(tmp_path: Path) -> None:
    """Draining while filling: the pull under way gets its last byte, a new connection is refused."""
    async with held(tmp_path) as (_, application, path, hold), pulling(application, path) as first:
        assert await first.take(K) == DATA[:K]
        draining = asyncio.create_task(application.service.drain())
        hold.go.set()
        assert await first.rest() == DATA[K:]
        await asyncio.wait_for(draining, 20)
    assert stored(tmp_path, DATA) == DATA, "leaving waits for what is all here and on its way into the store"
    assert left_behind(tmp_path) == []
