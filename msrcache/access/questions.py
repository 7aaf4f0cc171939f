"""Equal questions asked at once are asked once.

Rules: a question belongs to nobody who waits for it: it goes on when they leave, and its answer is
remembered by whoever put it. It is forgotten the moment it is answered, so an answer is shared only by
those who waited for it. What may be shared between whom is the business of the key: it holds the caller
wherever the answer is about one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from msrcache.oci.errors import Unavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Questions(Generic[K, V]):
    """The questions under way, by key."""

    def __init__(self) -> None:
        self._open: dict[K, asyncio.Task[V]] = {}

    def __repr__(self) -> str:
        return f"<Questions [{len(self._open)} open]>"

    def __len__(self) -> int:
        return len(self._open)

    def under_way(self, key: K) -> asyncio.Task[V] | None:
        """The question `key`, while it is open."""
        return self._open.get(key)

    def put(self, key: K, question: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        """Put a question that is not under way; wait for it with answer_of."""

        async def ask() -> V:
            return await question()

        task = self._open[key] = asyncio.create_task(ask(), name="question")
        task.add_done_callback(lambda done: self._answered(key, done))
        return task

    async def close(self) -> None:
        """Stop all questions."""
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _answered(self, key: K, task: asyncio.Task[V]) -> None:
        if self._open.get(key) is task:
            del self._open[key]
        if not task.cancelled():
            task.exception()  # looked at, though everybody may have left


async def answer_of(task: asyncio.Task[V], *, patience: float | None = None) -> V:
    """The answer; leaving stops nobody else. Raises as the question did; TimeoutError after `patience`."""
    done, _ = await asyncio.wait({task}, timeout=patience)
    if not done:
        raise TimeoutError
    if task.cancelled():
        raise Unavailable("the cache is shutting down")
    return task.result()
