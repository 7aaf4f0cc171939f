"""Clients that pull, check every byte, and come again as containerd does: at the byte where it broke, a few times."""

import asyncio
import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from tests.chaos.verdict import Attempt, Pulled

TRIES: Final = 8
PIECE: Final = 64 * 1024
NEW: Final = 6
"""A client asks for one of so many newest blobs in one of two pulls: a cold crowd."""
SLEEPERS: Final = 12
"""The first so many are asked for in one of thirty pulls: they expire, and come again."""
PAUSE: Final = 1.5
"""Seconds at most between two pulls of a client: the machine is for the replicas, too."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something to pull."""

    path: str
    digest: str
    size: int


@dataclass(slots=True)
class Crowd:
    """`count` clients before one address. `shelf` grows while they pull."""

    url: str
    shelf: Sequence[Wanted]
    began: float
    seed: int
    count: int = 40
    pulled: list[Pulled] = field(default_factory=list)

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    async def pull(self, until: asyncio.Event) -> None:
        """All clients, until they are told to stop and have ended what they had begun."""
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=20)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=5)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self.count):
                group.create_task(self._client(session, random.Random(self.seed * 1000 + number), until))

    async def _client(
        self, session: aiohttp.ClientSession, chance: random.Random, until: asyncio.Event
    ) -> None:
        while not until.is_set():
            wanted = self._next(chance)
            self.pulled.append(pulled := Pulled(wanted.digest, wanted.size))
            await self._pull(session, wanted, pulled)
            await asyncio.sleep(chance.uniform(0, PAUSE))

    def _next(self, chance: random.Random) -> Wanted:
        luck = chance.random()
        if luck < 0.03 or len(self.shelf) <= SLEEPERS:
            return chance.choice(self.shelf[:SLEEPERS])
        return chance.choice(self.shelf[-NEW:] if luck < 0.5 else self.shelf[SLEEPERS:])

    async def _pull(self, session: aiohttp.ClientSession, wanted: Wanted, pulled: Pulled) -> None:
        body, hasher = 0, hashlib.sha256()
        for number in range(TRIES):
            attempt = Attempt(self.now())
            pulled.attempts.append(attempt)
            try:
                body = await self._attempt(session, wanted, attempt, hasher, body)
            except (aiohttp.ClientError, OSError, TimeoutError, _CutError) as error:
                attempt.error = f"{type(error).__name__}: {error}"
                body = error.at if isinstance(error, _CutError) else body
            attempt.stop = self.now()
            if not attempt.error:
                pulled.ended_well = True
                pulled.wrong = f"sha256:{hasher.hexdigest()}" != wanted.digest
                return
            await asyncio.sleep(min(4.0, 0.3 * 2**number))

    async def _attempt(
        self,
        session: aiohttp.ClientSession,
        wanted: Wanted,
        attempt: Attempt,
        hasher: "hashlib._Hash",
        start: int,
    ) -> int:
        """The rest of it from byte `start`. Raises what a client sees; _CutError tells how far it came."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with session.get(f"{self.url}{wanted.path}", headers=headers) as answer:
            if (name := answer.headers.get("X-Replica")) is not None:
                attempt.replica = int(name) - 1
            if answer.status not in (200, 206):
                raise _CutError(start, f"{answer.status} {(await answer.text())[:200]}")
            at, last = start, self.now()
            try:
                async for piece in answer.content.iter_chunked(PIECE):
                    hasher.update(piece)
                    at += len(piece)
                    attempt.stall = max(attempt.stall, self.now() - last)
                    last = self.now()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise _CutError(at, f"{type(error).__name__} at byte {at}: {error}") from error
            if at != wanted.size:
                raise _CutError(at, f"it ended well after {at} of {wanted.size} bytes")
            return at


class _CutError(Exception):
    def __init__(self, at: int, text: str) -> None:
        super().__init__(text)
        self.at = at
