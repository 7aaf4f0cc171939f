"""A body that one upstream gave up on goes on from another, at that byte."""

import pytest

from msrcache.oci.errors import BlobUnknown, UpstreamBroken, UpstreamUnavailable
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import Elsewhere
from tests.upstream.played import Say, Waits, blob_pull, byte_ranges, played, read, upstream
from tests.upstream.test_balance import AWAY, DATA, Fake, stage

LAST = len(DATA) - 1


@pytest.mark.parametrize("cause", [AWAY, UpstreamBroken("too short")])
@pytest.mark.parametrize("at", [0, 1, 500, LAST])
async def test_from_another_at_that_byte(at: int, cause: UpstreamUnavailable | UpstreamBroken) -> None:
    """The reader sees one body, the second upstream a Range for the rest."""
    first, second = Fake("a", cut=at, cause=cause), Fake("b")
    async with stage(first, second, retries=1).balanced.blob(blob_pull(DATA)) as blob:
        assert await read(blob) == DATA
    assert (first.ranges, second.ranges) == ([""], [f"bytes={at}-{LAST}"])
    assert (first.open_blobs, second.open_blobs) == (0, 0)


async def test_within_a_range() -> None:
    """Only the rest of what was asked for is asked of the other."""
    first, second = Fake("a", cut=10), Fake("b")
    pull = blob_pull(DATA, RangeRequest(100, 199))
    async with stage(first, second, retries=1).balanced.blob(pull) as blob:
        assert await read(blob) == DATA[100:200]
    assert second.ranges == ["bytes=110-199"]


async def test_one_upstream_is_asked_again() -> None:
    """Alone, it gets another chance as long as it brings bytes."""
    only = Fake("a", cut=200)
    async with stage(only, retries=1, failures=99).balanced.blob(blob_pull(DATA)) as blob:
        assert await read(blob) == DATA
    assert only.ranges[1:] == [f"bytes={at}-{LAST}" for at in (200, 400, 600, 800, 1000)]


async def test_no_progress_ends_it() -> None:
    """When neither brings a byte, the outage is raised and the breaker knows."""
    fakes = Fake("a", cut=0), Fake("b", cut=0)
    s = stage(*fakes, retries=2)
    async with s.balanced.blob(blob_pull(DATA)) as blob:
        with pytest.raises(UpstreamUnavailable):
            await read(blob)
    assert sum(len(fake.ranges) for fake in fakes) == 3
    assert sum(fake.open_blobs for fake in fakes) == 0


async def test_a_refusal_of_the_other_is_raised() -> None:
    """The second upstream does not have it: that is what the reader learns."""
    s = stage(Fake("a", cut=5), Fake("b", [BlobUnknown()]), retries=1)
    async with s.balanced.blob(blob_pull(DATA)) as blob:
        with pytest.raises(BlobUnknown):
            await read(blob)


async def test_upstreams_that_disagree() -> None:
    """Another size there is another content."""
    second = Fake("b", data=DATA + b"x")
    async with stage(Fake("a", cut=5), second, retries=1).balanced.blob(blob_pull(DATA)) as blob:
        with pytest.raises(UpstreamBroken, match="disagree"):
            await read(blob)
    assert second.open_blobs == 0


async def test_an_address_is_handed_on() -> None:
    """A registry that answers with an address is passed on, its context open meanwhile."""
    fake = Fake("a", elsewhere="https://bucket.example/x")
    async with stage(fake).balanced.blob(blob_pull(DATA)) as blob:
        assert isinstance(blob.body, Elsewhere)
        assert fake.open_blobs == 1
    assert fake.open_blobs == 0


async def test_two_real_connections() -> None:
    """A body that breaks for good on one server is finished by the other: one GET each, no byte twice."""
    from msrcache.telemetry.metrics import Metrics
    from msrcache.upstream.balance import Balanced
    from tests.stage.clock import FakeClock

    data = DATA * 100
    async with (
        played(lambda asked: Say(503) if asked.range else Say(body=data, cut=40_000)) as bad,
        played(lambda asked: byte_ranges(data, asked)) as good,
        upstream(bad, retries=0) as one,
        upstream(good) as other,
    ):
        balanced = Balanced([one, other], metrics=Metrics(), clock=FakeClock(), sleep=Waits())
        async with balanced.blob(blob_pull(data)) as blob:
            assert await read(blob) == data
        assert [a.range for a in bad.ledger] == [""]
        assert [a.range for a in good.ledger] == [f"bytes=40000-{len(data) - 1}"]
