"""Promises of access.basic: own accounts, checked once, guessed slowly, never told from unknown ones."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.access.basic import BasicGate, Checking, parse_basic
from msrcache.access.buckets import Buckets
from msrcache.access.caller import Fingerprints
from msrcache.access.gate import Gate
from msrcache.access.htpasswd import Htpasswd
from msrcache.access.passwords import Passwords
from msrcache.oci.errors import TooManyRequests, Unauthorized
from msrcache.oci.registry import SERVICE
from msrcache.telemetry.metrics import Metrics
from tests.access.upstream import blob, caller
from tests.stage.clock import FakeClock

HASHES = {
    password: bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode() for password in ("one", "two")
}


def basic(name: str, password: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class CountedPasswords(Passwords):
    """Says which hash each check was made against; can be held."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.ledger: list[bytes] = []
        self.go = asyncio.Event()
        self.go.set()

    async def check(self, password: bytes, hashed: bytes) -> bool:
        self.ledger.append(hashed)
        await self.go.wait()
        return await super().check(password, hashed)


class Lodge:
    """A gate over a file with one account, jane:one."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.file = folder / "htpasswd"
        self.file.write_text(f"jane:{HASHES['one']}\n")
        self.passwords = CountedPasswords()
        self.pauses: list[float] = []
        self.gate = BasicGate(
            htpasswd=Htpasswd(self.file, clock=self.clock),
            realm='The "cache"\\\r\n',
            fingerprints=Fingerprints(),
            checking=Checking(
                passwords=self.passwords,
                addresses=Buckets(clock=self.clock, burst=6),
                accounts=Buckets(clock=self.clock, burst=3),
                pause=self._pause,
            ),
            clock=self.clock,
            metrics=self.metrics,
        )

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def login(self, name: str, password: str, *, address: str = "10.0.0.1") -> None:
        """One request with a password."""
        await self.gate.ping(caller(basic(name, password), address=address))

    async def fails(self, name: str, password: str, *, address: str = "10.0.0.1") -> type[Exception]:
        """How such a request ends."""
        with pytest.raises((Unauthorized, TooManyRequests)) as caught:
            await self.login(name, password, address=address)
        return type(caught.value)


@pytest.fixture
async def lodge(tmp_path: Path) -> AsyncIterator[Lodge]:
    """A gate over a file with one account."""
    made = Lodge(tmp_path)
    yield made
    made.passwords.go.set()
    await made.gate.close()


async def test_an_account_reads_with_the_caches_own_right(lodge: Lodge) -> None:
    """The password goes no further; logs may name the account once it was right."""
    gate: Gate = lodge.gate
    somebody = caller(basic("jane", "one"))
    assert gate.identity(somebody) == "-"
    assert await gate.admit(somebody, blob()) is SERVICE
    await gate.ping(somebody)
    assert gate.identity(somebody) == "jane"
    assert gate.identity(caller(basic("jane", "two"))) == "-"


@pytest.mark.parametrize(
    "header", ["", "Bearer abc", "Basic", "Basic !!!", "Basic " + base64.b64encode(b"jane").decode()]
)
async def test_without_name_and_password_a_challenge_is_the_answer(lodge: Lodge, header: str) -> None:
    """With the realm quoted safely; nothing is checked or counted."""
    for _ in range(10):
        with pytest.raises(Unauthorized) as caught:
            await lodge.gate.admit(caller(header), blob())
        assert caught.value.challenges == ('Basic realm="The \\"cache\\"\\\\"',)
    assert lodge.passwords.ledger == []
    assert lodge.pauses == []


async def test_twenty_layers_cost_one_check(lodge: Lodge) -> None:
    """Equal logins at once are checked once, and the next minute's not at all."""
    lodge.passwords.go.clear()
    logins = [asyncio.create_task(lodge.login("jane", "one", address=f"10.0.0.{n}")) for n in range(20)]
    while not lodge.passwords.ledger:
        await asyncio.sleep(0)
    lodge.passwords.go.set()
    await asyncio.gather(*logins)
    lodge.clock.advance(59)
    await lodge.login("jane", "one")
    assert len(lodge.passwords.ledger) == 1
    lodge.clock.advance(1)
    await lodge.login("jane", "one")
    assert len(lodge.passwords.ledger) == 2


async def test_a_changed_password_counts_within_a_second(lodge: Lodge) -> None:
    """What was remembered of the old one is worth nothing."""
    await lodge.login("jane", "one")
    lodge.file.write_text(f"jane:{HASHES['two']}\n# changed\n")
    lodge.clock.advance(1)
    assert await lodge.fails("jane", "one") is Unauthorized
    assert lodge.gate.identity(caller(basic("jane", "one"))) == "-"
    await lodge.login("jane", "two")
    lodge.file.write_text("")
    lodge.clock.advance(1)
    assert await lodge.fails("jane", "two") is Unauthorized


