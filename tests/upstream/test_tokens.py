"""Tokens of the service account: asked once, kept as long as they may be, asked by the way the service takes."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from msrcache.oci.errors import Unauthorized, UpstreamBroken, UpstreamUnavailable
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.answers import Whole
from msrcache.upstream.tokens import IDENTITY, Account, TokenKey, Tokens, read_token
from tests.stage.clock import FakeClock
from tests.stage.serving import until

ALICE = Account("alice", "pa:ss")
KEY = TokenKey("https://auth.example/token?x=1", "reg", "repository:a:pull repository:b:pull", ALICE)
NOBODY = TokenKey("https://auth.example/token", "reg", "repository:a:pull", Account())


def whole(status: int = 200, body: object = None, **headers: str) -> Whole:
    """An answer of a token service."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Whole(status, CIMultiDictProxy(CIMultiDict(fields)), data)


@dataclass(slots=True)
class Service:
    """A token service: plays answers in order, the last one again and again."""

    answers: list[Whole]
    asked: list[tuple[str, URL, Mapping[str, str], Mapping[str, str] | None]] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def __call__(
        self, method: str, url: URL, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Whole:
        self.asked.append((method, url, headers, form))
        if self.gate is not None:
            await self.gate.wait()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def kept(service: Service, clock: FakeClock | None = None, *, offline: bool = False) -> Tokens:
    """The tokens under test."""
    return Tokens(service, metrics=Metrics(), clock=clock or FakeClock(), offline=offline)


async def test_get_with_basic() -> None:
    """The plain flow: GET, Basic, service, one parameter for each scope, the realm's own query kept."""
    service = Service([whole(body={"token": "t1"})])
    assert await kept(service).get(KEY) == "t1"
    ((method, url, headers, form),) = service.asked
    assert (method, form) == ("GET", None)
    assert url.query.getall("scope") == ["repository:a:pull", "repository:b:pull"]
    assert (url.query["x"], url.query["service"], url.query["account"]) == ("1", "reg", "alice")
    assert headers == {"Authorization": "Basic YWxpY2U6cGE6c3M="}
    assert "offline_token" not in url.query


async def test_nobody_asks_without_a_header() -> None:
    """Without an account the question is anonymous."""
    service = Service([whole(body={"access_token": "t"})])
    assert await kept(service).get(NOBODY) == "t"
    assert service.asked[0][2] == {}


async def test_one_request_however_many_wait() -> None:
    """Equal tokens asked for at once are one request; who leaves takes nothing from the others."""
    service = Service([whole(body={"token": "t"})], gate=asyncio.Event())
    tokens = kept(service)
    waiting = [asyncio.create_task(tokens.get(KEY)) for _ in range(20)]
    await until(lambda: len(service.asked) == 1)
    waiting[0].cancel()
    assert service.gate is not None
    service.gate.set()
    assert await asyncio.gather(*waiting[1:]) == ["t"] * 19
    assert await tokens.get(KEY) == "t"
    assert len(service.asked) == 1


async def test_each_key_has_its_own() -> None:
    """Another scope, or another account, is another token."""
    service = Service([whole(body={"token": "t1"}), whole(body={"token": "t2"})])
    tokens = kept(service)
    assert (await tokens.get(KEY), await tokens.get(NOBODY)) == ("t1", "t2")


@pytest.mark.parametrize(
    ("fields", "usable"),
    [
        ({}, 54.0),
        ({"expires_in": 10}, 54.0),
        ({"expires_in": 300}, 270.0),
        ({"expires_in": None}, 54.0),
        ({"expires_in": 300, "issued_at": "2023-11-14T22:12:20Z"}, 216.0),
        ({"expires_in": 300, "issued_at": "2023-11-14T22:14:20+00:00"}, 270.0),
        ({"expires_in": 300, "issued_at": "rubbish"}, 270.0),
    ],
)
async def test_renewed_before_it_expires(fields: dict[str, object], usable: float) -> None:
    """Nine tenths of what is left of it; less than a minute, or nothing said, is a minute."""
    service = Service([whole(body={"token": "t1", **fields}), whole(body={"token": "t2"})])
    clock = FakeClock(time=1_700_000_000.0)
    tokens = kept(service, clock)
    await tokens.get(KEY)
    clock.advance(usable - 0.001)
    assert tokens.remembered(KEY) == "t1"
    clock.advance(0.002)
    assert tokens.remembered(KEY) is None
    assert await tokens.get(KEY) == "t2"


def test_the_services_clock_is_its_own() -> None:
    """issued_at is measured by the Date of the same answer: a service an hour off gives no dead tokens."""
    body = {"token": "t", "expires_in": 600, "issued_at": "2023-11-14T20:00:00Z"}
    answer = whole(body=body, Date="Tue, 14 Nov 2023 20:00:00 GMT")
    assert read_token(answer, asked=5.0, now=1_700_000_000.0).until == 5.0 + 540


async def test_forgetting_spares_a_newer_one() -> None:
    """A late 401 to the old token does not throw away the new one."""
    service = Service([whole(body={"token": "t"})])
    tokens = kept(service)
    await tokens.get(KEY)
    tokens.forget(KEY, "older")
    assert tokens.remembered(KEY) == "t"
    tokens.forget(KEY, "t")
    assert tokens.remembered(KEY) is None


async def test_post_where_get_is_not_served() -> None:
    """404, 405: the password goes by POST, and the next time at once."""
    service = Service([whole(405), whole(body={"access_token": "t"})])
    clock = FakeClock()
    tokens = kept(service, clock, offline=True)
    assert await tokens.get(KEY) == "t"
    clock.advance(3600)
    assert await tokens.get(KEY) == "t"
    assert [asked[0] for asked in service.asked] == ["GET", "POST", "POST"]
    assert service.asked[1][3] == {
        "service": "reg",
        "client_id": "msrcache",
        "grant_type": "password",
        "username": "alice",
        "password": "pa:ss",
        "access_type": "offline",
        "scope": KEY.scope,
    }


async def test_a_refresh_token_is_used_and_dropped_when_refused() -> None:
    """Offline: what the service gave is shown by POST; where it is withdrawn, the password again."""
    service = Service(
        [
            whole(body={"token": "t1", "refresh_token": "r1"}),
            whole(body={"access_token": "t2"}),
            whole(401),
            whole(body={"token": "t3"}),
        ]
    )
    clock = FakeClock()
    tokens = kept(service, clock, offline=True)
    found = []
    for _ in range(3):
        found.append(await tokens.get(KEY))
        clock.advance(3600)
    assert found == ["t1", "t2", "t3"]
    assert [asked[0] for asked in service.asked] == ["GET", "POST", "POST", "GET"]
    assert service.asked[0][1].query["offline_token"] == "true"
    form = service.asked[1][3]
    assert form is not None
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "r1")
    assert "password" not in form


