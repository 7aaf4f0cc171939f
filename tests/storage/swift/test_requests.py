"""How many requests each call makes, who may what, tokens, and devices that fail."""

import asyncio

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.errors import (
    Denied,
    NoSpace,
    NotFound,
    RangeNotSatisfiable,
    StorageError,
    Unusable,
)
from msrcache.storage.swift import Swift
from msrcache.storage.swifterrors import CredentialsRefused
from msrcache.storage.swiftparameters import parameters
from tests.contract.harness import Spooler, keys, pattern, read, write
from tests.stage.swiftservices import GUEST, GUEST_KEY, STRANGER, STRANGER_KEY, RunningSwift
from tests.storage.swift.ledger import KEY, PART, Ledger

pytestmark = pytest.mark.real


async def test_each_call_is_one_request(swift_service: RunningSwift, container: str, driver: Swift) -> None:
    """stat, put, create made or lost, open of all and of a span: one. A delete looks first; a listing asks until
    there is nothing more; what the service can do and which key signs is asked once.
    """
    ledger = Ledger(swift_service, container)
    await driver.put("a/1", b"12345")
    assert ledger.new() == ["PUT a/1"]
    assert await driver.create("a/2", b"2")
    assert not await driver.create("a/2", b"3")
    assert ledger.new() == ["PUT a/2"] * 2
    await driver.stat("a/1")
    assert ledger.new() == ["HEAD a/1"]
    await read(driver, "a/1")
    await read(driver, "a/1", Span(1, 99))
    assert ledger.new() == ["GET a/1"] * 2
    with pytest.raises(RangeNotSatisfiable):
        await read(driver, "a/1", Span(5, 6))
    assert ledger.new() == ["GET a/1"]
    assert await keys(driver.list("a")) == ["a/1", "a/2"]
    assert [line.partition("?")[0] for line in ledger.new()] == ["GET "] * 2
    await driver.delete("a/1")
    assert ledger.new() == ["HEAD a/1", "DELETE a/1"]
    await driver.delete("a/1", "a/2", "a/3")
    assert sorted(ledger.new()) == ["DELETE a/2", "HEAD a/1", "HEAD a/2", "HEAD a/3"]
    for number in range(3):
        await driver.put(f"b/{number}", b"1")
    ledger.new()
    await driver.delete("b/0", "b/1", "b/2")
    assert sorted(ledger.new()) == ["GET /info", "HEAD b/0", "HEAD b/1", "HEAD b/2", "POST ?bulk-delete=true"]
    with pytest.raises(NotFound):
        await driver.stat("a/1")
    assert ledger.new() == ["HEAD a/1"]


async def test_creates_at_once_are_not_exclusive_and_say_so(driver: Swift) -> None:
    """Nothing relies on it."""
    assert driver.create_is_exclusive is False
    assert any("not exclusive" in sentence for sentence in await driver.situation())


async def test_stat_asks_every_copy(swift_service: RunningSwift, container: str, driver: Swift) -> None:
    """A device that was away while an object was replaced has the old one: a stat never tells that one's, as long as
    another that has the new one answers. It costs the service a HEAD of each copy.
    """
    await driver.put(KEY, b"old")
    swift_service.device(1, up=False)
    await driver.put(KEY, b"newer")
    swift_service.device(1, up=True)
    await asyncio.sleep(0.2)  # the service leaves the device alone for a moment
    swift_service.requests(server="object")
    for _ in range(10):
        assert (await driver.stat(KEY)).size == 5
    asked = [line for line in swift_service.requests(server="object") if line.startswith("HEAD")]
    assert len(asked) == 30


async def test_devices_that_fail_cost_nothing(
    swift_service: RunningSwift, container: str, driver: Swift, spool: Spooler
) -> None:
    """One of three away: what is there is read, what is written is read at once, also when another is away then."""
    await driver.put("a/before", b"1")
    data = pattern(PART + 5)
    swift_service.device(1, up=False)
    try:
        assert await read(driver, "a/before") == b"1"
        await write(driver, KEY, spool(data))
        await driver.put("a/while", b"2")
        assert await read(driver, KEY) == data
        swift_service.device(1, up=True)
        swift_service.device(2, up=False)
        assert await read(driver, KEY) == data
        assert (await driver.stat("a/while")).size == 1
    finally:
        for device in (1, 2):
            if (swift_service.folder / "devices" / f"away{device}").exists():
                swift_service.device(device, up=True)


