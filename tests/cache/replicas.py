"""Two replicas on one store: one fetches and stands in the middle of a blob, the other has just come for it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from msrcache.cache.lease import Found
from msrcache.oci.digest import Digest
from msrcache.oci.pulls import BlobPull
from tests.cache.fleet import ScriptedLeases, Wire, holding
from tests.cache.kitchen import Cache, blob_pull, cache

DATA = random.Random(61).randbytes(600_000)
HALF = 300_000


@dataclass(slots=True)
class Two:
    """A replica that fetches and stands at HALF, and one that has just been told what to do."""

    a: Cache
    b: Cache
    wire: Wire
    turns: ScriptedLeases
    digest: Digest
    fetching: "asyncio.Task[bytes]"

    def fetched_here(self) -> list[BlobPull]:
        """What the second one asked the upstream for."""
        return self.b.upstream.fetched()

    async def finished(self, *, follower: bool = True) -> None:
        """The first one brings the rest in, once the second one follows it."""
        while follower and not self.wire.starts:
            await asyncio.sleep(0)
        self.a.upstream.release.set()
        assert await self.fetching == DATA
        await self.a.pulls.settled()


@asynccontextmanager
async def two_replicas(path: Path, turns: ScriptedLeases, *, data: bytes = DATA) -> AsyncIterator[Two]:
    """Both, in folders of their own; on leaving everything goes on to its end."""
    async with cache(path / "a", leases=holding()) as a:
        wire = Wire(a)
        digest = a.upstream.publish("team/a", data)
        a.upstream.hold_at = HALF
        fetching = asyncio.create_task(a.get(blob_pull(digest)))
        await a.upstream.reached.wait()
        async with cache(path / "b", contents=a.memory.contents, leases=turns, peers=wire) as b:
            b.upstream.publish("team/a", data)
            try:
                yield Two(a, b, wire, turns, digest, fetching)
            finally:
                a.upstream.release.set()
                await asyncio.gather(fetching, return_exceptions=True)
                # a follower that has all of it waits until the store has it
                turns.script.turns.append(Found())
