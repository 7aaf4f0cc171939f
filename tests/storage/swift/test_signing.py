"""Signed URLs of a real Swift, really fetched: ranges, whole large objects, an end, and no other object."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from msrcache.storage.swift import Swift
from msrcache.storage.swiftparameters import parameters
from tests.contract.harness import Spooler, pattern, write
from tests.stage.swiftservices import GUEST, GUEST_KEY, RunningSwift
from tests.storage.swift.ledger import KEY, PART, Ledger

pytestmark = pytest.mark.real


@asynccontextmanager
async def signing(service: RunningSwift, container: str, **given: object) -> AsyncIterator[Swift]:
    """A driver with these parameters more."""
    made = Swift(parameters({**service.settings(container, chunksize=PART), **given}))
    try:
        yield made
    finally:
        await made.close()


async def fetched(url: str | None, **headers: str) -> tuple[int, bytes]:
    """What the service answers, without any credential."""
    assert url is not None
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.read()


async def key_on(service: RunningSwift, container: str, key: str, *, slot: str = "Temp-URL-Key") -> None:
    """As the operator sets it with `swift post`."""
    await service.ask("POST", f"/{container}", headers={f"X-Container-Meta-{slot}": key})


async def test_a_url_is_for_one_object(swift_service: RunningSwift, container: str, spool: Spooler) -> None:
    """It serves it, whole and in ranges, small and large; tampered with, it serves nothing."""
    await key_on(swift_service, container, "of-the-container")
    data = pattern(2 * PART + 5)
    async with signing(swift_service, container) as driver:
        await write(driver, KEY, spool(data))
        await driver.put("a/small", b"0123456789")
        url, small = await driver.presign(KEY, 60.0), await driver.presign("a/small", 60.0)
        assert await fetched(url) == (200, data)
        assert await fetched(url, Range=f"bytes={PART - 2}-{PART + 1}") == (206, data[PART - 2 : PART + 2])
        assert await fetched(url, Range="bytes=-7") == (206, data[-7:])
        assert await fetched(small, Range="bytes=2-4") == (206, b"234")
        assert (await fetched(small, Range="bytes=10-"))[0] == 416
        assert url is not None
        assert small is not None
        last = "0" if url[-1] != "0" else "1"
        for other in (
            small.replace("small", "other"),
            url.replace("temp_url_sig=", "temp_url_sig=0"),
            url[:-1] + last,
        ):
            assert (await fetched(other))[0] == 401
        async with aiohttp.ClientSession() as session:
            for method in ("PUT", "DELETE", "POST"):
                async with session.request(method, small, data=b"") as answer:
                    assert answer.status == 401
        assert (await fetched(small)) == (200, b"0123456789")


async def test_a_url_ends(swift_service: RunningSwift, container: str) -> None:
    """After its time it is refused, as the service's clock says."""
    await key_on(swift_service, container, "of-the-container")
    async with signing(swift_service, container) as driver:
        await driver.put("a/1", b"1")
        url = await driver.presign("a/1", 1.0)
        async with asyncio.timeout(20):
            while (status := (await fetched(url))[0]) != 401:
                assert status == 200
                await asyncio.sleep(0.2)


async def test_a_url_costs_no_request(swift_service: RunningSwift, container: str) -> None:
    """After the first, which asks what the service can do and which keys stand there, and tries one."""
    await key_on(swift_service, container, "of-the-container")
    async with signing(swift_service, container) as driver:
        ledger = Ledger(swift_service, container)
        urls = await asyncio.gather(*(driver.presign(f"a/{number}", 60.0) for number in range(20)))
        assert len(set(urls)) == 20
        *asked, tried = ledger.new()
        assert asked == ["GET /info", "HEAD", "HEAD"]
        assert tried.startswith("GET a/")
        swift_service.forget_tokens()
        assert await driver.presign("a/1", 60.0, endpoint="https://public.test")
        assert ledger.new() == []


@pytest.mark.parametrize("place", ["container", "account"])
async def test_a_configured_key_is_put_where_none_stands(
    swift_service: RunningSwift, container: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, by whoever signs first; the others find it there."""
    monkeypatch.setattr("msrcache.storage.swiftsigning.SETTLING", 0.0)
    given = {"secretkey": f"on-the-{place}", "tempurlcontainerkey": place == "container"}
    slot = {f"X-Account-Meta-Temp-URL-Key{two}": "" for two in ("", "-2")}
    await swift_service.ask("POST", "", headers=slot)
    async with (
        signing(swift_service, container, **given) as here,
        signing(swift_service, container, **given) as there,
    ):
        await here.put("a/1", b"1")
        assert await fetched(await here.presign("a/1", 60.0)) == (200, b"1")
        ledger = Ledger(swift_service, container)
        assert await fetched(await there.presign("a/1", 60.0)) == (200, b"1")
        assert not [line for line in ledger.new() if line.startswith("POST")]
    await swift_service.ask("POST", "", headers=slot)


async def test_a_configured_key_takes_nobodys_place(
    swift_service: RunningSwift, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes to the second place where the first is taken; where both are, there are no URLs, rather than wrong ones
    or somebody else's that stop working.
    """
    monkeypatch.setattr("msrcache.storage.swiftsigning.SETTLING", 0.0)
    await key_on(swift_service, container, "another's")
    async with signing(swift_service, container, secretkey="ours") as driver:
        await driver.put("a/1", b"1")
        assert await fetched(await driver.presign("a/1", 60.0)) == (200, b"1")
    async with signing(swift_service, container, secretkey="a third") as driver:
        assert await driver.presign("a/1", 60.0) is None
    _, headers, _ = await swift_service.ask("HEAD", f"/{container}")
    assert headers["X-Container-Meta-Temp-URL-Key"] == "another's"
    assert headers["X-Container-Meta-Temp-URL-Key-2"] == "ours"


async def test_a_rotated_key_is_used_soon(
    swift_service: RunningSwift, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that stand there are looked at again now and then; meanwhile the second place keeps old URLs alive."""
    monkeypatch.setattr("msrcache.storage.swiftsigning.LOOKED", 0.0)
    await key_on(swift_service, container, "first")
    async with signing(swift_service, container) as driver:
        await driver.put("a/1", b"1")
        old = await driver.presign("a/1", 60.0)
        await key_on(swift_service, container, "first", slot="Temp-URL-Key-2")
        await key_on(swift_service, container, "second")
        new = await driver.presign("a/1", 60.0)
        assert old != new
        assert await fetched(old) == await fetched(new) == (200, b"1")


async def test_without_a_key_there_are_no_urls(swift_service: RunningSwift, container: str) -> None:
    """None is invented: what one replica made up another would not know."""
    async with signing(swift_service, container) as driver:
        assert await driver.presign("a/1", 60.0) is None


async def test_who_may_not_see_keys_signs_with_the_configured_one(
    swift_service: RunningSwift, container: str
) -> None:
    """A user of the container only: somebody else has put the key there."""
    for header, acl in (("Read", f"{GUEST},.rlistings"), ("Write", GUEST)):
        await swift_service.ask("POST", f"/{container}", headers={f"X-Container-{header}": acl})
    await key_on(swift_service, container, "told")
    guest = {"username": GUEST, "password": GUEST_KEY}
    async with signing(swift_service, container, secretkey="told", **guest) as driver:
        await driver.put("a/1", b"1")
        assert await fetched(await driver.presign("a/1", 60.0)) == (200, b"1")
    async with signing(swift_service, container, **guest) as driver:
        assert await driver.presign("a/1", 60.0) is None
