"""Each sample of a load balancer, as it stands but for addresses, before two real caches and one that is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.balancers.pulling import Load, Way, paths, slow_body
from tests.balancers.replica import Replica
from tests.balancers.samples import BALANCER, FOLDER, SAMPLES, Sample, balancer
from tests.stage import clients, images
from tests.stage.certificates import Authority, KeyPair, authority
from tests.stage.images import Image
from tests.stage.process import free_port, until
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, registry
from tests.stage.tokens import TokenServer, token_server

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

module = pytest_asyncio.fixture(scope="module", loop_scope="module")
REPOSITORY = "public/app"
REDIRECTED = "127.0.0.88"
BLOBS = "https://blobs.example.com"
SMALL = images.simple_image(3, seed=11)
LONG = 40 * 1024
SLOW = ("haproxy-http.cfg", "haproxy-tls-passthrough.cfg")
"""Restarted behind only in the slow tests: in what matters for that they are like their neighbours."""


def of(*slow: str) -> pytest.MarkDecorator:
    """A test of every sample; of some only among the slow ones."""
    marks = {file: [pytest.mark.slow] for file in slow}
    every = [pytest.param(sample, id=sample.file, marks=marks.get(sample.file, ())) for sample in SAMPLES]
    return pytest.mark.parametrize("stand", every, indirect=True)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A registry behind tokens, with the images `1` and `big` in it."""

    registry: RunningRegistry
    tokens: TokenServer
    big: Image


@dataclass(frozen=True, slots=True)
class Stand:
    """A load balancer and what stands behind it; the third replica never answers."""

    sample: Sample
    port: int
    replicas: tuple[Replica, Replica]
    upstream: Upstream
    authority: Authority

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"{self.sample.scheme}://localhost:{self.port}"

    def reference(self, tag: str) -> str:
        """As clients name an image."""
        return f"localhost:{self.port}/{REPOSITORY}:{tag}"

    def way(self, source: str = "127.0.0.1") -> Way:
        """A client with a token for the repository, at an address."""
        token = self.upstream.tokens.token("", [f"repository:{REPOSITORY}:pull"])
        return Way(self.url, token, source)


@module
async def upstream(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Upstream]:
    """One for all samples."""
    folder = tmp_path_factory.mktemp("upstream")
    big = images.image([images.big_layer(folder / "layer", 32 << 20)])
    async with (
        token_server(folder / "tokens") as tokens,
        registry(Kind.V3, folder / "registry", tokens=tokens) as running,
    ):
        for tag, image in (("1", SMALL), ("big", big)):
            await push(running.url, REPOSITORY, image, tag, user="alice", password="s3cret")
        yield Upstream(running, tokens, big)


def replica_config(
    sample: Sample, stand: tuple[Path, int, int], upstream: Upstream, pair: KeyPair
) -> tuple[dict[str, object], dict[str, object]]:
    """The sections `http` and `cache` as the sample's comment has them, with a test's addresses."""
    _, port, public = stand
    needed = sample.replicas_part()
    http, cache = needed.get("http", {}), needed["cache"]
    assert cache["trusted"] == [BALANCER]
    cache["trusted"] = ["127.0.0.1"]
    if "host" in http:
        assert http["host"] == "https://cache.example.com"
        http["host"] = f"https://localhost:{public}"
    if "tls" in http:
        http["tls"] = {"certificate": str(pair.certificate), "key": str(pair.key)}
    redirect = {"clients": [{"networks": [REDIRECTED]}, {"networks": ["0.0.0.0/0"], "mode": "stream"}]}
    # What reads no request asks no other replica when one hangs up: it must have noticed before, as the sample says.
    delay = "5s" if sample.passthrough else "500ms"
    own = {"upstreams": [{"url": upstream.registry.url}], "drain": {"delay": delay}, "redirect": redirect}
    return {"addr": f"127.0.0.1:{port}", **http}, {**own, **cache}


