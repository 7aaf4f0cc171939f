"""A play of expiry: three replicas on one store with signed URLs, everything that takes minutes in seconds, under load.

Some blobs are pulled all the time. Of the others each is pulled, left alone for as long as it takes to be condemned,
or deleted, and pulled again. Every byte is verified and no pull is tried a second time: what fails is a failure.
"""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from msrcache.assembly import Application
from msrcache.oci.digest import Digest
from msrcache.storage.memory import Contents
from tests.scenarios.plays import cache, port_of
from tests.stage.bucket import Bucket, Signing, bucket
from tests.stage.images import noise
from tests.stage.scripted import Scripted, scripted

HOT, COLD, CLIENTS = 20, 240, 4
SETTINGS = """\
  belief: 4s
  journal: 200ms
  expiry: {interval: 500ms}
  redirect: {lifetime: 6s}
"""
LIFETIME = 6.0
PAUSES = ((2.5, 8.0), (17.0, 24.0))
"""Seconds after which a blob was condemned, and after which it was deleted."""


@dataclass(slots=True)
class Play:
    """What runs, and what was seen."""

    replicas: list[Application]
    upstream: Scripted
    bucket: Bucket
    chance: random.Random
    pulls: int = 0
    late: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def deletions(self) -> int:
        """By any replica."""
        return self._counted("expired_total", "blobttl")

    @property
    def rescues(self) -> int:
        """By whoever served it, or by the janitor."""
        return self._counted("rescued_total", "replica") + self._counted("rescued_total", "janitor")

    @property
    def refills(self) -> int:
        """Blobs that were fetched again after they had been deleted."""
        fetched = [line for line in self.upstream.lines if line.startswith("GET") and "/blobs/" in line]
        return len(fetched) - len(set(fetched))

    def told(self) -> str:
        """The figures, in a line."""
        sent = len(self.bucket.ledger)
        return (
            f"{self.pulls} pulls ({sent} by URL), {self.deletions} deletions, {self.rescues} rescues,"
            f" {self.refills} refills, {len(self.failures)} failures, {self.late} came too late"
        )

    async def run_until(self, *, deletions: int, rescues: int, refills: int, within: float) -> None:
        """Pull until so many were counted; TimeoutError when they were not in time."""
        blobs = [noise(self.chance.randrange(66_000, 90_000), number) for number in range(HOT + COLD)]
        paths = {self.upstream.publish_blob(data): Digest.of(data) for data in blobs}
        hot, cold = list(paths)[:HOT], list(paths)[HOT:]
        async with aiohttp.ClientSession() as session:
            work = [asyncio.create_task(self._always(session, hot, paths)) for _ in range(CLIENTS)]
            work += [asyncio.create_task(self._now_and_then(session, path, paths[path])) for path in cold]
            try:
                async with asyncio.timeout(within):
                    while not self._seen(deletions, rescues, refills) and not self.failures:
                        await asyncio.sleep(0.1)
            finally:
                for task in work:
                    task.cancel()
                ended = await asyncio.gather(*work, return_exceptions=True)
        self.failures += [repr(error) for error in ended if isinstance(error, Exception)]

    def _seen(self, deletions: int, rescues: int, refills: int) -> bool:
        return self.deletions >= deletions and self.rescues >= rescues and self.refills >= refills

    async def _always(
        self, session: aiohttp.ClientSession, paths: list[str], digests: dict[str, Digest]
    ) -> None:
        while True:
            path = self.chance.choice(paths)
            await self._pull(session, path, digests[path])
            await asyncio.sleep(0.02)

    async def _now_and_then(self, session: aiohttp.ClientSession, path: str, digest: Digest) -> None:
        await asyncio.sleep(self.chance.uniform(0.0, 3.0))
        while True:
            await self._pull(session, path, digest)
            await asyncio.sleep(self.chance.uniform(*self.chance.choice(PAUSES)))

    async def _pull(self, session: aiohttp.ClientSession, path: str, digest: Digest) -> None:
        replica = self.chance.choice(self.replicas)
        url = f"http://127.0.0.1:{port_of(replica)}{path}"
        try:
            async with session.get(url, allow_redirects=False) as answer:
                data, sent = await answer.read(), time.monotonic()
            if answer.status == 307:
                async with session.get(answer.headers["Location"]) as answer:
                    data = await answer.read()
        except aiohttp.ClientError as error:
            self.failures.append(f"{path}: {error!r}")
            return
        if answer.status in (403, 404) and time.monotonic() - sent > LIFETIME / 2:
            self.late += 1  # by the fault of this machine: the URL had ended
            return
        self.pulls += 1
        if answer.status != 200:
            self.failures.append(f"{path}: {answer.status} from {answer.real_url.host}")
        elif Digest.of(data) != digest:
            self.failures.append(f"{path}: {len(data)} wrong bytes")

    def _counted(self, name: str, label: str) -> int:
        counters = (getattr(one.metrics, name).labels(label) for one in self.replicas)
        return int(sum(counter._value.get() for counter in counters))


@asynccontextmanager
async def play(folder: Path, patch: pytest.MonkeyPatch, *, seed: int = 1) -> AsyncIterator[Play]:
    """Three replicas that run."""
    contents = Contents(numbers=(time.time() + number * 1e-9 for number in itertools.count()))
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(bucket(contents))
        patch.setattr("msrcache.assembly.open_driver", lambda section: Signing(service))
        upstream = await stack.enter_async_context(scripted())
        environ = {
            "REGISTRY_STORAGE_DELETE_ENABLED": "true",
            "REGISTRY_PROXY_REMOTEURL": upstream.url,
            "REGISTRY_PROXY_TTL": "1s",
        }
        replicas = [
            await stack.enter_async_context(
                cache(folder / name, upstream, more=SETTINGS, heartbeat="5s", environ=environ)
            )
            for name in ("a", "b", "c")
        ]
        yield Play(replicas, upstream, service, random.Random(seed))
