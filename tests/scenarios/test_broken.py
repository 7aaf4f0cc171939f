"""The upstream breaks, lies or falls silent: no reader ever gets a wrong or short body that ends well."""

import asyncio
from pathlib import Path

import pytest

from tests.scenarios.plays import cache, following, left_behind, pull, pulling, settled, stored
from tests.stage.images import noise
from tests.stage.scripted import Hold, Scripted, Turn, scripted

DATA = noise(300_000, 2)
K = 120_000
QUICK = "  upstream: {retries: 1, retrybudget: 10s}\n"
STALLS = "  upstream: {retries: 1, retrybudget: 15s, stalltimeout: 1s}\n"
CORRUPT = DATA[:K] + bytes([DATA[K] ^ 1]) + DATA[K + 1 :]


async def cold(folder: Path, upstream: Scripted, *, more: str = QUICK) -> tuple[bytes, bool, int]:
    """One cold pull: what came, whether it was all that was promised, and its status."""
    async with cache(folder, upstream, more=more) as application:
        got = await pull(application, upstream.publish_blob(DATA))
        await settled(application)
    return got.body, got.whole, got.status


async def test_a_break_is_resumed_with_a_range(tmp_path: Path) -> None:
    """The body breaks at byte k: the rest is asked for from k, and the client sees nothing of it."""
    async with scripted() as upstream:
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(cut=K))
        assert await cold(tmp_path, upstream) == (DATA, True, 200)
        assert upstream.lines == [f"GET {path}", f"GET {path} bytes={K}-"]
        assert stored(tmp_path, DATA) == DATA


async def test_an_ignored_range_is_read_and_skipped(tmp_path: Path) -> None:
    """The upstream answers the Range with the whole: the bytes are right all the same."""
    async with scripted() as upstream:
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(cut=K), Turn(ranges=False))
        assert await cold(tmp_path, upstream) == (DATA, True, 200)
        assert upstream.lines == [f"GET {path}", f"GET {path} bytes={K}-"]
        assert stored(tmp_path, DATA) == DATA


async def test_another_upstream_gives_the_rest(tmp_path: Path) -> None:
    """One of two upstreams breaks and refuses to go on: the other gives the rest."""
    async with scripted() as one, scripted() as two:
        path = one.publish_blob(DATA)
        two.publish_blob(DATA)
        one.script(path, Turn(cut=K))
        one.always(path, Turn(status=503))
        two.script(path, Turn(cut=K))
        async with cache(tmp_path, one, two, more=QUICK) as application:
            got = await pull(application, path)
            await settled(application)
        assert (got.body, got.whole) == (DATA, True)
        resumed = [line for line in (*one.lines, *two.lines) if line.endswith(f"bytes={K}-")]
        assert resumed, "the rest was asked for from where it broke"
        assert stored(tmp_path, DATA) == DATA


async def test_what_cannot_be_resumed_is_cut(tmp_path: Path) -> None:
    """The upstream breaks at byte k and gives nothing more: the connection is cut, and the next fill goes on there."""
    async with scripted() as upstream, cache(tmp_path, upstream, more=QUICK) as application:
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(cut=K), Turn(status=503), Turn(status=503), Turn(status=503))
        upstream.always(path, Turn(status=503))
        got = await pull(application, path)
        await settled(application)
        assert (got.status, got.whole) == (200, False)
        assert got.body == DATA[: len(got.body)]
        assert stored(tmp_path, DATA) is None
        before = len(upstream.ledger)
        upstream.always(path, Turn())
        again = await pull(application, path)
        assert again.body == DATA
        assert upstream.lines[before:] == [f"GET {path} bytes={K - 1}-"]


@pytest.mark.parametrize(
    "turn",
    [
        pytest.param(Turn(body=CORRUPT), id="corrupt-byte"),
        pytest.param(Turn(body=DATA[:-1]), id="short"),
        pytest.param(Turn(body=DATA + b"!"), id="long"),
        pytest.param(Turn(body=DATA, length=len(DATA) - 7), id="length-too-small"),
        pytest.param(Turn(body=DATA, length=len(DATA) + 7), id="length-too-large"),
        pytest.param(Turn(body=CORRUPT[::-1]), id="other-content"),
    ],
)
async def test_a_wrong_body_never_ends_well(tmp_path: Path, turn: Turn) -> None:
    """Whatever is wrong with the bytes: the client's body is short of what was promised, and nothing is stored."""
    async with scripted() as upstream:
        path = upstream.publish_blob(DATA)
        upstream.always(path, turn)
        body, whole, status = await cold(tmp_path, upstream)
        assert status >= 500 or not whole
        assert body != DATA or not whole
        assert stored(tmp_path, DATA) is None
        assert left_behind(tmp_path) == [] or turn.length == len(DATA) + 7


