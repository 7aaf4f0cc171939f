"""Litter of our own goes when it is surely nobody's."""

from msrcache.cache.layout import LEASES, REPLICAS, USES
from msrcache.cache.litter import AFTER, tidy
from msrcache.oci.digest import Digest
from tests.cache.aging import Aging, aging

ONE, OTHER = Digest.of(b"1").hex, Digest.of(b"2").hex


def _have(stage: Aging, *keys: str) -> None:
    for key in keys:
        stage.memory.contents.store(key, b'{"v": 1}')


async def test_what_is_old_goes() -> None:
    """Heartbeats, probes and leases; not what changed within the hour, nor anything that is not litter."""
    async with aging() as stage:
        _have(
            stage, f"{REPLICAS}dead", "msrcache/probe/dead/x", f"{LEASES}sha256/{ONE}/0", f"{LEASES}named/x/2"
        )
        _have(stage, f"{USES}dead/1", "msrcache/grants/x", "docker/registry/v2/x", f"{LEASES}odd")
        stage.clock.advance(AFTER + 1)
        _have(stage, f"{REPLICAS}living", "msrcache/probe/living/x", f"{LEASES}sha256/{OTHER}/0")
        before = stage.keys()
        assert await tidy(stage.store, now=stage.clock.time()) == 4
        gone = set(before) - set(stage.keys())
        assert gone == {
            f"{REPLICAS}dead",
            "msrcache/probe/dead/x",
            f"{LEASES}sha256/{ONE}/0",
            f"{LEASES}named/x/2",
        }


async def test_a_lease_goes_whole_from_its_highest_generation() -> None:
    """And not at all while one of its records changes, though the listing does not show it yet."""
    async with aging() as stage:
        rungs = [f"{LEASES}sha256/{ONE}/{number}" for number in (9, 10, 11)]
        _have(stage, *rungs)
        stage.clock.advance(AFTER + 1)
        stage.memory.contents.lag()
        _have(stage, rungs[1])
        assert await tidy(stage.store, now=stage.clock.time()) == 0
        stage.memory.contents.catch_up()
        assert await tidy(stage.store, now=stage.clock.time()) == 0
        stage.clock.advance(AFTER + 1)
        del stage.sickness.calls[:]
        assert await tidy(stage.store, now=stage.clock.time()) == 3
        deleted = [call.split()[1] for call in stage.sickness.calls if call.startswith("delete")]
        assert deleted == rungs[::-1]


async def test_what_somebody_else_removed_is_no_trouble() -> None:
    """A listing shows it still."""
    async with aging() as stage:
        _have(stage, f"{REPLICAS}dead", f"{LEASES}sha256/{ONE}/0")
        stage.clock.advance(AFTER + 1)
        stage.memory.contents.lag()
        stage.memory.contents.objects.clear()
        assert await tidy(stage.store, now=stage.clock.time()) == 2
