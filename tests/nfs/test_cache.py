"""The whole cache on NFS, one replica on each machine: one fills, the other serves; the file server comes and goes."""

import asyncio
import json

import pytest

from tests.nfs.harness import on_nodes
from tests.nfs.replicas import PROGRAM, pair
from tests.stage.images import noise
from tests.stage.nodes.fleet import Fleet
from tests.stage.process import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

CHECKED = "/mnt/tmp/checked.yml"
CHECK = f"{PROGRAM} check-storage {CHECKED}"


async def test_one_fills_the_other_serves(nodes: Fleet) -> None:
    """Blobs that the second replica has looked for in vain are its hits as soon as they are the first one's."""
    async with pair(nodes, "default") as caches:
        blobs = {caches.upstream.publish_blob(data): data for data in (noise(200_000, n) for n in range(8))}
        for path, data in blobs.items():
            assert (await caches.there.pull(path, method="HEAD")).headers["x-cache"] != "hit"
            got = await caches.here.pull(path)
            assert (got.body, got.headers["x-cache"]) == (data, "miss")
            await caches.here.has(path)
            got = await caches.there.pull(path)
            assert (got.body, got.headers["x-cache"]) == (data, "hit")
        assert sorted(line for line in caches.upstream.lines if line.startswith("GET /v2/t")) == sorted(
            f"GET {path}" for path in blobs
        )
        assert "Traceback" not in await caches.here.said() + await caches.there.said()


async def test_a_file_server_that_hangs_makes_a_slow_cache(nodes: Fleet) -> None:
    """Stored and unknown blobs come from the upstream meanwhile, health answers; then hits are hits again."""
    async with pair(nodes, "default") as caches:
        stored, unknown = noise(200_000, 100), noise(200_000, 101)
        paths = [caches.upstream.publish_blob(data) for data in (stored, unknown)]
        await caches.here.pull(paths[0])
        await caches.here.has(paths[0])
        nodes.server.node.pause()
        try:
            pulls = [asyncio.create_task(caches.there.pull(path)) for path in paths]
            assert (await caches.there.pull("/healthz")).status == 200
            assert [(await pull).body for pull in pulls] == [stored, unknown]
            assert b"store" in (await caches.there.pull("/readyz")).body
        finally:
            nodes.server.node.resume()
        await caches.there.has(paths[0])
        got = await caches.there.pull(paths[0])
        assert (got.body, got.headers["x-cache"]) == (stored, "hit")
        assert "Traceback" not in await caches.there.said()


async def test_a_file_server_that_dies_in_the_middle_of_a_hit(nodes: Fleet) -> None:
    """The body pauses until it is there again, and ends right."""
    async with pair(nodes, "default") as caches:
        data = noise(24_000_000, 102)
        path = caches.upstream.publish_blob(data)
        await caches.here.pull(path)
        await caches.here.has(path)
        async with caches.there.pulling(path) as answer:
            assert answer.headers["x-cache"] == "hit"
            assert await answer.take(1_000_000) == data[:1_000_000]
            nodes.server.kill()
            rest = asyncio.create_task(answer.rest(seconds=120))
            await nodes.server.start()
            assert await rest == data[1_000_000:]


@pytest.mark.slow
async def test_check_storage_between_the_machines(nodes: Fleet) -> None:
    """The operator's own check, from one machine to the other: every promise is kept, and the mount is told."""
    async with on_nodes(nodes, "default") as stores:
        config = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": stores.root}},
            "http": {"secret": "the same on both machines"},
            "cache": {"upstreams": [{"url": "http://10.99.0.1:1"}]},
        }
        for calls in (stores.here, stores.there):
            await calls.python("open(path, 'w').write(text)", path=CHECKED, text=json.dumps(config))
        peer = f"{nodes.clients[1].address}:5055"
        listen = f"{CHECK} --listen {peer} > /mnt/tmp/listen.log 2>&1 < /dev/null & echo $!"
        pid = await stores.there.shell(listen)

        async def listens() -> bool:
            return await nodes.network.accepts(nodes.clients[1].address, 5055)

        try:
            await until(listens, what="the other end of the check", seconds=60)
            said = await stores.here.shell(f"{CHECK} --peer http://{peer}")
        finally:
            await stores.there.shell(f"kill {pid}")
        for words in ("every promise is kept", "mount with lookupcache=positive", "root_squash is on"):
            assert words in said
