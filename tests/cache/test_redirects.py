"""Redirects: who is sent to the storage service, by what URL, and what that costs the store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

import pytest

from msrcache.cache.layout import blob_key
from msrcache.cache.presence import Presence
from msrcache.cache.redirects import Clients, Redirects, RedirectSettings, Way, endpoint_for
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository
from msrcache.oci.pulls import BlobPull, Pull
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import Credential
from msrcache.storage.errors import NotFound, StorageError
from msrcache.storage.memory import Contents
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics
from tests.cache.kitchen import Sickness, blob_pull
from tests.stage.bucket import Bucket, Signing
from tests.stage.clock import FakeClock

DATA = b"0123456789" * 10
DIGEST = Digest.of(DATA)
KEY = blob_key(DIGEST)
OFFICE, LAB, HOME = "10.1.2.3", "192.0.2.7", "203.0.113.9"
CLIENTS = (
    Clients((ip_network("10.0.0.0/8"), ip_network("fd00::/8")), redirect=False),
    Clients((ip_network("192.0.2.0/24"),), endpoint="https://store.example.test"),
    Clients((ip_network("192.0.0.0/8"),), redirect=False),
)


@dataclass(slots=True)
class Graced:
    """A right that was given by grace."""

    credential: Credential | None = None
    graced: bool = True
    grants: list[Repository] = field(default_factory=list)

    async def ask(self, pull: Pull, *, unreachable: bool = False) -> bool:
        """As Right.ask."""
        return False

    def granted(self, repository: Repository) -> None:
        """As Right.granted."""


@dataclass(slots=True)
class Stage:
    """Redirects over a bucket that holds DATA."""

    redirects: Redirects
    presence: Presence
    contents: Contents
    sickness: Sickness
    metrics: Metrics
    clock: FakeClock

    async def sent(self, pull: BlobPull) -> str | None:
        """Where the caller of this pull is sent, as its admitted caller is."""
        offer = await self.redirects.offer(pull)
        return offer.elsewhere.url if offer is not None and self.redirects.take(pull, offer) else None

    def ways(self) -> dict[str, float]:
        """What became of hits, counted."""
        counted = {way.value: self.metrics.redirects_total.labels(way.value)._value.get() for way in Way}
        return {way: count for way, count in counted.items() if count}


@asynccontextmanager
async def _stage(settings: RedirectSettings | None = None) -> AsyncIterator[Stage]:
    contents, sickness, clock, metrics = Contents(), Sickness(), FakeClock(), Metrics()
    contents.store(KEY, DATA)
    driver = Signing(Bucket(contents, "http://bucket.test"), faults=sickness)
    store = Store(driver, metrics=metrics, clock=clock)
    presence = Presence(clock)
    redirects = Redirects(
        store, presence, settings=settings or RedirectSettings(), metrics=metrics, clock=clock
    )
    try:
        yield Stage(redirects, presence, contents, sickness, metrics, clock)
    finally:
        await redirects.close()
        await store.close()


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        (OFFICE, None),
        ("fd00::1", None),
        (LAB, "https://store.example.test"),
        ("192.9.9.9", None),
        (HOME, ""),
        ("2001:db8::1", ""),
        ("", ""),
        ("not an address", ""),
    ],
)
def test_the_first_entry_with_the_network_decides(address: str, endpoint: str | None) -> None:
    """Streaming, another endpoint, or the driver's own where no entry is about the client."""
    assert endpoint_for(address, CLIENTS) == endpoint
    assert endpoint_for(address, ()) == ""


async def test_a_believed_blob_costs_no_request_and_an_unknown_one_a_look() -> None:
    """Cold belief: one stat. Warm: none, for every other client, until the belief is over."""
    async with _stage() as stage:
        url = await stage.sent(blob_pull(DIGEST, address=HOME))
        assert url is not None
        assert url.startswith(f"http://bucket.test/{KEY}?")
        assert stage.sickness.calls == [f"stat {KEY}"]
        stage.clock.advance(599)
        assert await stage.sent(blob_pull(DIGEST, address=LAB)) is not None
        assert stage.sickness.calls == [f"stat {KEY}"]
        stage.clock.advance(1)
        assert await stage.sent(blob_pull(DIGEST, address=OFFICE)) is not None
        assert stage.sickness.calls == [f"stat {KEY}"] * 2
        assert stage.ways() == {"looked": 2, "believed": 1}


async def test_who_comes_back_within_a_minute_is_looked_after() -> None:
    """It may have met a 404: one stat before it is sent again, and none for others."""
    async with _stage() as stage:
        stage.presence.saw(DIGEST, len(DATA))
        for seconds, address, requests in (
            (0, HOME, 0),
            (10, HOME, 1),
            (10, LAB, 1),
            (10, HOME, 2),
            (61, HOME, 2),
        ):
            stage.clock.advance(seconds)
            assert await stage.sent(blob_pull(DIGEST, address=address)) is not None
            assert len(stage.sickness.calls) == requests


async def test_equal_looks_at_once_are_one() -> None:
    """A crowd at a cold belief costs the store one request."""
    async with _stage() as stage:
        stage.sickness.held = "stat"
        crowd = [asyncio.create_task(stage.sent(blob_pull(DIGEST, address=f"10.0.0.{n}"))) for n in range(50)]
        await stage.sickness.reached.wait()
        stage.sickness.release.set()
        assert None not in await asyncio.gather(*crowd)
        assert len(stage.sickness.calls) == 1


async def test_a_look_that_finds_nothing_says_so() -> None:
    """The blob is gone: NotFound, which is a miss, and nobody is sent."""
    async with _stage() as stage:
        stage.contents.objects.clear()
        with pytest.raises(NotFound):
            await stage.sent(blob_pull(DIGEST, address=HOME))
        assert stage.ways() == {"absent": 1}