async def test_a_container_that_is_not_there_is_made(swift_service: RunningSwift) -> None:
    """As Docker Registry does, by the first write; until then nothing is found in it, and a listing says what to do."""
    driver = swift_service.driver("made-by-writing")
    with pytest.raises(NotFound):
        await driver.stat(KEY)
    with pytest.raises(Unusable, match="there is no container made-by-writing; create it"):
        await keys(driver.list(""))
    ledger = Ledger(swift_service, "made-by-writing")
    await driver.put(KEY, b"1")
    assert ledger.new() == [f"PUT {KEY}", "PUT", f"PUT {KEY}"]
    assert await read(driver, KEY) == b"1"
    await driver.close()


async def test_least_rights(swift_service: RunningSwift, container: str, spool: Spooler) -> None:
    """A user who may only what the container's two ACLs say can do all that a cache does; who is not named, nothing."""
    user = {"username": GUEST, "password": GUEST_KEY}
    driver = Swift(parameters(swift_service.settings(container, chunksize=PART, secretkey="given") | user))
    with pytest.raises(Denied, match=f"PUT of an object in container {container} is denied"):
        await driver.put("a/1", b"1")
    for header, acl in (("Read", f"{GUEST},.rlistings"), ("Write", GUEST)):
        await swift_service.ask("POST", f"/{container}", headers={f"X-Container-{header}": acl})
    await driver.put("a/1", b"1")
    assert await driver.create("a/2", b"2")
    assert (await driver.stat("a/1")).size == 1
    await write(driver, KEY, spool(pattern(PART + 1)))
    assert await keys(driver.list("a")) == ["a/1", "a/2"]
    assert await read(driver, KEY) == pattern(PART + 1)
    assert await driver.sweep(0.0) == 0
    assert await driver.presign(KEY, 60.0) is None, "nobody has put the key there"
    await driver.delete(KEY, "a/1", "a/2", "a/3")
    assert await swift_service.names(container) == []
    await driver.close()
    stranger = swift_service.driver(container, username=STRANGER, password=STRANGER_KEY)
    for call in (
        stranger.stat("a/1"),
        read(stranger, "a/1"),
        stranger.put("a/1", b""),
        stranger.delete("a/1"),
    ):
        with pytest.raises(Denied, match="ACL name it"):
            await call
    await stranger.close()


async def test_a_full_container_is_told(swift_service: RunningSwift, container: str, driver: Swift) -> None:
    """A quota that is used up is no broken store."""
    await swift_service.ask("POST", f"/{container}", headers={"X-Container-Meta-Quota-Bytes": "1000"})
    with pytest.raises(NoSpace, match="quota"):
        await driver.put(KEY, bytes(2000))


async def test_a_token_that_is_refused_is_renewed_once(
    swift_service: RunningSwift, container: str, driver: Swift, spool: Spooler
) -> None:
    """What kept the tokens forgot them: calls under way go on, with one renewal for all, large bodies too."""
    await driver.put("a/1", b"1")
    swift_service.forget_tokens()
    ledger = swift_service.folder / "proxy.ledger"
    before = ledger.read_text().count("/auth/v1.0")
    assert await asyncio.gather(*(read(driver, "a/1") for _ in range(10))) == [b"1"] * 10
    assert ledger.read_text().count("/auth/v1.0") - before <= 2
    swift_service.forget_tokens()
    data = pattern(3 * PART)
    await write(driver, KEY, spool(data))
    assert await read(driver, KEY) == data


async def test_a_wrong_key_is_told(swift_service: RunningSwift, container: str) -> None:
    """In words, without the key."""
    driver = swift_service.driver(container, password="wrong-secret")
    with pytest.raises(CredentialsRefused, match="does not know test:tester") as refused:
        await driver.stat("a/1")
    assert "wrong-secret" not in str(refused.value)
    await driver.close()
    with pytest.raises(StorageError, match="closed"):
        await driver.stat("a/1")
