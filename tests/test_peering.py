"""A replica among others: when its port is open, what they are told, and in which order it goes."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from msrcache.assembly import Application
from msrcache.cache.pullthrough import PullThrough
from msrcache.config.load import parse
from msrcache.inquiry import CannotStart
from msrcache.oci.peers import Holder
from msrcache.oci.registry import Registry
from msrcache.peering import ALONE, Peering
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics
from tests.scenarios.plays import cache, configuration
from tests.stage.certificates import KeyPair, authority
from tests.stage.following import NONCE, Fills, poured
from tests.stage.scripted import scripted

SECRET = {"REGISTRY_HTTP_SECRET": "equal on all replicas"}
NOWHERE = "http://127.0.0.1:1"
LOOPBACK = "  peer: {addr: '127.0.0.1:0'}\n"


def peering(
    folder: Path, *, more: str = LOOPBACK, environ: Mapping[str, str] = SECRET, storage: str = ""
) -> Peering:
    """One with this configuration, not open yet."""
    text = configuration(folder, NOWHERE, more=more)
    if storage:
        text = text.replace(f"storage: {{filesystem: {{rootdirectory: {folder / 'store'}}}}}", storage)
    config = parse(text, "config.yml", environ).config
    return Peering(config, metrics=Metrics(), clock=SystemClock())


def with_tls(folder: Path) -> tuple[str, KeyPair]:
    """Lines of the cache section with a certificate that names nobody, and its files."""
    fleet = authority(folder / "fleet")
    pair = fleet.issue("one", "nobody.example.com")
    tls = f"{{certificate: {pair.certificate}, key: {pair.key}, ca: [{fleet.bundle}]}}"
    return f"  peer: {{addr: '127.0.0.1:0', tls: {tls}}}\n", pair


@pytest.mark.parametrize("encrypted", ["plain", "tls"])
async def test_replicas_with_one_secret_follow(tmp_path: Path, encrypted: str) -> None:
    """By the address that is advertised, from the first byte to the last; with certificates of one authority too."""
    more = with_tls(tmp_path)[0] if encrypted == "tls" else LOOPBACK
    one, other, fills = peering(tmp_path, more=more), peering(tmp_path, more=more), Fills(tmp_path)
    await one.open()
    await other.open()
    try:
        one.serve(fills)
        digest, growing = fills.fill(b"content")
        growing.complete()
        assert one.port is not None
        assert one.address == one.port.address
        holder = Holder("one", NONCE, one.address)
        assert other.peers is not None
        async with other.peers.follow(digest, holder, 3) as blob:
            assert await poured(blob) == b"tent"
    finally:
        await one.close()
        await other.close()
        fills.close()
    await one.close()


@pytest.mark.parametrize(
    ("storage", "environ", "more", "told"),
    [
        ("storage: {s3: {bucket: b, region: r}}", {}, LOOPBACK, 1),
        ("storage: inmemory", SECRET, LOOPBACK, 0),
        ("storage: inmemory", {}, LOOPBACK, 0),
        ("", SECRET, "  peer: {addr: ''}\n", 0),
    ],
)
async def test_alone(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    storage: str,
    environ: dict[str, str],
    more: str,
    told: int,
) -> None:
    """No port, nobody is followed; and who shares a store without a secret is told what that costs."""
    alone = peering(tmp_path, more=more, environ=environ, storage=storage)
    await alone.open()
    assert (alone.port, alone.address) == (None, "")
    assert alone.peers is None
    alone.serve(fills := Fills(tmp_path))
    await alone.silence(asyncio.get_running_loop().time())
    await alone.reload()
    await alone.close()
    fills.close()
    said = capsys.readouterr()
    assert (said.out + said.err).count(ALONE) == told


async def test_the_port_is_open_from_before_the_pulls_until_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower of the last fill is not refused: that would tell it that this process is gone."""
    seen: list[tuple[str, bool]] = []
    staged: list[Application] = []
    build, leave = Application._pull_through, PullThrough.close

    def building(application: Application, upstream: Registry) -> PullThrough:
        staged.append(application)
        seen.append(("before pulls", bool(application.peering.address)))
        return build(application, upstream)

    async def leaving(pulls: PullThrough) -> None:
        await leave(pulls)
        seen.append(("after pulls", is_open(staged[0].peering)))

    monkeypatch.setattr(Application, "_pull_through", building)
    monkeypatch.setattr(PullThrough, "close", leaving)
    async with (
        scripted() as upstream,
        cache(tmp_path, upstream, more=LOOPBACK, environ=SECRET) as application,
    ):
        await application.drain()
        seen.append(("drained", is_open(application.peering)))
    assert seen == [("before pulls", True), ("drained", True), ("after pulls", True)]
    assert application.peering.port is None


def is_open(peering: Peering) -> bool:
    """Whether its port takes connections."""
    return peering.port is not None and bool(peering.port.address)


async def test_draining_lets_followers_end(tmp_path: Path) -> None:
    """What another replica follows is a body as a client's: it may end, within the same time."""
    async with (
        scripted() as upstream,
        cache(tmp_path / "a", upstream, more=LOOPBACK, environ=SECRET) as application,
    ):
        follower, fills = peering(tmp_path / "b"), Fills(tmp_path)
        await follower.open()
        application.peering.serve(fills)
        digest, growing = fills.fill(b"content")
        holder = Holder("a", NONCE, application.peering.address)
        assert follower.peers is not None
        async with follower.peers.follow(digest, holder, 0) as blob:
            draining = asyncio.create_task(application.drain())
            done, _ = await asyncio.wait({draining}, timeout=0.1)
            assert not done
            growing.complete()
            assert await poured(blob) == b"content"
            async with asyncio.timeout(20):
                await draining
        await follower.close()
        fills.close()


async def test_certificates_that_do_not_load(tmp_path: Path) -> None:
    """The start says which; a reload keeps what there was."""
    more, pair = with_tls(tmp_path)
    loaded = parse(configuration(tmp_path, NOWHERE, more=more), "config.yml", SECRET)
    async with Application(loaded.config).running() as application:
        pair.key.write_text("no key")
        with pytest.raises(CannotStart, match=r"cache\.peer\.tls: .* do not load"):
            await application.reload(loaded)
    with pytest.raises(CannotStart, match=r"cache\.peer\.tls: .* do not load"):
        async with Application(loaded.config).running():
            pytest.fail("it started")