async def test_networks_are_served_in_their_own_way() -> None:
    """The office streams, the lab is sent to its endpoint, the rest to the driver's: signed for the host it sees."""
    async with _stage(RedirectSettings(clients=CLIENTS)) as stage:
        urls = [await stage.sent(blob_pull(DIGEST, address=address)) for address in (OFFICE, LAB, HOME)]
        assert [url and url.split("/")[2] for url in urls] == [None, "store.example.test", "bucket.test"]
        assert stage.ways() == {"client": 1, "looked": 1, "believed": 1}


async def test_nobody_is_sent_by_grace() -> None:
    """The URL would outlive the outage, whatever the upstream says when it is back."""
    async with _stage() as stage:
        assert await stage.sent(replace(blob_pull(DIGEST), right=Graced())) is None
        assert await stage.sent(replace(blob_pull(DIGEST), right=Graced(graced=False))) is not None
        assert stage.ways() == {"grace": 1, "believed": 1}


async def test_small_blobs_are_not_worth_a_connection() -> None:
    """Below the threshold the hit is streamed: known from the belief without a request, else from the look."""
    async with _stage(RedirectSettings(threshold=len(DATA) + 1)) as stage:
        assert await stage.sent(blob_pull(DIGEST)) is None
        assert await stage.sent(blob_pull(DIGEST)) is None
        assert len(stage.sickness.calls) == 1
    async with _stage(RedirectSettings(threshold=len(DATA))) as stage:
        assert await stage.sent(blob_pull(DIGEST)) is not None


async def test_switched_off_nothing_is_signed_nor_asked() -> None:
    """storage.redirect.disable, with a base or without."""
    async with _stage(RedirectSettings(enabled=False, base="https://cdn.test")) as stage:
        assert await stage.sent(blob_pull(DIGEST)) is None
        assert (stage.sickness.calls, stage.ways()) == ([], {})


async def test_a_base_takes_the_place_of_the_service() -> None:
    """Docker Registry's middleware: scheme and host, then the object's key; not signed, but looked at all the same."""
    async with _stage(RedirectSettings(base="https://cdn.test:8443")) as stage:
        assert await stage.sent(blob_pull(DIGEST)) == f"https://cdn.test:8443/{KEY}"
        assert stage.sickness.calls == [f"stat {KEY}"]


async def test_a_store_that_cannot_sign_streams(caplog: pytest.LogCaptureFixture) -> None:
    """Credentials that ended, say: no request is made in vain, and no pull fails."""
    async with _stage() as stage:
        stage.sickness.fails = {"presign": KEY}
        assert await stage.sent(blob_pull(DIGEST)) is None
        assert (stage.sickness.calls, stage.ways()) == ([], {"unsigned": 1})


async def test_nobody_is_sent_to_a_store_that_fails() -> None:
    """A failed look is told to its caller; the next hits are not redirected until the store answers again."""
    async with _stage() as stage:
        stage.presence.saw(DIGEST, len(DATA))
        stage.sickness.fails = {"stat": ""}
        with pytest.raises(StorageError):
            await stage.sent(blob_pull(Digest.of(b"other")))
        assert await stage.sent(blob_pull(DIGEST)) is None
        assert stage.ways() == {"sick": 1}
        stage.clock.advance(31)
        assert await stage.sent(blob_pull(DIGEST)) is not None


@pytest.mark.parametrize(
    ("wanted", "size"),
    [(None, 100), (RangeRequest(10, 19), 10), (RangeRequest(None, 5), 5), (RangeRequest(100, None), 0)],
)
async def test_the_bytes_that_are_got_elsewhere_are_counted(wanted: RangeRequest | None, size: int) -> None:
    """As the service will send them; a range beyond the end is answered there too."""
    async with _stage() as stage:
        assert await stage.sent(blob_pull(DIGEST, wanted=wanted)) is not None
        assert stage.metrics.redirected_bytes_total._value.get() == size


async def test_a_url_is_signed_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd gets one URL for each endpoint, made anew before it is a minute old; the memory of them is bounded."""
    monkeypatch.setattr("msrcache.cache.redirects.URLS", 2)
    async with _stage(RedirectSettings(clients=CLIENTS)) as stage:
        stage.presence.saw(DIGEST, len(DATA))
        for seconds, address, signed in (
            (0, HOME, 1),
            (59, "203.0.113.8", 1),
            (0, LAB, 2),
            (1, "203.0.113.7", 3),
        ):
            stage.clock.advance(seconds)
            assert await stage.sent(blob_pull(DIGEST, address=address)) is not None
            assert stage.sickness.signed == signed
        for data in (b"a", b"b"):
            stage.presence.saw(Digest.of(data), 1)
            assert await stage.sent(blob_pull(Digest.of(data), address=HOME)) is not None
        assert len(stage.redirects._urls) == 2


async def test_a_driver_without_urls_is_asked_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files have no URL: that costs a hit nothing. A base that a reload brings is used at once."""
    asked: list[str] = []

    async def presign(driver: Signing, key: str, ttl: float, *, endpoint: str = "") -> None:
        asked.append(key)

    monkeypatch.setattr(Signing, "presign", presign)
    async with _stage() as stage:
        for seconds, times in ((0, 1), (59, 1), (1, 2)):
            stage.clock.advance(seconds)
            assert await stage.sent(blob_pull(DIGEST)) is None
            assert len(asked) == times
        assert stage.ways() == {"unsigned": 3}
        stage.redirects.change(RedirectSettings(base="https://cdn.test"))
        assert await stage.sent(blob_pull(DIGEST)) == f"https://cdn.test/{KEY}"
