"""`msrcache status [CONFIG]`: who is there, what they do, and what deserves a look; from the store or from a replica.

Exit status: 0 all is well; 1 something deserves a look, and is said; 2 nothing could be seen.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TextIO

import aiohttp

from msrcache.cache.onlooker import Onlooker
from msrcache.command import opened
from msrcache.config.model import Config
from msrcache.fleettable import lines, rows_of, trouble
from msrcache.storage.errors import StorageError
from msrcache.telemetry.clock import SystemClock

CLEAR: Final = "\x1b[H\x1b[2J"
ANSWERED_WITHIN: Final = 10.0
REFRESHED: Final = 5.0
"""Seconds from one look to the next with --watch, where looking does not take time by itself."""


class Unseen(Exception):
    """The fleet cannot be seen; says why."""


class Source(Protocol):
    """Where the fleet is looked at."""

    async def look(self) -> Mapping[str, object]:
        """As /debug/fleet shows it. Raises Unseen, StorageError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """How it is shown; `watch`: again and again until interrupted."""

    out: TextIO
    as_json: bool = False
    watch: bool = False


def status(config: Config | None, *, url: str, showing: Showing) -> int:
    """Show the fleet as the replica with this debug address sees it, else as the configured store has it.

    `config` may be None where a `url` is given. Returns the exit status. Raises CannotStart.
    """
    return asyncio.run(_status(config, url, showing))


async def _status(config: Config | None, url: str, showing: Showing) -> int:
    async with _replica(url) if url else _store(config or Config()) as source:
        while True:
            code = await _shown(source, showing)
            if not showing.watch:
                return code
            await asyncio.sleep(REFRESHED)


async def _shown(source: Source, showing: Showing) -> int:
    try:
        told = await source.look()
    except (Unseen, StorageError) as error:
        _write(showing, f"the fleet cannot be seen: {error}\n")
        return 2
    rows = rows_of(told)
    if showing.as_json:
        showing.out.write(json.dumps(told, default=str, indent=None if showing.watch else 1) + "\n")
        showing.out.flush()
    else:
        _write(showing, "".join(f"{line}\n" for line in lines(rows)))
    return 1 if trouble(rows) else 0


def _write(showing: Showing, text: str) -> None:
    showing.out.write((CLEAR if showing.watch and showing.out.isatty() else "") + text)
    showing.out.flush()


@asynccontextmanager
async def _store(config: Config) -> AsyncIterator[Source]:
    async with opened(config, writable=False) as store:
        yield Onlooker(store, SystemClock(), interval=config.cache.heartbeat or 5.0)


@asynccontextmanager
async def _replica(url: str) -> AsyncIterator[Source]:
    timeout = aiohttp.ClientTimeout(total=ANSWERED_WITHIN)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield _Replica(session, url.removesuffix("/debug/fleet").rstrip("/") + "/debug/fleet")


@dataclass(frozen=True, slots=True)
class _Replica:
    """A replica that is asked what it sees."""

    session: aiohttp.ClientSession
    url: str

    async def look(self) -> Mapping[str, object]:
        """As Source."""
        try:
            async with self.session.get(self.url) as response:
                if response.status != 200:
                    advice = "is it the address of http.debug.addr?"
                    raise Unseen(f"{self.url} answers {response.status}: {advice}")
                told = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unseen(f"{self.url}: {str(error) or type(error).__name__}") from error
        if not isinstance(told, dict):
            raise Unseen(f"{self.url} answers something else than a fleet")
        return told
