"""Several upstreams are one: in turn, failing over, within a budget, and left alone while they are away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from msrcache.oci.descriptor import OCTETS, Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.errors import (
    ManifestUnknown,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UpstreamBroken,
    UpstreamUnavailable,
)
from msrcache.oci.pulls import BlobPull, ManifestPull, Ping, Relayed
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Answer, Blob, Chunk, Elsewhere, Manifest, Outcome, Resolution
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.balance import Balanced
from msrcache.upstream.settings import BalanceSettings
from tests.stage.clock import FakeClock
from tests.upstream.played import Waits, blob_pull, manifest_pull, read

DATA = bytes(range(256)) * 4
FOUND = Resolution(Descriptor("m", Digest.of(b"x"), 1), Outcome.PASS)
AWAY = UpstreamUnavailable("no connection", retry_after=None)
Step = RegistryError | None | Callable[[], Resolution]


@dataclass(slots=True)
class Fake:
    """An upstream that plays steps, the last one again and again; a blob breaks after `cut` bytes."""

    name: str
    steps: list[RegistryError | None] = field(default_factory=lambda: [None])
    asked: int = 0
    gate: asyncio.Event | None = None
    cut: int | None = None
    cause: RegistryError = AWAY
    data: bytes = DATA
    elsewhere: str | None = None
    closed: bool = False
    open_blobs: int = 0
    ranges: list[str] = field(default_factory=list)

    async def _step(self) -> None:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if step is not None:
            raise step

    async def resolve(self, _pull: ManifestPull | BlobPull) -> Resolution:
        """As Registry.resolve."""
        await self._step()
        return FOUND

    async def manifest(self, _pull: ManifestPull) -> Manifest:
        """As Registry.manifest."""
        await self._step()
        return Manifest(FOUND.descriptor, b"x", Outcome.PASS)

    async def relay(self, _pull: Relayed) -> Answer:
        """As Registry.relay."""
        await self._step()
        return Answer(200, {}, self.name.encode())

    def blob(self, pull: BlobPull) -> AbstractAsyncContextManager[Blob]:
        """As Registry.blob."""
        return self._blob(pull)

    @asynccontextmanager
    async def _blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        await self._step()
        self.ranges.append(str(pull.range or ""))
        size = len(self.data)
        span = pull.range.resolve(size) if pull.range else Span.whole(size)
        self.open_blobs += 1
        body = Elsewhere(self.elsewhere) if self.elsewhere else self._body(span)
        try:
            yield Blob(Descriptor(OCTETS, pull.digest, size), span, Outcome.PASS, body)
        finally:
            self.open_blobs -= 1

    async def _body(self, span: Span) -> AsyncIterator[Chunk]:
        stop = span.stop if self.cut is None else min(span.stop, span.start + self.cut)
        for start in range(span.start, stop, 100):
            yield self.data[start : min(start + 100, stop)]
        if stop < span.stop:
            raise self.cause

    async def close(self) -> None:
        """As NamedRegistry.close."""
        self.closed = True


@dataclass(slots=True)
class Stage:
    """Fakes behind the balance, and a clock that its waits turn."""

    balanced: Balanced
    clock: FakeClock
    waits: Waits
    metrics: Metrics

    async def ask(self, times: int = 1) -> None:
        """So many resolves."""
        for _ in range(times):
            await self.balanced.resolve(manifest_pull())

    async def refused(self, times: int, error: type[RegistryError] = UpstreamUnavailable) -> RegistryError:
        """So many resolves that fail; the last error."""
        found: list[RegistryError] = []
        for _ in range(times):
            with pytest.raises(error) as caught:
                await self.balanced.resolve(manifest_pull())
            found.append(caught.value)
        return found[-1]

    def open(self, name: str) -> float | None:
        """The breaker's gauge."""
        return self.metrics.registry.get_sample_value("msrcache_upstream_breaker_open", {"upstream": name})


def stage(*upstreams: Fake, **settings: float) -> Stage:
    """A balance over these, without retries unless said."""
    clock, metrics = FakeClock(), Metrics()
    waits = Waits(clock=clock)
    given = BalanceSettings(**{"retries": 0, "failures": 3, **settings})  # type: ignore[arg-type]
    made = Balanced(upstreams, given, metrics=metrics, clock=clock, chance=lambda: 0.5, sleep=waits)
    return Stage(made, clock, waits, metrics)


async def test_in_turn() -> None:
    """Every upstream gets its share."""
    fakes = [Fake("a"), Fake("b"), Fake("c")]
    await stage(*fakes).ask(9)
    assert [fake.asked for fake in fakes] == [3, 3, 3]


async def test_every_method_goes_through() -> None:
    """resolve, manifest, relay, blob and close."""
    fake = Fake("a")
    balanced = stage(fake).balanced
    assert (await balanced.manifest(manifest_pull())).data == b"x"
    assert (await balanced.relay(Ping())).body == b"a"
    async with balanced.blob(blob_pull(DATA)) as blob:
        assert await read(blob) == DATA
    assert fake.open_blobs == 0
    await balanced.close()
    assert fake.closed


@pytest.mark.parametrize("error", [AWAY, TooManyRequests(9), UpstreamBroken("html")])
async def test_the_next_one_is_asked_at_once(error: RegistryError) -> None:
    """An outage, a full one and a broken one cost the pull no wait while another answers."""
    bad, good = Fake("a", [error]), Fake("b")
    s = stage(bad, good)
    await s.ask(2)
    assert (bad.asked, good.asked, s.waits.waited) == (1, 2, [])


