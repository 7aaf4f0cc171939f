"""Promises of access.pinging: the upstream's challenge, verbatim, remembered, and longer while it is away."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from msrcache.oci.errors import Denied, Unauthorized, UpstreamBroken, UpstreamUnavailable
from msrcache.oci.registry import Answer
from tests.access.upstream import CHALLENGE, House, caller

CHALLENGES = (CHALLENGE, 'Basic realm="MSR, \\"main\\""')


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A gate over an upstream that wants a token."""
    made = House(per_minute=1)
    made.upstream.refuse = lambda _: Unauthorized("authentication required", CHALLENGES, detail="d")
    yield made
    made.upstream.release()
    await made.gate.close()


async def refused(house: House, address: str = "10.0.0.1") -> Unauthorized:
    """What a client without a credential is told."""
    with pytest.raises(Unauthorized) as caught:
        await house.gate.ping(caller(address=address))
    return caught.value


async def test_the_challenge_is_the_upstreams_word_for_word(house: House) -> None:
    """Every value, its realm untouched, with message and detail, the first time and from memory."""
    for _ in range(2):
        told = await refused(house)
        assert (told.challenges, told.message, told.detail) == (CHALLENGES, "authentication required", "d")
    assert house.upstream.ledger == ["ping as "]


async def test_it_is_remembered_for_ten_minutes(house: House) -> None:
    """And asked for again after them: the upstream's token service may have moved."""
    await refused(house)
    house.clock.advance(599)
    await refused(house)
    assert len(house.upstream.ledger) == 1
    house.clock.advance(1)
    house.upstream.refuse = lambda _: Unauthorized("new", ("Basic realm=new",))
    assert (await refused(house)).challenges == ("Basic realm=new",)


async def test_it_is_remembered_longer_while_the_upstream_is_away(house: House) -> None:
    """However long; and the upstream is not asked by each ping meanwhile."""
    await refused(house)
    house.clock.advance(86_400)
    house.upstream.refuse = lambda _: UpstreamUnavailable()
    for _ in range(10):
        assert (await refused(house)).challenges == CHALLENGES
    assert len(house.upstream.ledger) == 2
    house.clock.advance(10)
    await refused(house)
    assert len(house.upstream.ledger) == 3


async def test_a_slow_upstream_holds_nobody_back_who_can_be_told(house: House) -> None:
    """The outdated challenge is given, and the late answer is remembered."""
    await refused(house)
    house.clock.advance(700)
    house.upstream.hold()
    house.upstream.refuse = lambda _: Unauthorized("new", ("Basic realm=new",))
    assert (await refused(house)).challenges == CHALLENGES
    question = house.pings._questions.under_way("")
    assert question is not None
    house.upstream.release()
    await question
    assert (await refused(house)).challenges == ("Basic realm=new",)


async def test_without_memory_an_outage_is_told(house: House) -> None:
    """503 with Retry-After; the next ping asks again."""
    house.upstream.refuse = lambda _: UpstreamUnavailable()
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable) as caught:
            await house.gate.ping(caller())
        assert "Retry-After" in caught.value.headers
    assert len(house.upstream.ledger) == 2


async def test_pings_at_once_ask_once(house: House) -> None:
    """A fleet that starts together is one question."""
    house.upstream.hold()
    pings = [asyncio.create_task(refused(house, f"10.0.0.{n}")) for n in range(50)]
    await house.upstream.asked(1)
    house.upstream.release()
    assert {told.challenges for told in await asyncio.gather(*pings)} == {CHALLENGES}
    assert len(house.upstream.ledger) == 1


async def test_each_caller_gets_an_error_of_its_own(house: House) -> None:
    """An error raised from memory again and again would grow by its tracebacks."""
    assert await refused(house) is not await refused(house)


async def test_an_upstream_that_asks_for_nothing_is_open_to_all(house: House) -> None:
    """A 200 is remembered as well."""
    house.upstream.refuse = lambda _: None
    await house.gate.ping(caller())
    await house.gate.ping(caller())
    assert len(house.upstream.ledger) == 1


async def test_other_answers_are_passed_on_and_not_remembered(house: House) -> None:
    """A proxy's 403, a status that makes no sense."""
    house.upstream.refuse = lambda _: Denied()
    with pytest.raises(Denied):
        await house.gate.ping(caller())
    house.upstream.refuse = lambda _: None
    house.upstream.relayed = Answer(302, {}, b"")
    with pytest.raises(UpstreamBroken):
        await house.gate.ping(caller())
    assert len(house.upstream.ledger) == 2


async def test_no_address_is_charged_for_it(house: House) -> None:
    """It is the cache's own question: pinging never leads to 429."""
    for _ in range(5):
        house.clock.advance(600)
        await refused(house)
    assert len(house.refusals) == 0