def replica(
    name: str, sample: Sample, stand: tuple[Path, int, int], upstream: Upstream, pair: KeyPair
) -> Replica:
    """Not yet started, on the store that it shares."""
    folder, port, _ = stand
    http, cache = replica_config(sample, stand, upstream, pair)
    config = {
        "version": "0.1",
        "log": {"formatter": "json"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
        "middleware": {"storage": [{"name": "redirect", "options": {"baseurl": BLOBS}}]},
        "health": {"file": [{"file": str(folder / f"{name}.away"), "interval": "200ms"}]},
        "http": {**http, "headers": {"X-Replica": [name]}},
        "cache": {**cache, "spool": {"path": str(folder / f"spool-{name}")}},
    }
    return Replica(name, folder, port, config, tls="tls" in http)


@asynccontextmanager
async def standing(sample: Sample, folder: Path, upstream: Upstream) -> AsyncIterator[Stand]:
    """Two replicas, and the sample before them; the third that it names is away."""
    ca = authority(folder / "ca")
    pair = ca.issue("cache")
    public, first, second, nobody = (free_port() for _ in range(4))
    one = replica("one", sample, (folder, first, public), upstream, pair)
    two = replica("two", sample, (folder, second, public), upstream, pair)
    try:
        await asyncio.gather(one.start(), two.start())
        async with balancer(sample, folder, public, (first, second, nobody), pair, ca.bundle):
            yield Stand(sample, public, (one, two), upstream, ca)
    finally:
        await asyncio.gather(one.stop(), two.stop())


@module
async def stand(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> AsyncIterator[Stand]:
    """The sample that a test is about; one stand for all tests of a sample."""
    async with standing(request.param, tmp_path_factory.mktemp("stand"), upstream) as made:
        yield made


async def test_every_sample_is_tested() -> None:
    """No file lies there that nobody has started."""
    assert {path.name for path in FOLDER.iterdir()} == {sample.file for sample in SAMPLES}


@of()
async def test_real_clients_pull(stand: Stand, tmp_path: Path) -> None:
    """By the name and certificate that clients know, with the token service that the challenge names."""
    bundle = tmp_path / "trusted"
    bundle.mkdir()
    (bundle / "ca.crt").write_bytes(stand.authority.bundle.read_bytes())
    trusted = bundle if stand.sample.tls else None
    copied = await clients.skopeo_copy(stand.reference("1"), tmp_path / "skopeo", ca_folder=trusted)
    held = {f"sha256:{file.name}" for file in copied.iterdir() if len(file.name) == 64}
    assert set(SMALL.all_blobs()) <= held
    if not stand.sample.tls:  # from an https registry crane accepts no http realm, and the tests' has one
        assert await clients.crane_digest(stand.reference("1"), tmp_path / "crane") == SMALL.digest


@of()
async def test_each_client_has_its_own_address(stand: Stand) -> None:
    """The access log shows the client behind the balancer, and what the client says of itself is not believed."""
    path = "/v2/public/whoever/tags/list"
    told = {"X-Forwarded-For": "203.0.113.9", "X-Real-Ip": "203.0.113.9"}
    async with stand.way("127.0.0.77").session() as session, session.get(path, headers=told) as answer:
        await answer.read()

    async def written() -> bool:
        return any(entry["path"] == path for one in stand.replicas for entry in one.served())

    await until(written, what="the access log")
    found = [entry["address"] for one in stand.replicas for entry in one.served() if entry["path"] == path]
    assert found == ["127.0.0.77"]


@of()
async def test_names_lead_back_here(stand: Stand) -> None:
    """The challenge is the upstream's own, the next page is here, and the store's URL is left alone."""
    tags = f"/v2/{REPOSITORY}/tags/list"
    async with Way(stand.url).session() as session, session.get("/v2/") as answer:
        assert answer.status == 401
        assert f'realm="{stand.upstream.tokens.realm}"' in answer.headers["WWW-Authenticate"]
    async with stand.way().session() as session:
        async with session.get(tags, params={"n": "1"}) as answer:
            assert (await answer.json())["tags"] == ["1"]
            link = answer.headers["Link"]
        where = stand.url if "host" in stand.sample.replicas_part().get("http", {}) else ""
        assert link.startswith(f"<{where}{tags}?")
        async with session.get(answer.links["next"]["url"]) as more:
            assert (await more.json())["tags"] == ["big"]


@of()
async def test_redirects_are_left_alone(stand: Stand) -> None:
    """Who is redirected is told by the client's own address, and the URL comes as the cache wrote it."""
    layer = stand.upstream.big.layers[0]
    path = f"/v2/{REPOSITORY}/blobs/{layer.digest}"
    async with stand.way().session() as session, session.get(path) as answer:
        assert answer.status == 200
        assert len(await answer.read()) == layer.size
    async with stand.way(REDIRECTED).session() as session:

        async def redirected() -> bool:
            async with session.get(path, allow_redirects=False) as answer:
                where = answer.headers.get("Location", "")
                return answer.status == 307 and where.startswith(f"{BLOBS}/docker/registry/v2/blobs/sha256/")

        await until(redirected, what="a redirect to the store")


@of()
async def test_long_tokens_pass(stand: Stand) -> None:
    """A token of 40 KiB reaches the upstream, which refuses it: no balancer does."""
    headers = {"Authorization": f"Bearer {'a' * LONG}"}
    async with Way(stand.url).session() as session, session.get("/v2/", headers=headers) as answer:
        assert answer.status == 401
        assert "realm" in answer.headers["WWW-Authenticate"]


@of()
async def test_a_replica_that_is_not_ready_gets_nothing(stand: Stand) -> None:
    """Readiness decides, and a replica that is ready again is taken back."""
    if not stand.sample.watches:
        assert "It looks at no health" in stand.sample.text
        return
    one = stand.replicas[0]
    away = one.folder / f"{one.name}.away"
    away.touch()
    await until(
        lambda: only(stand, "two"), what="the balancer to leave a replica that is not ready", seconds=60
    )
    away.unlink()
    await until(lambda: answered_by(stand, "one"), what="the balancer to take it back", seconds=60)


async def replica_of(session: aiohttp.ClientSession) -> str:
    """Who answers now."""
    async with session.get("/v2/") as answer:
        return answer.headers.get("X-Replica", "nobody")


async def only(stand: Stand, name: str) -> bool:
    """Whether twelve new connections in a row come to one replica."""
    async with Way(stand.url).session(kept=False) as session:
        return {await replica_of(session) for _ in range(12)} == {name}


async def answered_by(stand: Stand, name: str) -> bool:
    """Whether a new connection comes to that replica."""
    async with Way(stand.url).session(kept=False) as session:
        return await replica_of(session) == name


@of(*SLOW)
async def test_no_pull_fails_while_replicas_are_restarted(stand: Stand, tmp_path: Path) -> None:
    """Each in turn leaves and comes back under load; a body that it was sending is sent to its end."""
    big = paths(REPOSITORY, "big", stand.upstream.big)
    path, layer = list(big.items())[-1]
    load = Load(stand.way(), paths(REPOSITORY, "1", SMALL))
    async with stand.way().session() as session, load.running(stand.reference("1"), tmp_path / "copy"):
        for one in stand.replicas:
            body = await slow_body(session, path, layer, one.name)
            one.leave()
            await one.closed()
            await body.rest()
            assert await one.ended() == 0
            await one.start()
            await load.answered_by(one.name)
    assert load.failures == []
    assert load.pulls
