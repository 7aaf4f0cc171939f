"""A sick store: no pull fails or waits for it, everybody is told, and it heals without a restart."""

import asyncio
from pathlib import Path

import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import blob_key
from msrcache.inquiry import CannotStart
from msrcache.oci.digest import Digest
from msrcache.storage.errors import Denied, StorageError, Unavailable, Unusable
from msrcache.storage.memory import Contents, Memory
from tests.scenarios.plays import cache, port_of, pull, settled
from tests.stage.images import noise
from tests.stage.process import until
from tests.stage.scripted import scripted

DATA = noise(200_000, 7)
BREAKER = "  storage: {breaker: {failures: 2, open: 20ms}}\n"
SENTENCES: dict[str, StorageError] = {
    "expired": Unusable("inmemory", "k", None, "the credentials have expired; renew them"),
    "deleted": Unusable("inmemory", "k", None, "the bucket is gone"),
    "region": Unusable("inmemory", "k", None, "the bucket stands in another region"),
    "denied": Denied("inmemory", "k", None, "this account may not"),
    "busy": Unavailable("inmemory", "k", None, "SlowDown", retry_after=0.0),
}


class Sick:
    """Whatever is asked fails, from the moment and for the operations that the test says."""

    def __init__(self) -> None:
        self.error: StorageError | None = None
        self.calls: list[str] = []
        self.well = asyncio.Event()
        self.hangs = False

    async def before(self, operation: str, key: str) -> None:
        """As Faults."""
        self.calls.append(operation)
        if self.hangs:
            await self.well.wait()
        if self.error is not None:
            raise self.error

    async def after(self, operation: str, key: str) -> None:
        """As Faults."""


@pytest.fixture
def sick(monkeypatch: pytest.MonkeyPatch) -> Sick:
    """The store of the cache that is opened next."""
    faults, contents = Sick(), Contents()
    monkeypatch.setattr("msrcache.assembly.open_driver", lambda section: Memory(contents, faults=faults))
    return faults


def counted(application: Application, **labels: str) -> float:
    """Calls to the store so far."""
    name = "msrcache_storage_calls_total"
    return application.metrics.registry.get_sample_value(name, labels) or 0.0


async def back(application: Application, path: str) -> None:
    """Returns when the blob at the path is a hit again, and nothing is degraded any more."""

    async def well() -> bool:
        got = await pull(application, path)
        await settled(application)
        return got.headers["x-cache"] == "hit" and application.degraded() == {}

    await until(well, what="a store that is back")


@pytest.mark.parametrize("sickness", SENTENCES)
async def test_a_sickness_costs_no_pull_and_heals(tmp_path: Path, sick: Sick, sickness: str) -> None:
    """One sentence of the store's in readiness, counted; 200 throughout; then hits again, the same process."""
    async with scripted() as upstream, cache(tmp_path, upstream, more=BREAKER) as application:
        path = upstream.publish_blob(DATA)
        sick.error = SENTENCES[sickness]
        for _ in range(4):
            got = await pull(application, path)
            assert (got.status, got.body, got.whole) == (200, DATA, True)
            await settled(application)
        ready = await pull(application, "/readyz")
        assert ready.status == 200
        assert SENTENCES[sickness].message.encode() in ready.body
        assert counted(application, operation="open", result=SENTENCES[sickness].result) >= 2
        sick.error = None
        await back(application, path)


async def test_while_it_is_left_alone_no_pull_asks_it(tmp_path: Path, sick: Sick) -> None:
    """A store that hangs: pulls come and go, the store sees probes only, and nothing of them is written."""
    async with scripted() as upstream, cache(tmp_path, upstream, more=BREAKER) as application:
        path = upstream.publish_blob(DATA)
        sick.error = SENTENCES["busy"]
        await pull(application, path)
        await settled(application)
        sick.hangs = True
        skipped = counted(application, operation="open", result="skipped")
        async with asyncio.timeout(20):  # far below the store's own deadlines
            got = await asyncio.gather(*(pull(application, path) for _ in range(20)))
            await settled(application)
        assert all(answer.body == DATA for answer in got)
        assert counted(application, operation="open", result="skipped") > skipped
        assert "store" in application.degraded()
        before = len(sick.calls)
        await pull(application, path)
        assert set(sick.calls[before:]) <= {"stat"}  # the probe that is under way
        sick.error, sick.hangs = None, False
        sick.well.set()
        await back(application, path)


