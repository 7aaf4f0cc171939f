"""Disk calls in threads of their own, so that a disk that hangs takes these threads and nothing else.

A caller who leaves (deadline, cancellation) leaves the call behind: it goes on, and what it brings is
disposed of. When all threads hang, calls wait in line; beyond LINE they are refused at once, so that a file server
that hangs for hours costs no memory.
Not here: the threads (`threads`), what the calls do, and deadlines.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from msrcache.storage.errors import Unavailable, from_os_error
from msrcache.storage.threads import Threads

T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds that close() waits for the disk."""

LINE: Final = 10_000
"""Calls that may wait for a thread."""


class Disk:
    """At most `threads` disk calls at once; the rest wait in order."""

    def __init__(self, name: str, *, threads: int) -> None:
        self.name = name
        self._threads = Threads(name, threads)
        self._jobs: set[Future[Any]] = set()
        self._tidying: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Disk {self.name} [{len(self._jobs)} calls]>"

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Work that nobody need wait for; never refused."""
        job = self._threads.submit(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    async def run(
        self,
        key: str,
        work: Callable[[], T],
        *,
        writing: bool = False,
        dispose: Callable[[T], None] | None = None,
    ) -> T:
        """Work that is waited for; `dispose` gets what it brings when nobody waits any more.

        Raises StorageError.
        """
        if self._threads.waiting >= LINE:
            text = f"the disk does not answer: {LINE} calls wait for it"
            raise Unavailable(self.name, key, None, text)
        return await self.wait(self.submit(work), key, writing=writing, dispose=dispose)

    async def wait(
        self,
        job: Future[T],
        key: str,
        *,
        writing: bool = False,
        dispose: Callable[[T], None] | None = None,
    ) -> T:
        """As run, for work that was submitted."""
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if dispose is not None:
                job.add_done_callback(lambda job: _dispose(job, dispose))
            raise
        except OSError as error:
            raise from_os_error(self.name, key, error, writing=writing) from error

    def tidy(self, work: Callable[[], object], *, after: Future[Any] | None) -> asyncio.Task[None]:
        """Run `work` once `after` is done, whether anybody waits for it or not."""

        async def wait_and_work() -> None:
            if after is not None:
                await _settled(after)
            await _settled(self.submit(work))

        task = asyncio.create_task(wait_and_work())
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)
        return task

    async def close(self) -> None:
        """End the threads. Waits some seconds for what the disk is doing; what hangs is left behind."""
        pending = [*self._tidying, *(asyncio.ensure_future(_settled(job)) for job in tuple(self._jobs))]
        if pending:
            _, hung = await asyncio.wait(pending, timeout=PATIENCE)
            for waiting in hung:
                waiting.cancel()
        self._threads.end()


async def _settled(job: Future[Any]) -> None:
    waiting = asyncio.wrap_future(job)
    await asyncio.wait([waiting])
    if not waiting.cancelled():
        waiting.exception()  # it was told to whoever asked for the work


def _dispose(job: Future[T], dispose: Callable[[T], None]) -> None:
    if not job.cancelled() and job.exception() is None:
        dispose(job.result())
