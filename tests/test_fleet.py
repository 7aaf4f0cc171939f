"""Two whole caches on one folder see each other: in their records and at /debug/fleet."""

import json
from pathlib import Path
from typing import Any

from msrcache.assembly import Application
from msrcache.cache.layout import replica_key
from tests.scenarios.plays import cache, pull, settled
from tests.stage.process import until
from tests.stage.scripted import scripted

DEBUG = {"REGISTRY_HTTP_DEBUG_ADDR": "localhost:0"}


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
                    return row is not None and row["figures"].get("pulls") == 2

                await until(seen, what="a replica that is seen with its pulls")
                rows = await fleet(one)
                assert (rows[one.replica]["life"], rows[two.replica]["life"]) == ("self", "alive")
                assert rows[two.replica]["figures"]["hits"] == 1
                assert rows[two.replica]["state"] == "ready"
                assert (tmp_path / "store" / replica_key(two.replica)).exists()

            async def alone() -> bool:
                return (await fleet(one)).keys() == {one.replica}

            await until(alone, what="a replica that is alone")
        assert not list((tmp_path / "store" / "msrcache" / "replicas").glob("*"))
