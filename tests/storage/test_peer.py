"""The other machine of a check: it does what somebody with the secret asks of a probe's keys, and nothing else."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.errors import (
    Denied,
    NoSpace,
    NotFound,
    RangeNotSatisfiable,
    ReadOnly,
    StorageError,
    Unavailable,
    Unusable,
)
from msrcache.storage.memory import Contents, Memory
from msrcache.storage.peer import CHALLENGES, LARGEST, PATH, SIGNATURE, Listener, Peer, PeerProblem, sign
from msrcache.storage.probe import Verdict, probe
from msrcache.storage.promises_large import PROMISES
from msrcache.storage.watched import Ledger
from tests.contract.harness import read
from tests.stage.clock import FakeClock
from tests.storage.test_store import Script

SECRET = b"equal on both machines"
PREFIX = "msrcache/probe/0123456789abcdef"
KEY = f"{PREFIX}/object"


@dataclass(slots=True)
class Far:
    """A listening end, and a peer that asks it."""

    contents: Contents
    faults: Script
    listener: Listener
    url: str
    peer: Peer


@asynccontextmanager
async def far(secret: bytes = SECRET) -> AsyncIterator[Far]:
    """Over a store in memory; `secret` is what the asking end has."""
    contents, faults = Contents(), Script()
    listener = Listener(Memory(contents, faults=faults), SECRET)
    async with listener.listening("127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}"
        peer = Peer(url, secret)
        try:
            yield Far(contents, faults, listener, url, peer)
        finally:
            await peer.close()


@pytest.fixture
async def stage() -> AsyncIterator[Far]:
    """Both ends with one secret."""
    async with far() as both:
        yield both


async def test_it_is_a_driver(stage: Far) -> None:
    """What the other end's store says comes back: values, spans, listings, and no more."""
    peer = stage.peer
    assert await peer.hello(PREFIX) == "inmemory"
    assert await peer.create(KEY, b"0123456789") is True
    assert await peer.create(KEY, b"other") is False
    assert (await peer.stat(KEY)).size == 10
    assert await read(peer, KEY, Span(2, 5)) == b"234"
    await peer.put(KEY, b"\x00\xff")
    assert await read(peer, KEY) == b"\x00\xff"
    assert [key async for key, _ in peer.list(PREFIX)] == [KEY]
    await peer.delete(KEY, f"{PREFIX}/never")
    with pytest.raises(NotFound):
        await peer.stat(KEY)
    assert stage.contents.objects == {}


