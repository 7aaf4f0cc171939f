"""Promises of access.asking: the upstream decides, is asked once, and no answer is anybody else's."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from msrcache.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    Unauthorized,
    Unavailable,
    UpstreamBroken,
    UpstreamUnavailable,
)
from msrcache.oci.pulls import Catalog, Pull, TagsList
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.registry import Answer, Credential
from tests.access.upstream import APP, CHALLENGE, ONE, OTHER, TWO, House, blob, caller, jwt, ping, tagged


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A gate over an upstream that says yes."""
    made = House()
    yield made
    made.upstream.release()
    await made.gate.close()


async def test_a_right_carries_the_callers_own_credential(house: House) -> None:
    """What the upstream is asked with is what the caller sent; nothing shows it."""
    right = await house.gate.admit(caller("Bearer secret"), blob())
    assert right.credential == Credential("Bearer secret")
    assert "secret" not in repr(right) + repr(house.gate)


async def test_a_first_question_is_put_with_head_and_without_range(house: House) -> None:
    """It confirms this very content; the pull's own range and method do not matter."""
    pull = blob()
    assert await house.ask(pull, "Bearer a") is True
    ranged = type(pull)(repository=OTHER, digest=ONE, range=RangeRequest(1, 2))
    assert await house.ask(ranged, "Bearer a") is True
    assert house.upstream.ledger == ["blob team/app one as Bearer a", "blob team/other one as Bearer a"]


async def test_a_yes_is_remembered_for_its_caller_and_repository_alone(house: House) -> None:
    """Other content of the repository is not asked for again; another caller or repository is."""
    await house.ask(blob(), "Bearer a")
    assert await house.ask(tagged(), "Bearer a") is False
    assert await house.ask(blob(TWO), "Bearer a") is False
    assert len(house.upstream.ledger) == 1
    assert await house.ask(blob(), "Bearer b") is True
    assert await house.ask(blob(), "bearer a") is True
    assert await house.ask(blob(), "") is True
    assert await house.ask(blob(repository=OTHER), "Bearer a") is True
    assert len(house.upstream.ledger) == 5
    assert (house.verdict("yes"), house.verdict("remembered")) == (5, 2)


async def test_a_yes_is_asked_for_again_after_its_time(house: House) -> None:
    """60 seconds, to the second."""
    await house.ask(blob(), "Bearer a")
    house.clock.advance(59.9)
    assert await house.ask(blob(), "Bearer a") is False
    house.clock.advance(0.1)
    assert await house.ask(blob(), "Bearer a") is True


async def test_a_yes_never_outlives_the_token(house: House) -> None:
    """A JWT's exp shortens what is remembered, in grace too, and never lengthens it."""
    header = jwt(exp=house.clock.time() + 10)
    await house.ask(blob(), header)
    house.clock.advance(9)
    assert await house.ask(blob(), header) is False
    house.clock.advance(1)
    with pytest.raises(UpstreamUnavailable):
        await house.ask(blob(), header, away=True)
    far = jwt(exp=house.clock.time() + 10**9)
    await house.ask(blob(), far)
    house.clock.advance(60)
    await house.ask(blob(), far)
    assert house.upstream.ledger.count(f"blob team/app one as {far}") == 2


async def test_a_token_that_has_ended_is_asked_for_each_time(house: House) -> None:
    """The upstream's clock may differ from ours: it decides, and nothing is remembered."""
    header = jwt(exp=house.clock.time() - 1)
    assert await house.ask(blob(), header) is True
    assert await house.ask(blob(), header) is True


async def test_granted_saves_the_question(house: House) -> None:
    """Where the upstream has just answered the caller's own fetch, that was the question."""
    right = await house.gate.admit(caller("Bearer a"), blob())
    right.granted(APP)
    assert await house.ask(blob(TWO), "Bearer a") is False
    assert house.upstream.ledger == []


