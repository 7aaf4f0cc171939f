"""The operator's own checks (`health:` of config.yml): a file that must not be, a URL and an address that
must answer.

Each looks at its interval, off the loop's way, and fails after `threshold` bad looks in a row; one good
look heals it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp

from msrcache.config.registry import FileCheckSection, HealthSection, HttpCheckSection, TcpCheckSection


class Check(Protocol):
    """One thing that is looked at."""

    @property
    def name(self) -> str:
        """What the operator knows it by."""

    async def look(self) -> str | None:
        """What is wrong, in words; None when all is well. Never raises, ends within its own time."""


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Fails while the file exists."""

    section: FileCheckSection

    @property
    def name(self) -> str:
        return self.section.file

    async def look(self) -> str | None:
        try:
            there = await asyncio.to_thread(Path(self.section.file).exists)
        except OSError as cause:
            return f"cannot look: {cause.strerror}"
        return "file exists" if there else None


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """Fails while HEAD of the URL gives another status than the one expected."""

    section: HttpCheckSection

    @property
    def name(self) -> str:
        return self.section.uri

    async def look(self) -> str | None:
        section = self.section
        headers = [(name, value) for name, values in section.headers.items() for value in values]
        timeout = aiohttp.ClientTimeout(total=section.timeout)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.head(section.uri, headers=headers, allow_redirects=False) as response,
            ):
                if response.status != section.status_code:
                    return f"status {response.status} instead of {section.status_code}"
        except TimeoutError:
            return f"no answer within {section.timeout:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as cause:
            return f"no answer: {type(cause).__name__}"
        return None


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """Fails while nothing accepts at the address."""

    section: TcpCheckSection

    @property
    def name(self) -> str:
        return self.section.addr

    async def look(self) -> str | None:
        host, _, port = self.section.addr.rpartition(":")
        try:
            async with asyncio.timeout(self.section.timeout):
                _, writer = await asyncio.open_connection(host.strip("[]") or "127.0.0.1", int(port))
        except TimeoutError:
            return f"no connection within {self.section.timeout:g} s"
        except OSError as cause:
            return f"no connection: {cause.strerror or type(cause).__name__}"
        writer.close()
        return None


class Watch:
    """One check's memory: how many looks in a row were bad."""

    def __init__(self, check: Check, *, threshold: int) -> None:
        self.check = check
        self._threshold = max(threshold, 1)
        self._bad = 0
        self._problem = ""

    def note(self, problem: str | None) -> None:
        """Take the result of a look."""
        self._bad = self._bad + 1 if problem is not None else 0
        self._problem = problem or ""

    @property
    def problem(self) -> str | None:
        """What is wrong, once it has been wrong often enough."""
        return self._problem if self._bad >= self._threshold else None


class Checks:
    """All checks of the configuration; `start` begins to look, `close` ends it."""

    def __init__(self, section: HealthSection | None = None) -> None:
        section = section or HealthSection()
        self._watches: list[tuple[Watch, float]] = [
            *((Watch(FileCheck(one), threshold=0), one.interval) for one in section.file),
            *((Watch(HttpCheck(one), threshold=one.threshold), one.interval) for one in section.http),
            *((Watch(TcpCheck(one), threshold=one.threshold), one.interval) for one in section.tcp),
        ]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def watches(self) -> Sequence[Watch]:
        return [watch for watch, _ in self._watches]

    def failing(self) -> dict[str, str]:
        """Name of each failing check -> what is wrong."""
        return {watch.check.name: watch.problem for watch, _ in self._watches if watch.problem is not None}

    def start(self) -> None:
        """Look at everything now, and then at its interval."""
        self._tasks = [asyncio.create_task(_keep_looking(*entry)) for entry in self._watches]

    async def close(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []


async def _keep_looking(watch: Watch, interval: float) -> None:
    while True:
        watch.note(await watch.check.look())
        await asyncio.sleep(max(interval, 0.1))
