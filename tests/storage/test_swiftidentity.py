"""Tokens are renewed in time, once for all who wait, and heal by themselves; version 1 of Swift's authentication."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from msrcache.storage.errors import StorageError, Unavailable, Unusable
from msrcache.storage.swifterrors import CredentialsRefused
from msrcache.storage.swiftidentity import Grant, Tokens, Version1
from msrcache.storage.swiftparameters import parameters
from tests.stage.scripted import Scripted, Turn, scripted

LIFE = 1000.0


class Source:
    """Gives tokens, or what it is told to."""

    def __init__(self, *, life: float | None = LIFE) -> None:
        self.life = life
        self.count = 0
        self.error: StorageError | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.entered = asyncio.Event()

    async def __call__(self) -> Grant:
        self.count += 1
        self.entered.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return Grant(f"token-{self.count}", "http://swift.test/v1/AUTH_a", self.life)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the loop's clock says of tokens; the test sets it."""
    time = [1000.0]

    class Loop:
        def time(self) -> float:
            return time[0]

    monkeypatch.setattr("msrcache.storage.swiftidentity.asyncio.get_running_loop", Loop)
    return time


async def settled() -> None:
    """Let what is under way end."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_token_is_renewed_before_it_ends(now: list[float]) -> None:
    """In the last tenth of its life, while it is used on: nobody waits."""
    source = Source()
    tokens = Tokens(source)
    assert (await tokens.current()).token == "token-1"
    now[0] += 0.89 * LIFE
    assert (await tokens.current()).token == "token-1"
    await settled()
    assert source.count == 1
    now[0] += 0.02 * LIFE
    source.go.clear()
    assert [(await tokens.current()).token for _ in range(3)] == ["token-1"] * 3
    await settled()
    assert source.count == 2
    source.go.set()
    await settled()
    assert (await tokens.current()).token == "token-2"
    await tokens.close()


async def test_a_token_that_has_ended_is_used_no_more(now: list[float]) -> None:
    """All who come wait for one renewal."""
    source = Source()
    tokens = Tokens(source)
    await tokens.current()
    now[0] += LIFE + 1
    grants = await asyncio.gather(*(tokens.current() for _ in range(50)))
    assert {grant.token for grant in grants} == {"token-2"}
    assert source.count == 2


async def test_a_token_without_an_end_is_kept(now: list[float]) -> None:
    """Until the service refuses it."""
    source = Source(life=None)
    tokens = Tokens(source)
    grant = await tokens.current()
    now[0] += 10 * 365 * 24 * 3600
    assert await tokens.current() is grant
    tokens.refused(grant)
    assert (await tokens.current()).token == "token-2"


async def test_a_refusal_of_an_old_token_changes_nothing(now: list[float]) -> None:
    """A late answer to a request with the one before does not throw the new one away."""
    source = Source()
    tokens = Tokens(source)
    first = await tokens.current()
    tokens.refused(first)
    second = await tokens.current()
    tokens.refused(first)
    assert await tokens.current() is second
    assert (source.count, now) == (2, [1000.0])


async def test_who_stops_waiting_stops_nobody() -> None:
    """The renewal goes on for the others."""
    source = Source()
    source.go.clear()
    tokens = Tokens(source)
    first = asyncio.create_task(tokens.current())
    second = asyncio.create_task(tokens.current())
    await source.entered.wait()
    first.cancel()
    await asyncio.wait({first})
    source.go.set()
    assert (await second).token == "token-1"
    assert first.cancelled()


async def test_a_failed_renewal_is_told_and_not_repeated_at_once(now: list[float]) -> None:
    """Each who comes is told; after some seconds the next one asks again, and it heals."""
    source = Source()
    source.error = CredentialsRefused("swift", "", None, "who?")
    tokens = Tokens(source)
    for _ in range(3):
        with pytest.raises(CredentialsRefused, match=r"who\?"):
            await tokens.current()
    assert source.count == 1
    source.error = None
    now[0] += 6
    assert (await tokens.current()).token == "token-2"


async def test_a_renewal_that_fails_early_leaves_the_old_token(now: list[float]) -> None:
    """Until that has ended."""
    source = Source()
    tokens = Tokens(source)
    await tokens.current()
    now[0] += 0.95 * LIFE
    source.error = Unavailable("swift", "", None, "away")
    for _ in range(3):
        assert (await tokens.current()).token == "token-1"
        await settled()
    assert source.count == 2
    now[0] += 0.1 * LIFE
    with pytest.raises(Unavailable, match="away"):
        await tokens.current()
    assert tokens.last is not None  # where the account is stays known


async def test_a_renewal_that_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unavailable, for all who wait."""
    monkeypatch.setattr("msrcache.storage.swiftidentity.DEADLINE", 0.01)
    source = Source()
    source.go.clear()
    tokens = Tokens(source)
    with pytest.raises(Unavailable, match="no token came within"):
        await tokens.current()


async def test_closing_ends_a_renewal() -> None:
    """And gives no more tokens."""
    source = Source()
    source.go.clear()
    tokens = Tokens(source)
    waiting = asyncio.create_task(tokens.current())
    await source.entered.wait()
    await tokens.close()
    await asyncio.wait({waiting})
    with pytest.raises(StorageError, match="closed"):
        await tokens.current()


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    """What answers at authurl."""
    async with scripted() as server:
        yield server


async def asked(script: Scripted) -> Grant:
    """A grant of it."""
    given = {"authurl": f"{script.url}/auth/v1.0", "username": "a:b", "password": "s3cret", "container": "c"}
    async with aiohttp.ClientSession() as session:
        return await Version1(parameters(given))(session, None)


async def test_version_1(script: Scripted) -> None:
    """One GET with user and key; token, account and life come in headers."""
    headers = (
        ("X-Auth-Token", "t"),
        ("X-Storage-Url", "http://swift.test/v1/AUTH_a/"),
        ("X-Auth-Token-Expires", "86"),
    )
    script.script("/auth/v1.0", Turn(body=b"", headers=headers))
    assert await asked(script) == Grant("t", "http://swift.test/v1/AUTH_a", 86.0)
    (request,) = script.ledger
    assert (request.headers["x-auth-user"], request.headers["x-auth-key"]) == ("a:b", "s3cret")


@pytest.mark.parametrize(
    ("turn", "kind", "sentence"),
    [
        (Turn(status=401, body=b""), CredentialsRefused, "does not know a:b"),
        (Turn(status=503, body=b""), Unavailable, "cannot answer now"),
        (Turn(status=429, body=b""), Unavailable, "cannot answer now"),
        (Turn(status=404, body=b""), Unusable, "is no authentication of this version"),
        (
            Turn(status=302, body=b"", headers=(("Location", "http://elsewhere.test/"),)),
            Unusable,
            "is no authentication",
        ),
        (Turn(status=200, body=b"hello"), Unusable, "gives no token"),
    ],
)
async def test_what_version_1_answers_instead(
    script: Scripted, turn: Turn, kind: type[StorageError], sentence: str
) -> None:
    """In words; the key is in none of them, and is sent nowhere else."""
    script.script("/auth/v1.0", turn)
    with pytest.raises(kind, match=sentence) as refused:
        await asked(script)
    assert "s3cret" not in str(refused.value)
    assert len(script.ledger) == 1
