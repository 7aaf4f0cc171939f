"""Promises of access.account: the caller is asked about first, the service account fetches, and proves nothing."""

from collections.abc import AsyncIterator

import pytest

from msrcache.access.account import ByAccount
from msrcache.oci.errors import BlobUnknown, Denied, Unauthorized, UpstreamUnavailable
from msrcache.oci.pulls import BlobPull, ManifestPull, Pull, TagsList
from msrcache.oci.registry import SERVICE
from tests.access.upstream import APP, ONE, House, blob, caller, tagged


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A gate over an upstream that says yes."""
    made = House()
    yield made
    await made.gate.close()


async def by(house: House, pull: BlobPull, header: str = "Bearer a") -> BlobPull:
    """The pull with the right of this caller."""
    return pull.by(await house.gate.admit(caller(header), pull))


async def fetch(house: House, pull: BlobPull) -> None:
    """A blob through the account."""
    async with ByAccount(house.limited).blob(pull):
        pass


async def test_the_callers_own_question_comes_first(house: House) -> None:
    """Its HEAD, then the account's GET; within the verdict's time the account fetches without a question."""
    await fetch(house, await by(house, blob()))
    await fetch(house, await by(house, blob()))
    what = "blob team/app one as"
    assert house.upstream.ledger == [f"{what} Bearer a", f"{what} service", f"{what} service"]


async def test_a_refused_caller_gets_its_own_answer_and_nothing_is_fetched(house: House) -> None:
    """The upstream says no to the caller: that is the answer, and the account is not used."""
    house.upstream.refuse = lambda pull: Denied("not you") if pull.right is not SERVICE else None
    with pytest.raises(Denied, match="not you"):
        await fetch(house, await by(house, blob()))
    right = await house.gate.admit(caller("Bearer a"), tagged())
    with pytest.raises(Denied, match="not you"):
        await ByAccount(house.limited).manifest(tagged().by(right))
    assert [line for line in house.upstream.ledger if line.endswith("service")] == []


async def test_what_the_account_fetched_renews_no_yes(house: House) -> None:
    """Fetches go on all the time, the yes is as old as the caller's last own question."""
    for seconds in (0, 40, 40):
        house.clock.advance(seconds)
        pull = await by(house, blob())
        await fetch(house, pull)
        pull.right.granted(APP)  # as the cache does after each fetch
    asked = [line for line in house.upstream.ledger if line.endswith("Bearer a")]
    assert len(asked) == 2


@pytest.mark.parametrize("refusal", [Unauthorized("no"), Denied("no"), BlobUnknown("no")])
async def test_a_refused_account_is_not_the_callers_trouble(house: House, refusal: Exception) -> None:
    """The account may not read it: the caller's own credential fetches, blobs and manifests alike."""
    house.upstream.refuse = lambda pull: refusal if pull.right is SERVICE else None
    await fetch(house, await by(house, blob()))
    right = await house.gate.admit(caller("Bearer a"), tagged())
    manifest = await ByAccount(house.limited).manifest(tagged().by(right))
    assert manifest.descriptor.digest == ONE
    assert house.upstream.ledger[-1] == "manifest team/app latest as Bearer a"


async def test_an_outage_is_an_outage(house: House) -> None:
    """The upstream is away under the account: nothing is tried with the caller's credential."""
    away = UpstreamUnavailable("away", retry_after=None)
    house.upstream.refuse = lambda pull: away if pull.right is SERVICE else None
    with pytest.raises(UpstreamUnavailable):
        await fetch(house, await by(house, blob()))
    assert len(house.upstream.ledger) == 2


async def test_questions_and_relayed_pulls_stay_the_callers(house: House) -> None:
    """HEADs and lists go with the caller's credential: their answers are its verdicts."""
    through = ByAccount(house.limited)
    right = await house.gate.admit(caller("Bearer a"), tagged())
    pulls: list[Pull] = [ManifestPull(repository=APP, reference=ONE, head=True), TagsList(repository=APP)]
    for pull in pulls:
        if isinstance(pull, ManifestPull):
            await through.resolve(pull.by(right))
        elif isinstance(pull, TagsList):
            await through.relay(pull.by(right))
    assert [line.rpartition(" as ")[2] for line in house.upstream.ledger] == ["Bearer a"] * 2


async def test_the_caches_own_pulls_ask_nobody(house: House) -> None:
    """A pull that is the cache's own is fetched as it is."""
    await fetch(house, blob())
    assert house.upstream.ledger == ["blob team/app one as service"]