@pytest.mark.parametrize(
    "error",
    [
        Denied("d", "k", None, "allow it"),
        ReadOnly("d", "k", None, "read-only"),
        NoSpace("d", "k", None, "full"),
        Unusable("d", "k", None, "no bucket"),
        Unavailable("d", "k", None, "busy"),
        StorageError("d", "k", None, "odd"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_failures_travel_with_their_kind(stage: Far, error: StorageError) -> None:
    """And with their sentence; a range beyond the end with the size."""
    stage.faults.fail("before", "stat", error)
    with pytest.raises(type(error), match=error.message) as failed:
        await stage.peer.stat(KEY)
    assert type(failed.value) is type(error)
    await stage.peer.put(KEY, b"123")
    with pytest.raises(RangeNotSatisfiable) as refused:
        await read(stage.peer, KEY, Span(3, 4))
    assert refused.value.size == 3


async def test_a_probe_between_two_machines(stage: Far) -> None:
    """Over one store everything is kept; what is written there is removed from here."""
    here = Memory(stage.contents)
    report = await probe(
        here, stage.peer, PROMISES, prefix=PREFIX, ledger=Ledger(FakeClock(), 20.0), near=here.twin()
    )
    assert {row.promise.name: row.said for row in report.rows if row.troubles} == {}
    assert report.status == 0
    assert stage.contents.objects == {}


async def test_two_machines_with_two_stores_are_found_out(stage: Far) -> None:
    """The usual slip: each has a folder of its own. Nothing stays on either."""
    here = Memory()
    report = await probe(
        here, stage.peer, PROMISES, prefix=PREFIX, ledger=Ledger(FakeClock(), 20.0), near=here.twin()
    )
    assert report.status == 2
    row = report.rows[0]
    assert (row.promise.name, row.verdict) == ("read-after-write", Verdict.BROKEN)
    assert "after a put the object was not there" in row.said
    assert here.contents.objects == {}


async def test_what_was_not_removed_goes_with_the_listening_end() -> None:
    """The one who asked is gone: the end that wrote cleans up."""
    async with far() as both:
        await both.peer.put(KEY, b"1")
        await both.peer.create(f"{KEY}2", b"1")
        kept = both.contents
    assert kept.objects == {}


class TestStrangers:
    """Who does not have the secret, or says again what was said."""

    async def ask(self, url: str, question: dict[str, object], signature: str | None = None) -> int:
        """The status of one question."""
        body = json.dumps(question).encode()
        headers = {SIGNATURE: sign(SECRET, b"ask", body) if signature is None else signature}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url + PATH, data=body, headers=headers) as answer,
        ):
            return answer.status

    async def challenge(self, url: str) -> str:
        """One of the listening end's."""
        async with aiohttp.ClientSession() as session, session.get(url + PATH) as answer:
            return str((await answer.json())["challenge"])

    async def test_without_the_secret_nothing_is_done(self, stage: Far) -> None:
        """Unsigned, signed with another, or as an answer: 403, and the store is not asked."""
        challenge = await self.challenge(stage.url)
        question: dict[str, object] = {"challenge": challenge, "operation": "put", "key": KEY, "data": ""}
        body = json.dumps(question).encode()
        for signature in ("", sign(b"guessed", b"ask", body), sign(SECRET, b"answer", body)):
            assert await self.ask(stage.url, question, signature) == 403
        assert stage.faults.seen == []
        assert await self.ask(stage.url, question) == 200

    async def test_nothing_is_done_twice(self, stage: Far) -> None:
        """What was overheard cannot be said again; nor can a challenge be made up."""
        question: dict[str, object] = {
            "challenge": await self.challenge(stage.url),
            "operation": "create",
            "key": KEY,
        }
        assert await self.ask(stage.url, question) == 200
        assert await self.ask(stage.url, question) == 403
        assert await self.ask(stage.url, {**question, "challenge": "0" * 32}) == 403
        assert stage.faults.seen.count("create") == 1

    @pytest.mark.parametrize(
        "key",
        [
            "docker/registry/v2/blobs/sha256/ab/abcd/data",
            "msrcache/probe/health",
            "msrcache/probe/0123456789abcdef/../../x",
            "msrcache/probe/0123456789abcdef0/x",
            "msrcache/leases/x",
            "",
        ],
    )
    async def test_only_a_probes_keys_are_touched(self, stage: Far, key: str) -> None:
        """Even by who has the secret."""
        for operation in ("stat", "open", "put", "create", "delete", "list"):
            challenge = await self.challenge(stage.url)
            assert (
                await self.ask(stage.url, {"challenge": challenge, "operation": operation, "key": key}) == 403
            )
        assert stage.faults.seen == []

    async def test_what_it_does_not_do_is_refused(self, stage: Far) -> None:
        """sweep, writer, close: an error, and the store is not asked."""
        for operation in ("sweep", "writer", "close", "", None):
            challenge = await self.challenge(stage.url)
            question: dict[str, object] = {"challenge": challenge, "operation": operation, "key": KEY}
            assert await self.ask(stage.url, question) == 200
        assert stage.faults.seen == []

    async def test_what_is_open_is_bounded(self, stage: Far) -> None:
        """Challenges without end, and bodies without end."""
        for _ in range(CHALLENGES + 50):
            await stage.listener._challenge(None)  # type: ignore[arg-type]
        assert len(stage.listener._challenges) == CHALLENGES
        async with (
            aiohttp.ClientSession() as session,
            session.post(stage.url + PATH, data=io.BytesIO(b"x" * (3 * LARGEST))) as answer,
        ):
            assert answer.status == 413


async def test_another_secret_is_one_sentence() -> None:
    """The two files differ: said before anything is tried."""
    async with far(b"another") as both:
        with pytest.raises(PeerProblem, match=r"cannot be asked: not signed with this end's http\.secret"):
            await both.peer.hello(PREFIX)
        assert both.faults.seen == []


async def test_nobody_there_is_one_sentence() -> None:
    """A closed port, or something else that answers."""
    peer = Peer("http://127.0.0.1:1", SECRET)
    with pytest.raises(PeerProblem, match="no answer that could be understood"):
        await peer.hello(PREFIX)
    await peer.close()


async def test_an_answer_of_somebody_else_is_not_believed(
    stage: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sits between cannot make up what the other machine sees."""
    monkeypatch.setattr(stage.listener, "_secret", b"another, from the second signature on")
    real, calls = sign, []

    def once(secret: bytes, *parts: bytes) -> str:
        calls.append(parts[0])
        return real(SECRET if parts[0] == b"ask" else secret, *parts)

    monkeypatch.setattr("msrcache.storage.peer.sign", once)
    with pytest.raises(Denied, match="the answer is not signed"):
        await stage.peer.stat(KEY)
    assert b"answer" in calls
