"""The service account's header: learned from the challenge, renewed once, never shown where it must not be."""

import pytest

from msrcache.oci.errors import Unauthorized, UpstreamBroken
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.auth import Authorizer
from msrcache.upstream.settings import UpstreamSettings
from msrcache.upstream.tokens import Tokens
from tests.stage.clock import FakeClock
from tests.upstream.test_tokens import Service, whole

BEARER = 'Bearer realm="https://auth.example/t",service="reg",scope="repository:a:pull"'
BASIC = 'Basic realm="r"'


def authorizer(service: Service, **settings: object) -> tuple[Authorizer, FakeClock]:
    """The account alice of an https upstream."""
    clock = FakeClock()
    given = {"url": "https://reg.example", "username": "alice", "password": "pw", **settings}
    tokens = Tokens(service, metrics=Metrics(), clock=clock)
    return Authorizer(UpstreamSettings(**given), tokens), clock  # type: ignore[arg-type]


def tokens(*texts: str) -> Service:
    """A token service that gives these in turn."""
    return Service([whole(body={"token": text, "expires_in": 100}) for text in texts])


async def test_nothing_is_known_at_first() -> None:
    """Then the challenge is, and its token is what the next pull begins with."""
    service = tokens("t1")
    auth, _ = authorizer(service)
    assert await auth.ticket("a") is None
    first = await auth.answer("a", [BEARER], None)
    assert first is not None
    assert (first.header, first.fresh) == ("Bearer t1", True)
    again = await auth.ticket("a")
    assert again is not None
    assert (again.header, again.fresh, len(service.asked)) == ("Bearer t1", False, 1)
    assert await auth.ticket("b") is None, "another repository has another challenge"


async def test_a_refused_old_token_gets_one_new_try() -> None:
    """And a refused fresh one none: the upstream's 401 is its answer."""
    service = tokens("t1", "t2")
    auth, _ = authorizer(service)
    await auth.answer("a", [BEARER], None)
    old = await auth.ticket("a")
    fresh = await auth.answer("a", [BEARER], old)
    assert fresh is not None
    assert (fresh.header, fresh.fresh) == ("Bearer t2", True)
    assert await auth.answer("a", [BEARER], fresh) is None
    assert len(service.asked) == 2


async def test_an_expired_token_is_renewed_before_it_is_sent() -> None:
    """No 401 is needed to learn what the clock tells."""
    service = tokens("t1", "t2")
    auth, clock = authorizer(service)
    await auth.answer("a", [BEARER], None)
    clock.advance(95)
    ticket = await auth.ticket("a")
    assert ticket is not None
    assert (ticket.header, ticket.fresh) == ("Bearer t2", True)


async def test_another_challenge_is_met() -> None:
    """A fresh token for too little, and a challenge that asks for more: worth one try."""
    service = tokens("t1", "t2")
    auth, _ = authorizer(service)
    first = await auth.answer("a", [BEARER], None)
    second = await auth.answer("a", [BEARER.replace(":pull", ":pull,push")], first)
    assert second is not None
    assert second.header == "Bearer t2"


async def test_bearer_before_basic() -> None:
    """Where both are offered the password is not shown to every request."""
    auth, _ = authorizer(tokens("t"))
    ticket = await auth.answer("a", [BASIC, BEARER], None)
    assert ticket is not None
    assert ticket.header == "Bearer t"


async def test_basic() -> None:
    """Known from the first challenge on; refused once is refused."""
    auth, _ = authorizer(tokens("t"))
    ticket = await auth.answer("a", [BASIC], None)
    assert ticket is not None
    assert ticket.header == "Basic YWxpY2U6cHc="
    assert await auth.answer("a", [BASIC], await auth.ticket("a")) is None


@pytest.mark.parametrize("settings", [{"username": "", "password": ""}, {"username": "<token>"}])
async def test_who_has_no_password_does_not_answer_basic(settings: dict[str, str]) -> None:
    """Nobody, and an identity token, have nothing to show there."""
    auth, _ = authorizer(tokens("t"), **settings)
    assert await auth.answer("a", [BASIC], None) is None
    assert await auth.answer("a", [], None) is None
    assert await auth.answer("a", ["Negotiate"], None) is None


@pytest.mark.parametrize(
    ("realm", "settings"),
    [
        ("http://auth.example/t", {}),
        ("/token", {}),
        ("ftp://auth.example/", {}),
        ("https://user:pw@auth.example/", {}),
        ("http://[", {}),
    ],
)
async def test_a_realm_that_is_not_trusted(realm: str, settings: dict[str, object]) -> None:
    """The password goes to no plain-http token service of an https upstream, and to no nonsense."""
    service = tokens("t")
    auth, _ = authorizer(service, **settings)
    with pytest.raises(UpstreamBroken, match=r"reg\.example"):
        await auth.answer("a", [f'Bearer realm="{realm}"'], None)
    assert service.asked == []


@pytest.mark.parametrize(
    ("realm", "settings"),
    [
        ("http://localhost:5001/t", {}),
        ("http://127.0.0.1:5001/t", {}),
        ("http://auth.example/t", {"url": "http://reg.example"}),
        ("http://auth.example/t", {"skipverify": True}),
    ],
)
async def test_a_plain_realm_that_is(realm: str, settings: dict[str, object]) -> None:
    """Loopback, a plain upstream, and an operator who said that nothing is verified."""
    auth, _ = authorizer(tokens("t"), **settings)
    assert await auth.answer("a", [f'Bearer realm="{realm}"'], None) is not None


async def test_the_token_services_refusal_carries_the_challenge() -> None:
    """What the client is told to do is what the upstream said, verbatim."""
    auth, _ = authorizer(Service([whole(401)]))
    with pytest.raises(Unauthorized) as caught:
        await auth.answer("a", [BEARER], None)
    assert caught.value.challenges == (BEARER,)