async def test_an_unknown_account_is_told_from_a_known_one_by_nothing(lodge: Lodge) -> None:
    """The same words, the same pause, a check of the same cost."""
    told = []
    for name in ("jane", "nobody"):
        with pytest.raises(Unauthorized) as caught:
            await lodge.login(name, "wrong")
        told.append((caught.value.message, caught.value.challenges))
    assert told[0] == told[1]
    assert lodge.pauses == [0.5, 0.5]
    known, unknown = lodge.passwords.ledger
    assert known[:7] == unknown[:7]
    assert known != unknown


async def test_failures_are_limited_by_account(lodge: Lodge) -> None:
    """From whatever addresses: no check is made above the limit; one known to be right goes on."""
    await lodge.login("jane", "one")
    ended = [await lodge.fails("jane", f"guess {n}", address=f"10.0.1.{n}") for n in range(5)]
    assert ended == [Unauthorized] * 3 + [TooManyRequests] * 2
    assert len(lodge.passwords.ledger) == 4
    await lodge.login("jane", "one")
    lodge.clock.advance(20)
    assert await lodge.fails("jane", "guess") is Unauthorized


async def test_failures_are_limited_by_address(lodge: Lodge) -> None:
    """Whatever accounts are tried; other addresses are not touched."""
    ended = [await lodge.fails(f"name-{n}", "guess") for n in range(8)]
    assert ended == [Unauthorized] * 6 + [TooManyRequests] * 2
    assert await lodge.fails("name-9", "guess", address="10.0.0.2") is Unauthorized
    assert await lodge.fails("jane", "one") is TooManyRequests
    await lodge.login("jane", "one", address="10.0.0.2")


async def test_a_burst_cannot_outrun_the_counting(lodge: Lodge) -> None:
    """A hundred guesses at once: three are checked."""
    lodge.passwords.go.clear()
    burst = [asyncio.create_task(lodge.login("jane", f"guess {n}")) for n in range(100)]
    while len(lodge.passwords.ledger) < 3:
        await asyncio.sleep(0)
    lodge.passwords.go.set()
    ended = [type(error) for error in await asyncio.gather(*burst, return_exceptions=True)]
    assert (ended.count(Unauthorized), ended.count(TooManyRequests)) == (3, 97)
    assert len(lodge.passwords.ledger) == 3


async def test_right_passwords_are_not_counted(lodge: Lodge) -> None:
    """Expired memories are checked again and again without end."""
    for _ in range(20):
        await lodge.login("jane", "one")
        lodge.clock.advance(60)
    assert len(lodge.passwords.ledger) == 20


async def test_a_full_queue_is_nobodys_failure(lodge: Lodge, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not checked is not counted."""

    async def full(_password: bytes, _hashed: bytes) -> bool:
        raise TooManyRequests(2)

    with monkeypatch.context() as patched:
        patched.setattr(lodge.passwords, "check", full)
        for _ in range(10):
            assert await lodge.fails("jane", "one") is TooManyRequests
    await lodge.login("jane", "one")


async def test_verdicts_are_counted(lodge: Lodge) -> None:
    """yes, remembered, refused, limited."""
    await lodge.login("jane", "one")
    await lodge.login("jane", "one")
    for number in range(4):
        await lodge.fails("jane", f"guess {number}")
    counted = {
        name: lodge.metrics.registry.get_sample_value("msrcache_verdicts_total", {"verdict": name})
        for name in ("yes", "remembered", "refused", "limited")
    }
    assert counted == {"yes": 1, "remembered": 1, "refused": 3, "limited": 1}


def test_a_login_is_read_as_rfc_7617_says() -> None:
    """The first colon divides; the scheme in any case; the password is bytes, and never shown."""
    login = parse_basic("bAsIc " + base64.b64encode("jöhn:pass:word".encode()).decode())
    assert login is not None
    assert (login.name, login.password) == ("jöhn", b"pass:word")
    assert "pass" not in repr(login)
    assert parse_basic(basic("", "x")) is None
    assert parse_basic(basic("x" * 256, "x")) is None


@given(st.text(), st.binary())
def test_no_header_breaks_it(text: str, data: bytes) -> None:
    """Whatever is sent."""
    parse_basic(text)
    parse_basic("Basic " + text)
    parse_basic("Basic " + base64.b64encode(data).decode())
