"""Promises of access.limited: refused questions do not become a flood, and nobody else suffers from it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from msrcache.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    TooManyRequests,
    Unauthorized,
    UpstreamUnavailable,
)
from msrcache.oci.names import Repository
from msrcache.oci.pulls import BlobPull, Pull, TagsList
from msrcache.oci.registry import SERVICE, Credential, Right
from tests.access.upstream import APP, ONE, TWO, House, blob, caller, tagged


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Three refusals a minute, two questions of an address at once."""
    made = House(per_minute=3, slots=2)
    yield made
    made.upstream.release()
    await made.gate.close()


def guess(number: int) -> BlobPull:
    """A blob of a repository that somebody guesses."""
    return blob(repository=Repository.parse(f"secret/{number}"))


async def guesses(house: House, count: int, address: str = "10.0.0.1") -> list[type[Exception]]:
    """What each of the guesses, put one after the other, ended as."""
    ended: list[type[Exception]] = []
    for number in range(count):
        try:
            await house.ask(guess(number), "Bearer a", address=address)
        except (Denied, TooManyRequests) as error:
            ended.append(type(error))
    return ended


async def test_above_the_limit_the_upstream_is_not_asked(house: House) -> None:
    """429 with the seconds to wait, and after them one more question."""
    house.upstream.refuse = lambda _: Denied()
    assert await guesses(house, 10) == [Denied] * 3 + [TooManyRequests] * 7
    assert len(house.upstream.ledger) == 3
    assert house.verdict("limited") == 7
    with pytest.raises(TooManyRequests) as caught:
        await house.ask(guess(0), "Bearer a")
    assert caught.value.headers["Retry-After"] == "20"
    house.clock.advance(20)
    assert await guesses(house, 2) == [Denied, TooManyRequests]


async def test_other_addresses_are_not_limited_with_it(house: House) -> None:
    """But an IPv6 host, which has a whole /64, is one."""
    house.upstream.refuse = lambda _: Denied()
    await guesses(house, 4)
    assert await guesses(house, 1, "10.0.0.2") == [Denied]
    assert await guesses(house, 3, "2001:db8::1") == [Denied] * 3
    assert await guesses(house, 1, "2001:db8::2") == [TooManyRequests]
    assert await guesses(house, 1, "2001:db8:0:1::2") == [Denied]


async def test_a_burst_cannot_outrun_the_counting(house: House) -> None:
    """However many guesses come at once: those beyond the slots wait, and find the limit reached."""
    house.upstream.hold()
    house.upstream.refuse = lambda _: Denied()
    burst = [asyncio.create_task(house.ask(guess(number), "Bearer a")) for number in range(50)]
    await house.upstream.asked(2)
    house.upstream.release()
    ended = [type(error) for error in await asyncio.gather(*burst, return_exceptions=True)]
    assert ended.count(Denied) == len(house.upstream.ledger) <= 4
    assert ended.count(TooManyRequests) == 50 - len(house.upstream.ledger)


async def test_whoever_is_known_passes_all_the_same(house: House) -> None:
    """A remembered yes is not touched by the address' refusals, and missing tags are not charged."""
    await house.ask(blob(), "Bearer b")
    house.clock.advance(100)
    house.upstream.refuse = lambda pull: None if pull.right.credential == Credential("Bearer b") else Denied()
    await guesses(house, 4)
    assert await house.ask(blob(TWO), "Bearer b") is True
    house.upstream.refuse = lambda _: ManifestUnknown()
    right = await house.gate.admit(caller("Bearer b"), tagged())
    for number in range(10):
        with pytest.raises(ManifestUnknown):
            await house.limited.manifest(tagged(f"v{number}").by(right))


async def test_the_first_step_of_a_login_counts_little(house: House) -> None:
    """containerd begins every pull with a question that has no credential: ten of them weigh as one."""
    house.upstream.refuse = lambda _: Unauthorized("log in", ("Basic realm=x",))
    for _ in range(21):
        with pytest.raises(Unauthorized):
            await house.ask(guess(1))
    with pytest.raises(TooManyRequests):
        await house.ask(guess(1))


async def test_an_outage_is_nobodys_refusal(house: House) -> None:
    """Questions that could not be put are not counted."""
    house.upstream.refuse = lambda _: UpstreamUnavailable()
    for _ in range(10):
        with pytest.raises(UpstreamUnavailable):
            await house.ask(blob(), "Bearer a")
    house.upstream.refuse = lambda _: None
    assert await house.ask(blob(), "Bearer a") is True


async def test_who_joined_does_not_suffer_for_the_others_address(house: House) -> None:
    """An equal question of a limited address ends in 429 for that address alone."""
    house.upstream.refuse = lambda _: Denied()
    await guesses(house, 4)
    house.upstream.refuse = lambda _: None
    tasks = [
        asyncio.create_task(house.ask(blob(), "Bearer a", address=address))
        for address in ("10.0.0.1", "10.0.0.2")
    ]
    limited, served = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(limited, TooManyRequests)
    assert served is True


@pytest.mark.parametrize("refusal", [Unauthorized(), Denied(), NameUnknown()], ids=lambda e: type(e).__name__)
async def test_a_refusal_anywhere_removes_the_yes(house: House, refusal: Exception) -> None:
    """A tag's HEAD or a fetch that is refused says that the right was withdrawn."""
    await house.ask(blob(), "Bearer a")
    right = await house.gate.admit(caller("Bearer a"), tagged())
    house.upstream.refuse = lambda _: refusal
    with pytest.raises(type(refusal)):
        await house.limited.manifest(tagged().by(right))
    house.upstream.refuse = lambda _: None
    assert await house.ask(blob(), "Bearer a") is True


async def test_a_404_of_content_leaves_the_yes(house: House) -> None:
    """A missing tag says nothing about the repository."""
    await house.ask(blob(), "Bearer a")
    right = await house.gate.admit(caller("Bearer a"), tagged())
    house.upstream.refuse = lambda _: BlobUnknown()
    with pytest.raises(BlobUnknown):
        async with house.limited.blob(blob(TWO).by(right)):
            pytest.fail("there is no such blob")
    assert await house.ask(blob(), "Bearer a") is False


async def test_the_caches_own_pulls_are_not_counted(house: House) -> None:
    """The service account is asked for by whoever was admitted."""
    house.upstream.refuse = lambda _: Denied()
    for _ in range(10):
        with pytest.raises(Denied):
            await house.limited.manifest(tagged().by(SERVICE))
    assert len(house.upstream.ledger) == 10


async def test_a_body_holds_no_slot(house: House) -> None:
    """While blobs are read, as many as you like, new questions of the address are put."""
    right: Right = await house.gate.admit(caller("Bearer a"), blob())
    pull: Pull = blob().by(right)
    assert isinstance(pull, BlobPull)
    async with house.limited.blob(pull) as first, house.limited.blob(pull) as second:
        assert [chunk async for chunk in _bytes(first.body)] == [b"one"]
        assert await house.ask(blob(), "Bearer c") is True
        assert second.span.size == 3
    answer = await house.limited.relay(TagsList(repository=APP).by(right))
    assert answer.status == 200
    assert blob().digest == ONE


async def _bytes(body: object) -> AsyncIterator[bytes]:
    assert isinstance(body, AsyncIterator)
    async for chunk in body:
        yield chunk
