"""Pulls through a load balancer, checked to the last byte, again and again while something happens to replicas."""

import asyncio
import hashlib
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.stage import clients
from tests.stage.images import OCI_MANIFEST, Content, Image
from tests.stage.process import until

PIECE = 64 * 1024
PAUSE = 0.1
"""Between two pulls of a client: the machine is for the replicas, too."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a client reaches the cache, and as whom."""

    url: str
    token: str = ""
    source: str = "127.0.0.1"

    @asynccontextmanager
    async def session(self, *, kept: bool = True) -> AsyncIterator[aiohttp.ClientSession]:
        """A client at an address of its own; without `kept` each request has a connection of its own."""
        connector = aiohttp.TCPConnector(
            local_addr=(self.source, 0), family=socket.AF_INET, ssl=False, force_close=not kept
        )
        headers = {"Accept": OCI_MANIFEST}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
        async with aiohttp.ClientSession(
            self.url, connector=connector, headers=headers, timeout=timeout
        ) as session:
            yield session


def paths(repository: str, tag: str, image: Image) -> dict[str, Content]:
    """What a pull of an image asks for, in order."""
    found = {f"/v2/{repository}/manifests/{tag}": image.manifest}
    return found | {f"/v2/{repository}/blobs/{digest}": blob for digest, blob in image.all_blobs().items()}


@dataclass(slots=True)
class Body:
    """An answer that is being read slowly; `replica` sends it."""

    answer: aiohttp.ClientResponse
    wanted: Content
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def replica(self) -> str:
        """Who it comes from."""
        return self.answer.headers["X-Replica"]

    async def rest(self) -> None:
        """Read it to its end, and look at every byte."""
        async for piece in self.answer.content.iter_chunked(PIECE):
            self.digest.update(piece)
        assert f"sha256:{self.digest.hexdigest()}" == self.wanted.digest


async def slow_body(session: aiohttp.ClientSession, path: str, wanted: Content, replica: str) -> Body:
    """A body of a certain replica of which a piece has been read, and the rest waits in its sockets."""
    for _ in range(60):
        answer = await session.get(path)
        answer.raise_for_status()
        body = Body(answer, wanted)
        if body.replica == replica:
            body.digest.update(await answer.content.readexactly(PIECE))
            return body
        answer.close()
    raise AssertionError(f"60 requests, and none came to replica {replica}")


@dataclass(slots=True)
class Load:
    """Clients that pull until they are told to stop, without a retry of their own."""

    way: Way
    wanted: dict[str, Content]
    failures: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """By replica."""
    pulls: int = 0
    _ending: bool = False

    async def pull(self, session: aiohttp.ClientSession) -> None:
        """One image; what goes wrong is kept."""
        for path, wanted in self.wanted.items():
            try:
                async with session.get(path) as answer:
                    body = await answer.read()
                    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
                    if answer.status != 200 or digest != wanted.digest:
                        self.failures.append(f"{path}: {answer.status} {answer.headers} {body[:200]!r}")
                    self.answers[answer.headers.get("X-Replica", "nobody")] += 1
            except (OSError, aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(f"{path}: {type(error).__name__}: {error}")
        self.pulls += 1

    async def keep_pulling(self, *, kept: bool) -> None:
        """A client of our own, with connections that are kept or a new one each time."""
        async with self.way.session(kept=kept) as session:
            while not self._ending:
                await self.pull(session)
                await asyncio.sleep(PAUSE)

    async def keep_copying(self, reference: str, folder: Path) -> None:
        """A real client, again and again."""
        while not self._ending:
            try:
                await clients.skopeo_copy(reference, folder)
            except clients.ClientFailedError as error:
                self.failures.append(str(error))
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            self.pulls += 1
            await asyncio.sleep(PAUSE)

    async def answered_by(self, replica: str) -> None:
        """Returns when a replica has answered once more."""
        had = self.answers[replica]

        async def again() -> bool:
            return self.answers[replica] > had

        await until(again, what=f"the balancer to take {replica} back", seconds=60)

    @asynccontextmanager
    async def running(self, reference: str, folder: Path) -> AsyncIterator[None]:
        """Four clients at work."""
        async with asyncio.TaskGroup() as group:
            for kept in (True, True, False):
                group.create_task(self.keep_pulling(kept=kept))
            group.create_task(self.keep_copying(reference, folder))
            try:
                yield
            finally:
                self._ending = True