async def test_an_identity_token_is_a_refresh_token() -> None:
    """Docker's `<token>` account: its password is shown by POST and never as Basic."""
    service = Service([whole(401)])
    key = TokenKey(KEY.realm, "reg", "s", Account(IDENTITY, "identity"))
    with pytest.raises(Unauthorized):
        await kept(service).get(key)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert [(asked[0], asked[2]) for asked in service.asked] == [("POST", form)]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (whole(401), Unauthorized, "auth.example says 401 to the account 'alice'"),
        (whole(403), Unauthorized, "check the upstream's username and password"),
        (whole(500), UpstreamUnavailable, "auth.example says 500"),
        (whole(429, Retry_After="9"), UpstreamUnavailable, "429"),
        (whole(302), UpstreamBroken, "302"),
        (whole(body=b"<html>"), UpstreamBroken, "not with a token"),
        (whole(body=[]), UpstreamBroken, "not with a token"),
        (whole(body={"token": ""}), UpstreamBroken, "not with a token"),
        (whole(body={"token": "a\r\nb"}), UpstreamBroken, "not with a token"),
        (whole(body={"token": "t", "expires_in": "x"}), UpstreamBroken, "not with a token"),
    ],
)
async def test_no_token(answer: Whole, error: type[Exception], words: str) -> None:
    """Why there is none, by whom, and never with the password; the next one asks anew."""
    service = Service([answer])
    tokens = kept(service)
    for _ in range(2):
        with pytest.raises(error, match=words) as caught:
            await tokens.get(KEY)
        assert "pa:ss" not in str(caught.value)
    assert len(service.asked) == 2


async def test_a_failure_is_shared_but_not_kept() -> None:
    """All who wait get it; an outage of the service is an outage."""

    async def away(*_: object) -> Whole:
        raise UpstreamUnavailable("no connection")

    metrics = Metrics()
    tokens = Tokens(away, metrics=metrics, clock=FakeClock())
    found = await asyncio.gather(tokens.get(KEY), tokens.get(KEY), return_exceptions=True)
    assert [type(error) for error in found] == [UpstreamUnavailable] * 2
    assert metrics.registry.get_sample_value("msrcache_upstream_tokens_total", {"result": "failed"}) == 1


def test_nothing_shows_a_secret() -> None:
    """Neither an account's nor a token's repr."""
    token = read_token(whole(body={"token": "s3", "refresh_token": "s4"}), asked=0, now=0)
    assert not any(secret in f"{KEY} {token}" for secret in ("pa:ss", "s3", "s4"))
