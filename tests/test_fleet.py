"""Two whole caches on one folder see each other: in their records and at /debug/fleet."""

import json
from pathlib import Path
from typing import Any

from msrcache.assembly import Application
from msrcache.cache.layout import replica_key
from msrcache.oci.digest import Digest
from tests.scenarios.plays import cache, pull, settled
from tests.stage.process import until
from tests.stage.scripted import scripted

DEBUG = {"REGISTRY_HTTP_DEBUG_ADDR": "localhost:0"}
PEERS = {**DEBUG, "REGISTRY_HTTP_SECRET": "equal on all replicas", "REGISTRY_CACHE_PEER_ADDR": "127.0.0.1:0"}


async def fleet(application: Application) -> dict[str, Any]:
    """What /debug/fleet shows, by replica."""
    port = int(application.service.aside_addresses[0].rsplit(":", 1)[1])
    answer = await pull(port, "/debug/fleet")
    assert answer.status == 200
    told = json.loads(answer.body)
    assert told["seen_by"] == application.replica
    return {row["replica"]: row for row in told["replicas"]}


async def test_two_replicas_on_one_folder(tmp_path: Path) -> None:
    """Each shows both: version, state, fills, figures; a clean stop removes a replica from the other's view."""
    async with scripted() as upstream:
        path = upstream.publish_blob(b"content")
        async with cache(tmp_path, upstream, heartbeat="50ms", environ=DEBUG) as one:
            async with cache(tmp_path, upstream, heartbeat="50ms", environ=DEBUG) as two:
                for _ in range(2):
                    assert (await pull(two, path)).body == b"content"
                    await settled(two)

                async def seen() -> bool:
                    row = (await fleet(one)).get(two.replica)
                    return row is not None and row["figures"].get("pulls") == 2 and row["life"] == "alive"

                await until(seen, what="a replica that is seen alive with its pulls")
                rows = await fleet(one)
                assert rows[one.replica]["life"] == "self"
                assert rows[two.replica]["figures"]["hits"] == 1
                assert rows[two.replica]["state"] == "ready"
                assert (tmp_path / "store" / replica_key(two.replica)).exists()

            async def alone() -> bool:
                return (await fleet(one)).keys() == {one.replica}

            await until(alone, what="a replica that is alone")
        assert not list((tmp_path / "store" / "msrcache" / "replicas").glob("*"))


async def _closed(application: Application) -> None:
    """Its peer port does not answer any more, and it goes on beating."""
    port, application.peering.port = application.peering.port, None
    assert port is not None
    await port.close()


def value(application: Application, name: str, **labels: str) -> float:
    """A metric."""
    return application.metrics.registry.get_sample_value(f"msrcache_{name}", labels) or 0.0


async def test_replicas_tell_each_other_over_their_peer_ports(tmp_path: Path) -> None:
    """Beats are measured, what is published is heard; who cannot be reached is told by name and counted."""
    async with scripted() as upstream:
        path = upstream.publish_blob(b"content")
        digest = Digest.of(b"content")
        async with (
            cache(tmp_path, upstream, heartbeat="50ms", environ=PEERS) as one,
            cache(tmp_path, upstream, heartbeat="50ms", environ=PEERS) as two,
        ):

            async def measured() -> bool:
                return all(value(each, "visibility_lag_seconds_count") >= 2 for each in (one, two))

            async def met() -> bool:
                return [member.replica for member in one.fleet.alive()] == sorted([one.replica, two.replica])

            await until(measured, what="beats that were measured")
            await until(met, what="a fleet of two")
            assert (await pull(one, path)).body == b"content"
            await settled(one)

            async def heard() -> bool:
                return digest in two.fleet.news._published

            await until(heard, what="news of a blob")

            async def told() -> bool:
                return "lag" in (await fleet(one))[two.replica]["figures"]

            await until(told, what="the record with what was measured")
            figures = (await fleet(one))[two.replica]["figures"]
            assert figures["violations"] == 0
            assert figures["lag"] >= 0
            await _closed(two)

            async def unreached() -> bool:
                return two.replica in (await fleet(one))[one.replica]["unreached"]

            await until(unreached, what="a replica that cannot be reached")
            assert value(one, "peers_unreached") == 1
