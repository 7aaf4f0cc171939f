"""Which URLs of Swift are given out: none that the service would not honour just now."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from msrcache.storage.errors import Unavailable
from msrcache.storage.swift import Swift
from msrcache.storage.swiftparameters import parameters
from msrcache.storage.swiftsigning import LOOKED, REFUSED, SETTLING
from tests.stage.scripted import Request, Scripted, Turn, scripted

ACCOUNT = "/v1/AUTH_a"
KEY = "a/key"


@dataclass
class Service:
    """A Swift that shows the keys that stand on its container, and may not honour them yet."""

    script: Scripted
    now: float = 1000.0
    keys: dict[str, str] = field(default_factory=dict)
    """By slot."""
    tried: list[str] = field(default_factory=list)
    """The signed URLs that were asked for."""
    answer: int = 404
    """To a signed URL."""

    def guard(self, request: Request) -> Turn | None:
        """Answers all but what is asked without a token."""
        if "temp_url_sig=" in request.path:
            assert "x-auth-token" not in request.headers
            assert request.headers["range"] == "bytes=0-0"
            self.tried.append(request.path)
            return Turn(status=self.answer, body=b"")
        if request.method == "POST":
            prefix = "x-container-meta-"
            put = {name: text for name, text in request.headers.items() if name.startswith(prefix)}
            self.keys.update({name.removeprefix(prefix): text for name, text in put.items()})
            return Turn(status=204, body=b"")
        if request.method == "HEAD":
            shown = self.keys if request.path == f"{ACCOUNT}/c" else {}
            return Turn(
                status=204,
                body=b"",
                headers=tuple((f"X-Container-Meta-{slot}", text) for slot, text in shown.items()),
            )
        return None


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """One whose time the test makes."""
    async with scripted() as script:
        made = Service(script)
        monkeypatch.setattr("msrcache.storage.swiftsigning._now", lambda: made.now)
        granted = (("X-Auth-Token", "t"), ("X-Storage-Url", f"{script.url}{ACCOUNT}"))
        script.always("/auth/v1.0", Turn(body=b"", headers=granted))
        script.guard = made.guard
        yield made


@asynccontextmanager
async def driver(service: Service, **more: object) -> AsyncIterator[Swift]:
    """A driver on that service's container."""
    authurl = f"{service.script.url}/auth/v1.0"
    given = {"authurl": authurl, "username": "a:b", "password": "k", "container": "c", **more}
    made = Swift(parameters(given))
    try:
        yield made
    finally:
        await made.close()


async def test_a_key_that_was_put_just_now_signs_nothing_for_a_minute(service: Service) -> None:
    """Swift's proxies may remember the container as it was: no client is sent to a refusal meanwhile."""
    async with driver(service, secretkey="signs") as made:
        assert await made.presign(KEY, 60.0) is None
        assert service.keys == {"temp-url-key": "signs"}
        asked = len(service.script.ledger)
        service.now += SETTLING - 1
        assert await made.presign(KEY, 60.0) is None
        assert len(service.script.ledger) == asked, "nothing is asked while it is waited"
        service.now += 2
        assert await made.presign(KEY, 60.0)
    assert len(service.tried) == 1


@pytest.mark.parametrize("answer", [206, 404, 416])
async def test_a_key_that_stands_is_tried_first(service: Service, answer: int) -> None:
    """Whatever stands at the URL, it was honoured; for the next ten minutes nothing is asked."""
    service.keys["temp-url-key"], service.answer = "stands", answer
    async with driver(service) as made:
        assert await made.presign(KEY, 60.0)
        asked = len(service.script.ledger)
        service.now += LOOKED - 1
        assert await made.presign("a/other", 60.0)
        assert len(service.script.ledger) == asked
    assert len(service.tried) == 1


@pytest.mark.parametrize("answer", [401, 403])
async def test_a_key_that_is_refused_is_tried_again(service: Service, answer: int) -> None:
    """As one that another replica has put a moment ago: no URLs until the service honours it."""
    service.keys["temp-url-key"], service.answer = "signs", answer
    async with driver(service, secretkey="signs") as made:
        assert await made.presign(KEY, 60.0) is None
        service.now += REFUSED - 1
        assert await made.presign(KEY, 60.0) is None
        assert len(service.tried) == 1
        service.answer = 404
        service.now += 2
        assert await made.presign(KEY, 60.0)
    assert len(service.tried) == 2


async def test_a_key_that_is_never_shown_is_put_once(service: Service) -> None:
    """By a service that shows keys to nobody; once more where it is not honoured any longer."""
    hidden: list[str] = []

    def guard(request: Request) -> Turn | None:
        if request.method == "POST":
            hidden.append(request.headers["x-container-meta-temp-url-key"])
            return Turn(status=204, body=b"")
        return service.guard(request)

    service.script.guard = guard
    async with driver(service, secretkey="signs") as made:
        assert await made.presign(KEY, 60.0) is None
        for _ in range(3):
            service.now += LOOKED + 1
            assert await made.presign(KEY, 60.0)
        assert hidden == ["signs"]
        service.now, service.answer = service.now + LOOKED + 1, 401
        assert await made.presign(KEY, 60.0) is None
        service.now += REFUSED + 1
        assert await made.presign(KEY, 60.0) is None
        assert hidden == ["signs", "signs"]


async def test_of_two_keys_the_one_that_is_honoured_signs(service: Service) -> None:
    """Between a rotation and the moment at which Swift knows of it, the other key goes on."""
    service.keys |= {"temp-url-key": "new", "temp-url-key-2": "old"}
    refused: set[str] = set()

    def guard(request: Request) -> Turn | None:
        if "temp_url_sig=" in request.path and not refused:
            refused.add(request.path)
            return Turn(status=401, body=b"")
        return service.guard(request)

    service.script.guard = guard
    async with driver(service) as made:
        assert await made.presign(KEY, 60.0)
    assert (len(refused), len(service.tried)) == (1, 1)


async def test_a_sick_service_proves_nothing(service: Service) -> None:
    """Nothing is known of a key that could not be tried; one that was good stays good."""
    service.keys["temp-url-key"], service.answer = "stands", 503
    async with driver(service) as made:
        with pytest.raises(Unavailable):
            await made.presign(KEY, 60.0)
        service.answer = 404
        assert await made.presign(KEY, 60.0)
        service.answer = 503
        service.now += LOOKED + 1
        assert await made.presign(KEY, 60.0)