async def test_a_store_that_is_sick_at_the_start_heals_too(tmp_path: Path, sick: Sick) -> None:
    """Degraded from the first moment, ready all the same; well as soon as the store is."""
    sick.error = SENTENCES["expired"]
    async with scripted() as upstream, cache(tmp_path, upstream, more=BREAKER) as application:
        path = upstream.publish_blob(DATA)
        assert port_of(application)
        assert (await pull(application, path)).body == DATA
        await settled(application)
        assert "expired" in application.degraded()["store"]
        sick.error = None
        await back(application, path)


class Forgets(Sick):
    """Does not show what was committed, to anybody."""

    def __init__(self, contents: Contents) -> None:
        super().__init__()
        self.contents = contents

    async def after(self, operation: str, key: str) -> None:
        if operation == "commit":
            self.contents.objects.pop(key, None)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """The store of the cache that is opened next breaks read-after-write."""
    contents = Contents()
    faults = Forgets(contents)
    monkeypatch.setattr("msrcache.assembly.open_driver", lambda section: Memory(contents, faults=faults))
    return contents


async def test_a_broken_promise_is_told_from_the_start(tmp_path: Path, forgetful: Contents) -> None:
    """Ready and degraded, with what follows; the gauge is up; pulls are right."""
    async with scripted() as upstream, cache(tmp_path, upstream) as application:
        path = upstream.publish_blob(DATA)
        ready = await pull(application, "/readyz")
        assert ready.status == 200
        assert b"what was written is seen at once" in ready.body
        name, labels = "msrcache_storage_promise_broken", {"promise": "read-after-write"}
        assert application.metrics.registry.get_sample_value(name, labels) == 1
        assert (await pull(application, path)).body == DATA
        assert not [key for key in forgetful.objects if key.startswith("msrcache/probe")]


async def test_a_broken_promise_that_is_required_keeps_the_cache_from_starting(
    tmp_path: Path, forgetful: Contents
) -> None:
    """In one sentence; nothing is left open, and nothing in the store."""
    more = "  storage: {require: [read-after-write]}\n"
    async with scripted() as upstream:
        with pytest.raises(
            CannotStart, match=r"require asks for read-after-write, and the store does not keep it"
        ):
            async with cache(tmp_path, upstream, more=more):
                pytest.fail("it started")
    assert forgetful.objects == {}


async def test_a_store_that_hangs_at_the_start_is_not_waited_for(
    tmp_path: Path, sick: Sick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts degraded, even where promises are required: nothing is known to be broken."""
    monkeypatch.setattr("msrcache.assembly.PROVED_WITHIN", 0.01)
    sick.hangs = True
    more = "  storage: {require: [read-after-write]}\n"
    async with scripted() as upstream, cache(tmp_path, upstream, more=more) as application:
        assert "has not answered since the start" in application.degraded()["store"]
        assert (await pull(application, "/readyz")).status == 200
        sick.well.set()
        sick.hangs = False

        async def proved() -> bool:
            return application.degraded() == {}

        await until(proved, what="a store that was proved")


async def test_a_store_that_cannot_be_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes fail until they are skipped; what is there is a hit all the while."""
    contents = Contents()
    failing = asyncio.Event()

    class Unwritable(Sick):
        async def before(self, operation: str, key: str) -> None:
            if failing.is_set() and operation in {"put", "writer", "commit"}:
                raise SENTENCES["busy"]

    monkeypatch.setattr(
        "msrcache.assembly.open_driver", lambda section: Memory(contents, faults=Unwritable())
    )
    async with scripted() as upstream, cache(tmp_path, upstream, more=BREAKER) as application:
        there, absent = upstream.publish_blob(DATA), upstream.publish_blob(DATA[::-1])
        await pull(application, there)
        await settled(application)
        failing.set()
        for _ in range(4):
            assert (await pull(application, absent)).body == DATA[::-1]
            await settled(application)
            assert (await pull(application, there)).headers["x-cache"] == "hit"
        assert "SlowDown" in application.degraded()["store"]
        assert blob_key(Digest.of(DATA[::-1])) not in contents.objects
        failing.clear()
        await back(application, absent)
        assert contents.objects[blob_key(Digest.of(DATA[::-1]))].data == DATA[::-1]
