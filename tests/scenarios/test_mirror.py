"""As containerd's mirror: `?ns=` on every request is understood and echoed, and decides nothing."""

from pathlib import Path

from msrcache.assembly import Application
from msrcache.config.load import parse
from tests.scenarios.plays import cache, configuration, port_of, pull, settled
from tests.stage.images import noise
from tests.stage.scripted import Turn, scripted

DATA = noise(100_000, 12)
NS = "?ns=registry.example.com"


async def test_pulls_with_a_namespace(tmp_path: Path) -> None:
    """Cold and warm, whole and in part, refused and absent: answered as without one, echoed, not passed on."""
    async with scripted() as upstream, cache(tmp_path, upstream, mode="upstream") as application:
        path = upstream.publish_blob(DATA)
        cold = await pull(application, path + NS)
        await settled(application)
        warm = await pull(application, path + NS)
        part = await pull(application, path + NS, Range="bytes=5-9")
        other = await pull(application, path + "?ns=another.example.com")
        assert [got.body for got in (cold, warm, part, other)] == [DATA, DATA, DATA[5:10], DATA]
        assert [got.headers["x-cache"] for got in (cold, warm, part)] == ["miss", "hit", "hit"]
        upstream.guard = lambda request: Turn(status=401)
        refused = await pull(application, path + NS, Authorization="Bearer bob")
        upstream.guard = lambda request: None
        absent = await pull(application, "/v2/team/app/manifests/never" + NS)
        assert (refused.status, absent.status) == (401, 404)
        for got in (cold, warm, part, refused, absent):
            assert got.headers["oci-namespace"] == "registry.example.com"
        assert other.headers["oci-namespace"] == "another.example.com"
        assert [line for line in upstream.lines if "ns=" in line] == []


async def test_a_chain_of_caches(tmp_path: Path) -> None:
    """A cache of a cache is an upstream like any other: the registry sends each blob once."""
    async with scripted() as upstream, cache(tmp_path / "inner", upstream) as inner:
        path = upstream.publish_blob(DATA)
        text = configuration(tmp_path / "outer", f"http://127.0.0.1:{port_of(inner)}")
        async with Application(parse(text, "config.yml", {}).config).running() as outer:
            got = await pull(outer, path + NS)
            await settled(outer)
            await settled(inner)
            again = await pull(outer, path + NS)
        assert (got.body, again.body, again.headers["x-cache"]) == (DATA, DATA, "hit")
        assert upstream.lines == [f"GET {path}"]