@pytest.mark.parametrize(
    "refusal",
    [
        Unauthorized("log in", (CHALLENGE, 'Basic realm="x"')),
        Denied("no"),
        NameUnknown(),
        BlobUnknown("none"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_reaches_the_caller_as_it_came_and_is_not_remembered(
    house: House, refusal: RegistryError
) -> None:
    """Status, code, words and challenges are the upstream's; the next question is put again."""
    house.upstream.refuse = lambda _: refusal
    for _ in range(2):
        with pytest.raises(type(refusal)) as caught:
            await house.ask(blob(), "Bearer a")
        assert caught.value is refusal
    assert len(house.upstream.ledger) == 2
    assert house.verdict("refused") == 2
    house.upstream.refuse = lambda _: None
    assert await house.ask(blob(), "Bearer a") is True


async def test_equal_questions_at_once_are_asked_once(house: House) -> None:
    """A hundred requests of one caller for one blob: one HEAD, a hundred confirmations."""
    house.upstream.hold()
    asking = [asyncio.create_task(house.ask(blob(), "Bearer a", address=f"10.0.0.{n}")) for n in range(100)]
    await house.upstream.asked(1)
    house.upstream.release()
    assert await asyncio.gather(*asking) == [True] * 100
    assert house.upstream.ledger == ["blob team/app one as Bearer a"]


async def test_a_yes_under_way_serves_the_callers_other_layers(house: House) -> None:
    """Twenty layers at once after a minute: one question; the others learn that they may."""
    house.upstream.hold()
    first = asyncio.create_task(house.ask(blob(ONE), "Bearer a"))
    await house.upstream.asked(1)
    others = [asyncio.create_task(house.ask(blob(TWO), "Bearer a")) for _ in range(20)]
    await asyncio.sleep(0)
    house.upstream.release()
    assert await first is True
    assert await asyncio.gather(*others) == [False] * 20
    assert len(house.upstream.ledger) == 1


async def test_a_404_for_one_content_is_no_answer_about_another(house: House) -> None:
    """Who waited for a question about other content asks its own after a no."""
    house.upstream.hold()
    house.upstream.refuse = lambda pull: BlobUnknown() if "one" in house.upstream.ledger[-1] else None
    missing = asyncio.create_task(house.ask(blob(ONE), "Bearer a"))
    await house.upstream.asked(1)
    there = [asyncio.create_task(house.ask(blob(TWO), "Bearer a")) for _ in range(3)]
    await asyncio.sleep(0)
    house.upstream.release()
    with pytest.raises(BlobUnknown):
        await missing
    assert await asyncio.gather(*there) == [True] * 3
    assert house.upstream.ledger == ["blob team/app one as Bearer a", "blob team/app two as Bearer a"]


async def test_two_callers_never_share_a_question(house: House) -> None:
    """Equal pulls of different callers at once: each has its own answer."""

    def only_a(pull: Pull) -> Exception | None:
        credential = pull.right.credential
        return None if credential is not None and credential.header == "Bearer a" else Denied()

    house.upstream.hold()
    house.upstream.refuse = only_a
    first, second = (asyncio.create_task(house.ask(blob(), header)) for header in ("Bearer a", "Bearer b"))
    await house.upstream.asked(2)
    house.upstream.release()
    assert await first is True
    with pytest.raises(Denied):
        await second
    with pytest.raises(Denied):
        await house.ask(blob(), "Bearer b")


async def test_whoever_leaves_stops_nobody_else(house: House) -> None:
    """The one who put the question is cancelled; those who wait for it get its answer."""
    house.upstream.hold()
    first = asyncio.create_task(house.ask(blob(), "Bearer a"))
    await house.upstream.asked(1)
    second = asyncio.create_task(house.ask(blob(), "Bearer a"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    house.upstream.release()
    assert await second is True
    assert len(house.upstream.ledger) == 1


async def test_an_answer_nobody_waited_for_is_remembered(house: House) -> None:
    """The question was paid for; the client that comes back need not pay again."""
    house.upstream.hold()
    gone = asyncio.create_task(house.ask(blob(), "Bearer a"))
    await house.upstream.asked(1)
    gone.cancel()
    question = next(iter(house.gate._questions._open.values()))
    house.upstream.release()
    await question
    assert await house.ask(blob(), "Bearer a") is False
    assert len(house.upstream.ledger) == 1


class TestOutage:
    """While the upstream cannot be asked."""

    async def test_a_yes_within_grace_counts(self, house: House) -> None:
        """Five minutes from the yes, for this caller and repository, whatever content."""
        await house.ask(blob(), "Bearer a")
        house.upstream.refuse = lambda _: UpstreamUnavailable("away")
        house.clock.advance(299)
        assert await house.ask(blob(TWO), "Bearer a") is False
        assert house.verdict("grace") == 1
        for other in (("Bearer b", APP), ("Bearer a", OTHER), ("", APP)):
            with pytest.raises(UpstreamUnavailable) as caught:
                await house.ask(blob(repository=other[1]), other[0])
            assert caught.value.status == 503
            assert "Retry-After" in caught.value.headers
        house.clock.advance(1)
        with pytest.raises(UpstreamUnavailable):
            await house.ask(blob(), "Bearer a")
        assert house.verdict("unavailable") == 4

    async def test_grace_is_no_yes_while_the_upstream_answers(self, house: House) -> None:
        """A right withdrawn after a minute is noticed, and its grace is gone."""
        await house.ask(blob(), "Bearer a")
        house.clock.advance(61)
        house.upstream.refuse = lambda _: Denied()
        with pytest.raises(Denied):
            await house.ask(blob(), "Bearer a")
        house.upstream.refuse = lambda _: UpstreamUnavailable()
        with pytest.raises(UpstreamUnavailable):
            await house.ask(blob(), "Bearer a")

    async def test_an_answer_by_grace_says_so(self, house: House) -> None:
        """Whoever is admitted by grace only is not to be given what outlives the request; a real yes ends that."""
        right = await house.gate.admit(caller("Bearer a"), blob())
        told = []
        for refuse in (lambda _: None, lambda _: UpstreamUnavailable(), lambda _: None):
            house.upstream.refuse = refuse
            await right.ask(blob().by(right))
            told.append(right.graced)
            house.clock.advance(100)
        assert told == [False, True, False]

    async def test_grace_is_not_prolonged_by_using_it(self, house: House) -> None:
        """It runs from the yes of the upstream."""
        await house.ask(blob(), "Bearer a")
        house.upstream.refuse = lambda _: UpstreamUnavailable()
        for _ in range(4):
            house.clock.advance(74)
            assert await house.ask(blob(), "Bearer a") is False
        house.clock.advance(4)
        with pytest.raises(UpstreamUnavailable):
            await house.ask(blob(), "Bearer a")

    async def test_who_was_told_so_does_not_ask_again(self, house: House) -> None:
        """unreachable=True: memory and grace alone decide."""
        await house.ask(blob(), "Bearer a")
        assert await house.ask(blob(TWO), "Bearer a", away=True) is False
        house.clock.advance(100)
        assert await house.ask(blob(TWO), "Bearer a", away=True) is False
        with pytest.raises(UpstreamUnavailable):
            await house.ask(blob(), "Bearer b", away=True)
        assert len(house.upstream.ledger) == 1

    async def test_with_grace_nobody_waits_long_for_an_answer(self, house: House) -> None:
        """An upstream that does not answer in time counts as away; its late no still ends the grace."""
        await house.ask(blob(), "Bearer a")
        house.clock.advance(100)
        house.upstream.hold()
        house.upstream.refuse = lambda _: Denied()
        assert await house.ask(blob(), "Bearer a") is False
        question = next(iter(house.gate._questions._open.values()))
        house.upstream.release()
        with pytest.raises(Denied):
            await question
        with pytest.raises(Denied):
            await house.ask(blob(), "Bearer a")

    async def test_nonsense_is_no_outage(self, house: House) -> None:
        """What answers HTML is not the upstream: no grace for that."""
        await house.ask(blob(), "Bearer a")
        house.clock.advance(100)
        house.upstream.refuse = lambda _: UpstreamBroken()
        with pytest.raises(UpstreamBroken):
            await house.ask(blob(), "Bearer a")


class TestPing:
    """GET /v2/ with a credential (without one: test_pinging)."""

    async def test_it_is_put_to_the_upstream_and_a_yes_remembered(self, house: House) -> None:
        """A yes to the ping is none for any repository."""
        await house.gate.ping(caller("Basic YTpi"))
        await house.gate.ping(caller("Basic YTpi"))
        assert house.upstream.ledger == ["ping as Basic YTpi"]
        assert await house.ask(blob(), "Basic YTpi") is True
        house.clock.advance(60)
        await house.gate.ping(caller("Basic YTpi"))
        assert len(house.upstream.ledger) == 3

    async def test_a_refusal_is_the_upstreams(self, house: House) -> None:
        """With its own challenges, for everybody who sends no right credential."""
        house.upstream.refuse = lambda _: Unauthorized("no", (CHALLENGE,))
        with pytest.raises(Unauthorized) as caught:
            await house.gate.ping(caller("Basic wrong"))
        assert caught.value.challenges == (CHALLENGE,)

    async def test_in_an_outage_grace_holds_for_it_too(self, house: House) -> None:
        """Who pinged well a while ago goes on; others get 503."""
        await house.gate.ping(caller("Bearer a"))
        house.clock.advance(200)
        house.upstream.refuse = lambda _: UpstreamUnavailable()
        await house.gate.ping(caller("Bearer a"))
        with pytest.raises(UpstreamUnavailable):
            await house.gate.ping(caller("Bearer b"))


async def test_what_is_relayed_can_be_asked_too(house: House) -> None:
    """Tags and the catalog: the relayed request is the question; each has its own memory."""
    assert await house.ask(Catalog(), "Bearer a") is True
    assert await house.ask(Catalog(), "Bearer a") is False
    assert await house.ask(TagsList(repository=APP), "Bearer a") is True
    assert await house.ask(blob(), "Bearer a") is False
    house.upstream.relayed = Answer(500, {}, b"")
    with pytest.raises(UpstreamBroken):
        await house.ask(TagsList(repository=OTHER), "Bearer a")


async def test_a_tag_is_asked_for_by_the_types_that_were_asked_for(house: House) -> None:
    """What is there may depend on Accept, so such questions are not equal."""
    house.upstream.hold()
    house.upstream.refuse = lambda _: ManifestUnknown()
    pulls = [tagged(), type(tagged())(repository=APP, reference=tagged().reference, accept=("a/b",))]
    asking = [asyncio.create_task(house.ask(pull, "Bearer a")) for pull in pulls]
    await house.upstream.asked(1)
    house.upstream.release()
    assert [type(error) for error in await asyncio.gather(*asking, return_exceptions=True)] == [
        ManifestUnknown
    ] * 2
    assert len(house.upstream.ledger) == 2


async def test_closing_tells_those_who_wait(house: House) -> None:
    """A question that is stopped is an outage for its callers, not their cancellation."""
    house.upstream.hold()
    asking = asyncio.create_task(house.ask(blob(), "Bearer a"))
    await house.upstream.asked(1)
    await house.gate.close()
    with pytest.raises(Unavailable, match="shutting down"):
        await asking


async def test_identity_shows_no_credential(house: House) -> None:
    """Short, equal for equal credentials, another in another process; a dash for nobody."""
    shown = house.gate.identity(caller("Basic YWxhZGRpbjpzZXNhbWU="))
    assert len(shown) == 12
    assert shown == house.gate.identity(caller("Basic YWxhZGRpbjpzZXNhbWU=", address="10.9.9.9"))
    assert shown != House().gate.identity(caller("Basic YWxhZGRpbjpzZXNhbWU="))
    assert house.gate.identity(caller()) == "-"
    await house.gate.ping(caller("x"))
    assert ping().right.credential is None
