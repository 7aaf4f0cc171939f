"""Google Cloud Storage that misbehaves: no pull fails, what is wrong is one sentence, and it heals by itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.assembly import Application
from tests.scenarios.plays import pull, pulling, settled
from tests.scenarios.test_gcs_store import BUCKET, back, replica
from tests.stage.gcsfront import refusal
from tests.stage.gcsservices import RunningGcs, fakegcs
from tests.stage.googleaccount import denied
from tests.stage.images import noise
from tests.stage.scripted import Hold, Scripted, Turn, scripted
from tests.stage.toxics import Toxic, toxic

pytestmark = pytest.mark.real

DATA = noise(300_000, 8)


@asynccontextmanager
async def played(folder: Path) -> AsyncIterator[tuple[Scripted, RunningGcs, Toxic, Application]]:
    """Upstream, service, the network between it and the cache, and the cache."""
    async with (
        scripted() as upstream,
        fakegcs(folder / "gcs") as service,
        toxic(folder / "toxic", service.port) as network,
    ):
        await service.make_bucket(BUCKET)
        async with replica(folder, service, upstream, port=network.port) as application:
            assert application.degraded() == {}
            yield upstream, service, network, application


async def test_a_service_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """Cut off in the middle of a fill and of a hit, refused for a while, then there again."""
    async with played(tmp_path) as (upstream, service, network, application):
        there, coming = upstream.publish_blob(DATA), upstream.publish_blob(DATA[::-1])
        await pull(application, there)
        await settled(application)
        hold = Hold(100_000)
        upstream.script(coming, Turn(hold=hold))
        async with pulling(application, coming) as filling:
            await filling.take(100_000)
            await network.enable(up=False)
            for _ in range(3):
                got = await pull(application, there)
                assert (got.status, got.body, got.whole) == (200, DATA, True)
                assert got.headers["x-cache"] != "hit"
            hold.go.set()
            assert await filling.rest() == DATA[::-1][100_000:]
        await settled(application)
        assert "store" in application.degraded()
        await network.enable(up=True)
        await back(application, there)
        await back(application, coming)
        assert service.front.open_sessions == []


async def test_a_service_that_is_busy(tmp_path: Path) -> None:
    """429 and 503 for a while, with Retry-After: the bytes come from the upstream, then from the store again."""
    async with played(tmp_path) as (upstream, service, _, application):
        path = upstream.publish_blob(DATA)
        for status, reason in ((429, "rateLimitExceeded"), (503, "backendError")):
            service.front.turn = lambda line, status=status, reason=reason: (  # type: ignore[misc]
                None if line == "token" else refusal(status, reason, "later", Retry_After="0")
            )
            for _ in range(3):
                got = await pull(application, path)
                assert (got.status, got.body, got.whole) == (200, DATA, True)
                await settled(application)
            assert reason in application.degraded()["store"]
            service.front.turn = lambda line: None
            await back(application, path)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: refusal(503, "backendError", "away"), "no token: the token service"),
        (
            lambda: denied("invalid_grant", "Invalid grant: account not found"),
            "the service account is not there",
        ),
    ],
    ids=["away", "no-account"],
)
async def test_no_token_is_one_sentence_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: object, words: str
) -> None:
    """Tokens are refused and no new one is given: pulls go on, readiness says why, and it heals by itself."""
    monkeypatch.setattr("msrcache.storage.gcsidentity.PAUSE", 1.0)
    assert callable(answer)
    async with played(tmp_path) as (upstream, service, _, application):
        path = upstream.publish_blob(DATA)
        service.front.tokens.given.clear()
        service.front.turn = lambda line: answer() if line == "token" else None
        for _ in range(3):
            assert (await pull(application, path)).body == DATA
            await settled(application)
        assert words in application.degraded()["store"]
        service.front.turn = lambda line: None
        await back(application, path)


async def test_a_deleted_bucket_is_one_sentence_and_heals(tmp_path: Path) -> None:
    """Somebody deletes the bucket under the cache, and makes it again: nothing is restarted."""
    async with played(tmp_path) as (upstream, service, _, application):
        path = upstream.publish_blob(DATA)
        await service.remove_bucket(BUCKET)
        for _ in range(3):
            assert (await pull(application, path)).body == DATA
            await settled(application)
        assert f"there is no bucket {BUCKET}; create it" in application.degraded()["store"]
        await service.make_bucket(BUCKET)
        await back(application, path)
