"""Threads for calls that may never end: a file server that hangs keeps them, and nothing else.

Unlike the standard library's pool, these do not keep the process from ending, and work may be given to them after
the end was announced: whoever still holds something gives it back there, not on the loop.
Not here: deadlines, and what errors mean (`disk`).
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """At most `most` threads, started when they are needed; the rest of the work waits in order."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._changed = threading.Condition()
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._idle = 0
        self._count = 0
        self._ending = False

    def __repr__(self) -> str:
        return f"<Threads {self._name} {self._count} of {self._most}, {self.waiting} calls wait>"

    @property
    def waiting(self) -> int:
        """How many calls wait for a thread; those that nobody wants any more count until their turn comes."""
        return len(self._queue)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have it done. A job that is cancelled before its turn is not."""
        job: Future[T] = Future()
        with self._changed:
            self._queue.append((job, work))
            if len(self._queue) > self._idle and self._count < self._most:
                self._count += 1
                threading.Thread(target=self._serve, name=f"{self._name}_{self._count}", daemon=True).start()
            else:
                self._changed.notify()
        return job

    def end(self) -> None:
        """No thread stays without work from now on."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def _serve(self) -> None:
        while (taken := self._next()) is not None:
            _do(*taken)
            del taken  # what it holds is not kept until the next call

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            self._idle += 1
            while not self._queue and not self._ending:
                self._changed.wait()
            self._idle -= 1
            if self._queue:
                return self._queue.popleft()
            self._count -= 1
            return None


def _do(job: Future[T], work: Callable[[], T]) -> None:
    if not job.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - whoever waits for the job is told
        job.set_exception(error)
    else:
        job.set_result(result)