async def test_an_empty_body_is_no_blob(tmp_path: Path) -> None:
    """200 with nothing in it for a digest of something: never a body that ends well."""
    async with scripted() as upstream:
        path = upstream.publish_blob(DATA)
        upstream.always(path, Turn(body=b""))
        _, whole, status = await cold(tmp_path, upstream)
        assert status >= 500 or not whole
        assert stored(tmp_path, DATA) is None


async def test_the_empty_blob_itself(tmp_path: Path) -> None:
    """The blob of no bytes is pulled, stored and hit like any other."""
    async with scripted() as upstream, cache(tmp_path, upstream) as application:
        path = upstream.publish_blob(b"")
        first = await pull(application, path)
        await settled(application)
        again = await pull(application, path)
        assert (first.status, first.body, first.whole) == (200, b"", True)
        assert (again.status, again.headers["x-cache"]) == (200, "hit")
        assert upstream.lines == [f"GET {path}"]


async def test_a_web_page_is_no_blob(tmp_path: Path) -> None:
    """A captive portal's HTML with status 200 is never stored nor given out as a whole blob."""
    async with scripted() as upstream:
        path = upstream.publish_blob(DATA)
        html = (("Content-Type", "text/html"),)
        upstream.always(path, Turn(body=b"<html>log in</html>", headers=html))
        _, whole, status = await cold(tmp_path, upstream)
        assert status >= 500 or not whole
        assert stored(tmp_path, DATA) is None


async def test_a_stall_is_a_break(tmp_path: Path) -> None:
    """The upstream falls silent at byte k: after the stall time-out the rest comes by Range."""
    async with scripted() as upstream:
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(hold=Hold(K)))
        assert await cold(tmp_path, upstream, more=STALLS) == (DATA, True, 200)
        assert upstream.lines == [f"GET {path}", f"GET {path} bytes={K}-"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_sick_moment_is_tried_again(tmp_path: Path, status: int) -> None:
    """429, 500 and 503 once: asked again, and the client sees a plain 200."""
    async with scripted() as upstream:
        path = upstream.publish_blob(DATA)
        upstream.script(path, Turn(status=status, headers=(("Retry-After", "0"),)))
        assert await cold(tmp_path, upstream) == (DATA, True, 200)
        assert upstream.lines == [f"GET {path}"] * 2


@pytest.mark.parametrize(("status", "told"), [(429, {429, 503}), (500, {503, 502}), (503, {503})])
async def test_an_outage_is_told_as_one(tmp_path: Path, status: int, told: set[int]) -> None:
    """An upstream that stays sick: the specification's error with a hint when to come back, nothing stored."""
    async with scripted() as upstream, cache(tmp_path, upstream, more=QUICK) as application:
        path = upstream.publish_blob(DATA)
        upstream.always(path, Turn(status=status))
        got = await pull(application, path)
        assert got.status in told
        assert b'"errors"' in got.body
        assert stored(tmp_path, DATA) is None


async def test_a_bucket_that_dies_is_asked_by_way_of_the_registry_again(tmp_path: Path) -> None:
    """The redirect's target breaks: the rest is had, and the bucket never sees the caller's credential."""
    async with scripted() as upstream, scripted() as bucket:
        path = upstream.publish_blob(DATA)
        bucket.publish_blob(DATA)
        there = Turn(status=307, body=b"", headers=(("Location", f"{bucket.url}{path}"),))
        upstream.always(path, there)
        bucket.script(path, Turn(cut=K))
        async with cache(tmp_path, upstream, mode="upstream", more=QUICK) as application:
            got = await pull(application, path, Authorization="Bearer secret")
            await settled(application)
        assert (got.body, got.whole) == (DATA, True)
        assert bucket.lines == [f"GET {path}", f"GET {path} bytes={K}-"]
        assert {request.authorization for request in upstream.ledger} == {"Bearer secret"}
        assert {request.authorization for request in bucket.ledger} == {""}


async def test_joiners_share_the_outage(tmp_path: Path) -> None:
    """The fill breaks for good with ten readers: every one is cut, none gets a whole body."""
    async with scripted() as upstream, cache(tmp_path, upstream, more=QUICK) as application:
        path = upstream.publish_blob(DATA)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold, cut=K + 1000))
        upstream.always(path, Turn(status=500))
        first = asyncio.create_task(pull(application, path))
        await asyncio.wait_for(hold.reached.wait(), 20)
        others = [asyncio.create_task(pull(application, path)) for _ in range(10)]
        async with pulling(application, path) as last:
            await last.take(K)
            await following(application, 12)
            hold.go.set()
            assert len(await last.rest()) < len(DATA) - K
        for got in await asyncio.gather(first, *others):
            assert not got.whole or got.status == 503
            assert got.status == 503 or got.body == DATA[: len(got.body)]
        assert stored(tmp_path, DATA) is None
