"""Starts a real program on a free loopback port, waits until it is ready, and ends it by its own id.

For servers that tests talk to; not for clients that run and end (see `clients`). Programs are started with
`subprocess`, not with the loop, so that one may outlive the loop of a single test.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

# Below the kernel's ephemeral range: a port that is free now is not taken by somebody's outgoing connection.
_PORTS = range(20_000, 32_000)
_given: set[int] = set()


class NotReadyError(AssertionError):
    """A program ended or did not become ready in time; the message ends with its log."""


def free_port() -> int:
    """A loopback port that nothing listens on, given to nobody else in this process."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            if port not in _given:
                probe.bind(("127.0.0.1", port))
                _given.add(port)
                return port
    raise NotReadyError("no free loopback port between 20000 and 32000")


async def until(condition: Callable[[], Awaitable[bool]], *, what: str, seconds: float = 30) -> None:
    """Polls until the condition holds; NotReadyError names `what` after the deadline."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise NotReadyError(f"waited {seconds:g} s in vain for {what}") from None


async def answers(url: str, *, below: int = 500) -> bool:
    """Whether a GET is answered at all with a status below the given one (certificates are not checked)."""
    timeout = aiohttp.ClientTimeout(total=2)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, ssl=False) as answer:
            return answer.status < below
    except (OSError, aiohttp.ClientError, TimeoutError):
        return False


async def listens(port: int) -> bool:
    """Whether something accepts connections on the loopback port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


@dataclass(frozen=True, slots=True)
class Process:
    """A running program and the file with what it says."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The id to send signals to."""
        return self.popen.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone, by itself or by us."""
        return self.popen.poll() is not None

    def said(self, limit: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-limit:]

    async def wait(self, seconds: float = 30) -> int:
        """Its exit code, once it has ended."""
        await until(self._gone, what=f"{self.name} to end", seconds=seconds)
        return self.popen.wait()

    async def stop(self, seconds: float = 15) -> int:
        """SIGTERM, then SIGKILL to its own group after the time; returns the exit code. Idempotent."""
        if not self.ended:
            self.popen.terminate()
        try:
            return await self.wait(seconds)
        except NotReadyError:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL to its group at once, as a crash would; returns the exit code."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.popen.wait()

    async def _gone(self) -> bool:
        return self.ended


def start(
    name: str, argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None
) -> Process:
    """Starts a program in a process group of its own; env adds to the environment. Not yet ready."""
    with log.open("ab") as sink:
        popen = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    return Process(name=name, popen=popen, log=log)


@contextlib.asynccontextmanager
async def running(
    name: str,
    argv: Sequence[str | Path],
    *,
    ready: Callable[[], Awaitable[bool]],
    log: Path,
    env: Mapping[str, str] | None = None,
    seconds: float = 30,
) -> AsyncIterator[Process]:
    """A program that is ready inside the context and gone after it; a failure tells its log."""
    process = start(name, argv, log=log, env=env)
    try:
        await _become_ready(process, ready, seconds)
        yield process
    finally:
        await process.stop()


async def _become_ready(process: Process, ready: Callable[[], Awaitable[bool]], seconds: float) -> None:
    async def ready_or_gone() -> bool:
        return process.ended or await ready()

    try:
        await until(ready_or_gone, what=f"{process.name} to become ready", seconds=seconds)
    except NotReadyError as error:
        raise NotReadyError(f"{error}; its log:\n{process.said()}") from None
    if process.ended:
        code = process.popen.returncode
        raise NotReadyError(f"{process.name} ended with {code} at once; its log:\n{process.said()}")
