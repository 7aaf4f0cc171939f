"""A replica writes down what it serves where something expires, and only there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msrcache.cache.expiry import Terms
from msrcache.cache.journal import read_journal
from msrcache.cache.layout import LOOKED, USES, blob_key, condemned_key, layer_link
from msrcache.cache.leasearrival import LeaseSettings
from msrcache.cache.leasing import Claimant, FleetLeases
from msrcache.cache.presence import Presence
from msrcache.config.load import load
from msrcache.config.model import Config
from msrcache.expiring import Expiring, policy_of
from msrcache.leases import Held, Turns
from msrcache.oci.digest import Digest
from tests.cache.aging import DAY, Aging, aging
from tests.cache.kitchen import A

ONE, OTHER = Digest.of(b"1"), Digest.of(b"2")


def _config(path: Path, *, delete: bool = True, readonly: bool = False) -> Config:
    file = path / "config.yml"
    file.write_text(
        f"""
version: 0.1
storage:
  filesystem: {{rootdirectory: {path}}}
  delete: {{enabled: {delete}}}
  maintenance: {{readonly: {{enabled: {readonly}}}}}
proxy: {{remoteurl: "http://127.0.0.1:1", ttl: 1h}}
"""
    )
    return load(file, {}).config


def _expiring(stage: Aging, config: Config) -> Expiring:
    presence = Presence(stage.clock)
    return Expiring(config, presence, replica="here-00000001", metrics=stage.metrics, clock=stage.clock)


@asynccontextmanager
async def _turns(stage: Aging) -> AsyncIterator[Turns]:
    claimant, settings = Claimant("here-00000001"), LeaseSettings()
    leases = FleetLeases(stage.store, claimant, settings=settings, metrics=stage.metrics, clock=stage.clock)
    yield leases.named
    await leases.close()


async def test_leaving_writes_down_what_was_used(tmp_path: Path) -> None:
    """At once when draining begins, and what came after that at the end."""
    async with aging() as stage:
        expiring = _expiring(stage, _config(tmp_path))
        await expiring.flush()
        async with expiring.running(stage.store):
            expiring.uses.note(ONE)
            await expiring.flush()
            expiring.uses.note(OTHER)
        objects = stage.memory.contents.objects
        assert [read_journal(objects[key].data) for key in stage.keys(USES)] == [[ONE], [OTHER]]


@pytest.mark.parametrize("settings", [{"delete": False}, {"readonly": True}])
async def test_where_nothing_expires_nothing_is_written(tmp_path: Path, settings: dict[str, bool]) -> None:
    """Journals that nobody would merge would grow for ever."""
    async with aging() as stage:
        config = _config(tmp_path, **settings)
        expiring = _expiring(stage, config)
        async with expiring.running(stage.store):
            expiring.uses.note(ONE)
            await expiring.flush()
        assert stage.keys() == []


@pytest.mark.parametrize(
    ("happens", "result"),
    [
        ("nothing", "done"),
        ("somebody else has the lease", "busy"),
        ("somebody has looked", "early"),
        ("a record cannot be read", "blocked"),
        ("the store fails", "failed"),
    ],
)
async def test_a_replica_takes_its_turn_as_the_janitor(tmp_path: Path, happens: str, result: str) -> None:
    """Every interval, unless somebody else has; whatever happens is counted, and the next turn comes."""
    async with aging() as stage:
        if happens == "somebody has looked":
            stage.memory.contents.store(LOOKED, b"")
        elif happens == "a record cannot be read":
            stage.memory.contents.store(f"{USES}there-00000001/1", b"torn")
        elif happens == "the store fails":
            stage.sickness.fails["put"] = LOOKED
        old = stage.memory.contents
        old.store("msrcache/replicas/dead", b"{}")
        stage.clock.advance(1000 if happens == "somebody has looked" else 7200)
        expiring = _expiring(stage, _config(tmp_path))
        async with _turns(stage) as turns:
            asked = _taken if happens == "somebody else has the lease" else turns
            assert await expiring._took_turn(stage.store, asked) == result
        assert ("msrcache/replicas/dead" in old.objects) == (result != "done")


@asynccontextmanager
async def _taken(name: str) -> AsyncIterator[Held | None]:
    assert name == "janitor"
    yield None


async def test_without_terms_only_litter_goes(tmp_path: Path) -> None:
    """What is stored stays, and no journal is written, merged or listed."""
    async with aging() as stage:
        digest = stage.hold(b"one")
        stage.memory.contents.store("msrcache/replicas/dead", b"{}")
        stage.clock.advance(10 * DAY)
        config = _config(tmp_path, delete=False)
        expiring = _expiring(stage, config)
        async with _turns(stage) as turns:
            assert await expiring._took_turn(stage.store, turns) == "done"
        assert stage.keys("docker/") == sorted([blob_key(digest), layer_link(A, digest)])
        assert stage.keys("msrcache/") == [LOOKED]


async def test_a_rescue_goes_through_the_uses(tmp_path: Path) -> None:
    """What is noted and condemned is rescued, and nobody is sent there meanwhile."""
    async with aging() as stage:
        stage.memory.contents.store(condemned_key(ONE), b'{"v": 1}')
        expiring = _expiring(stage, _config(tmp_path))
        assert not expiring.may_go(ONE)
        async with expiring.running(stage.store):
            while not expiring.may_go(ONE):
                await asyncio.sleep(0)
            expiring.uses.note(ONE)
            while stage.keys("msrcache/condemned/"):
                await asyncio.sleep(0)


def test_the_terms_are_the_configurations(tmp_path: Path) -> None:
    """By blobttl; nothing without storage.delete.enabled."""
    assert policy_of(_config(tmp_path)).terms == Terms(ttl=3600.0)
    assert policy_of(_config(tmp_path, delete=False)).terms == Terms()
    assert policy_of(_config(tmp_path)).wait == 600 + 1200 + 2 * 300
