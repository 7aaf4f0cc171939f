"""Certificates, names, clocks and redirects that are wrong: the user reads one sentence that says what to do.

What the client is told stands in the specification's JSON, and the same words in the log; nothing of a traceback.
"""

import datetime
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.oci.digest import Digest
from tests.access.upstream import jwt
from tests.scenarios.plays import Got, pull, settled, stored
from tests.scenarios.plays import cache as in_process
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.certificates import Authority, KeyPair, authority
from tests.stage.images import noise
from tests.stage.scripted import scripted
from tests.upstream.played import Asked, Played, Say, byte_ranges, played

DATA = noise(100_000, 41)
TAG = "/v2/team/app/manifests/1"
BLOB = f"/v2/team/app/blobs/{Digest.of(DATA)}"
QUICK = {"access": {"mode": "open"}, "upstream": {"retries": 0}}
NOW = datetime.datetime.now(datetime.UTC)


def honest(asked: Asked) -> Say:
    """The blob, whatever is asked."""
    return byte_ranges(DATA, asked)


def context(pair: KeyPair) -> ssl.SSLContext:
    """A server's."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pair.certificate, pair.key)
    return made


def message(got: Got) -> str:
    """What the user reads."""
    (error,) = json.loads(got.body)["errors"]
    return str(error["message"])


@asynccontextmanager
async def before(folder: Path, server: Played, ca: Authority | None) -> AsyncIterator[RunningCache]:
    """A cache process before this upstream, which it trusts by the CA where one is given."""
    entry = {"url": server.url, "ca": [str(ca.bundle)] if ca else []}
    async with cache(folder / "cache", entry, settings=QUICK) as running:
        yield running


@pytest.mark.parametrize(
    ("known", "names", "started", "days", "words"),
    [
        (False, (), None, 30, ("certificate", "ca")),
        (True, (), NOW - datetime.timedelta(days=60), 30, ("has expired", "renew", "clock")),
        (True, (), NOW + datetime.timedelta(days=2), 30, ("is not yet valid", "clock")),
        (True, ("registry.example.com",), None, 30, ("not valid for", "by a name")),
    ],
    ids=["unknown-ca", "expired", "not-yet-valid", "another-name"],
)
async def test_an_upstreams_certificate_that_is_refused(
    tmp_path: Path,
    known: bool,  # noqa: FBT001
    names: tuple[str, ...],
    started: datetime.datetime | None,
    days: float,
    words: tuple[str, ...],
) -> None:
    """503, and the upstream, the reason and what to do in one sentence, for the client and in the log."""
    ca = authority(tmp_path / "ca")
    pair = ca.issue("registry", *names, days=days, started=started)
    async with (
        played(honest, tls=context(pair)) as server,
        before(tmp_path, server, ca if known else None) as running,
    ):
        for path in (TAG, BLOB):  # what a client asks first, and what it asks then
            got = await pull(running.port, path)
            assert got.status == 503
            for word in (server.host, *words):
                assert word in message(got)
                assert word in running.process.said(1_000_000)
        assert server.ledger == []
        assert "Traceback" not in running.process.said(1_000_000)


async def test_a_certificate_that_is_known_is_taken(tmp_path: Path) -> None:
    """The same with its CA configured: the blob."""
    ca = authority(tmp_path / "ca")
    async with (
        played(honest, tls=context(ca.issue("registry"))) as server,
        before(tmp_path, server, ca) as running,
    ):
        assert (await pull(running.port, BLOB)).body == DATA


async def test_a_name_that_is_not_found(tmp_path: Path) -> None:
    """503 with the name, and that it is the DNS; the process goes on."""
    entry = {"url": "https://no-such-registry.invalid"}
    async with cache(tmp_path / "cache", entry, settings=QUICK) as running:
        got = await pull(running.port, BLOB)
        assert got.status == 503
        for word in ("no-such-registry.invalid", "DNS"):
            assert word in message(got)
            assert word in running.process.said(1_000_000)
        assert "Traceback" not in running.process.said(1_000_000)


async def test_plain_http_behind_https_is_refused(tmp_path: Path) -> None:
    """The upstream sends us from https to http: 502 in words, and the other host is not asked for a byte."""
    ca = authority(tmp_path / "ca")
    async with scripted() as bucket:
        path = bucket.publish_blob(DATA)
        there = Say(307, headers=(("Location", f"{bucket.url}{path}"),))
        async with (
            played(lambda asked: there, tls=context(ca.issue("registry"))) as server,
            before(tmp_path, server, ca) as running,
        ):
            got = await pull(running.port, BLOB)
            assert got.status == 502
            for word in (server.host, "plain http", "https"):
                assert word in message(got)
            assert bucket.ledger == []
            assert stored(tmp_path / "cache", DATA) is None


@pytest.mark.parametrize(
    ("started", "words"),
    [
        (NOW - datetime.timedelta(days=60), ("expired on", "SIGHUP")),
        (NOW + datetime.timedelta(days=2), ("is not valid before", "clock")),
    ],
    ids=["expired", "not-yet-valid"],
)
async def test_our_own_certificate(
    tmp_path: Path, started: datetime.datetime, words: tuple[str, ...]
) -> None:
    """It is served all the same, since some clients do not look; the log names the file, the date and what to do."""
    pair = authority(tmp_path / "ca").issue("cache", started=started)
    async with scripted() as upstream:
        tls = {"certificate": str(pair.certificate), "key": str(pair.key)}
        async with cache(tmp_path / "cache", {"url": upstream.url}, settings=QUICK, tls=tls) as running:
            said = running.process.said(1_000_000)
            for word in (str(pair.certificate), *words):
                assert word in said


async def test_a_clock_that_is_ahead_ends_tokens_early_and_refuses_nobody(tmp_path: Path) -> None:
    """By our clock the caller's token has ended: no yes is remembered, so the upstream is asked each time."""
    token = jwt(exp=NOW.timestamp() - 3600)
    async with scripted() as upstream, in_process(tmp_path, upstream, mode="upstream") as application:
        path = upstream.publish_blob(DATA)
        for _ in range(3):
            assert (await pull(application, path, Authorization=token)).body == DATA
            await settled(application)
        assert upstream.lines == [f"GET {path}", f"HEAD {path}", f"HEAD {path}"]