@pytest.mark.parametrize("error", [ManifestUnknown(), Unauthorized("", ("Basic",))])
async def test_a_refusal_is_the_answer(error: RegistryError) -> None:
    """Nobody else is asked what one has answered."""
    first, second = Fake("a", [error]), Fake("b")
    await stage(first, second).refused(1, type(error))
    assert second.asked == 0


async def test_rounds_with_growing_waits() -> None:
    """All fail: further rounds, jittered, then the outage with when to come again."""
    fakes = [Fake("a", [AWAY]), Fake("b", [AWAY])]
    s = stage(*fakes, retries=2, failures=9)
    error = await s.refused(1)
    assert [fake.asked for fake in fakes] == [3, 3]
    assert s.waits.waited == [0.125, 0.25]
    assert error.retry_after == 5


async def test_a_retry_that_succeeds() -> None:
    """One bad moment is nobody's business."""
    fake = Fake("a", [AWAY, None])
    await stage(fake, retries=1).ask()
    assert fake.asked == 2


async def test_retry_after_is_waited_within_the_budget() -> None:
    """429 with a short wait is waited out; one beyond the budget is handed on at once."""
    patient = stage(Fake("a", [TooManyRequests(3), None]), retries=2, retry_budget=10)
    await patient.ask()
    assert patient.waits.waited == [3.125]
    hasty = stage(Fake("a", [TooManyRequests(60)]), retries=2, retry_budget=10)
    error = await hasty.refused(1)
    assert (hasty.waits.waited, error.retry_after) == ([], 60)


async def test_429_is_no_outage() -> None:
    """An upstream that counts one caller's requests is there for all others: no breaker opens."""
    fake = Fake("a", [TooManyRequests(60)])
    s = stage(fake)
    await s.refused(9)
    assert (fake.asked, s.open("a")) == (9, 0)


async def test_the_breaker_opens_and_answers_at_once() -> None:
    """After so many outages nobody waits for that upstream, and everybody is told for how long."""
    fake = Fake("a", [AWAY])
    s = stage(fake, failures=3, open_for=10)
    await s.refused(3)
    assert (s.open("a"), s.balanced.degraded()) == (1, "1 of 1 upstreams cannot be asked: a")
    error = await s.refused(5)
    assert (fake.asked, error.retry_after) == (3, 10)
    assert "a" in error.message


async def test_it_opens_within_one_pull() -> None:
    """The breaker is everybody's: a pull that opens it is told the cause."""
    s = stage(Fake("a", [AWAY]), failures=2, retries=5)
    error = await s.refused(1)
    assert "no connection" in error.message


async def test_then_one_probe_closes_it() -> None:
    """Past its time one pull asks, the others do not wait for it; an answer closes."""
    fake = Fake("a", [AWAY, AWAY, AWAY, None])
    s = stage(fake, open_for=10)
    await s.refused(3)
    s.clock.advance(10)
    fake.gate = asyncio.Event()
    probe = asyncio.create_task(s.ask())
    await asyncio.sleep(0)
    await s.refused(1)
    fake.gate.set()
    await probe
    assert (s.open("a"), s.balanced.degraded(), fake.asked) == (0, None, 4)


async def test_a_silent_upstream_opens_it_though_its_callers_leave() -> None:
    """Who has a budget of seconds leaves before a time-out ends: waiting in vain counts as an outage."""
    fake = Fake("a", gate=asyncio.Event())
    s = stage(fake, failures=1, patience=2.0)
    for waited, state in ((1.0, 0), (2.0, 1)):
        task = asyncio.create_task(s.ask())
        await asyncio.sleep(0)
        s.clock.advance(waited)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert s.open("a") == state


async def test_our_own_full_pool_is_no_outage() -> None:
    """Unavailable that is not the upstream's fault is handed on and opens nothing."""
    s = stage(Fake("a", [Unavailable("all connections busy")]), failures=1)
    await s.refused(3, Unavailable)
    assert s.open("a") == 0


async def test_nonsense_everywhere_is_not_tried_again() -> None:
    """A broken answer is not healed by waiting, and says nothing about other content."""
    fakes = [Fake("a", [UpstreamBroken("html")]), Fake("b", [UpstreamBroken("html")])]
    s = stage(*fakes, retries=3, failures=1)
    await s.refused(1, UpstreamBroken)
    assert [(fake.asked, s.open(fake.name)) for fake in fakes] == [(1, 0), (1, 0)]


async def test_repr_and_names() -> None:
    """A line for people."""
    s = stage(Fake("a", [AWAY]), Fake("b"), failures=1)
    await s.ask()
    assert (repr(s.balanced), s.balanced.name) == ("<Balanced [a away, b ok]>", "a, b")


def test_none_is_no_balance() -> None:
    """There must be an upstream."""
    with pytest.raises(ValueError, match="must be an upstream"):
        stage()


async def test_an_outage_is_told_once_in_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the upstream and the reason however many pulls fail, and another half a minute later."""
    played = stage(Fake("reg.example", [AWAY]), failures=100)
    await played.refused(20)
    assert capsys.readouterr().out.count("upstream cannot be asked") == 1
    played.clock.advance(31)
    await played.refused(20)
    told = capsys.readouterr().out
    assert told.count("upstream cannot be asked") == 1
    assert "reg.example" in told
    assert "no connection" in told
