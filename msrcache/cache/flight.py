"""Flights: of equal work that is asked for at once, one is done and all wait for it.

States of a flight: under way -> landed (a result) | lost (an error).

Rules:
1. At most one flight of a key is under way; whoever finds none opens it.
2. A flight belongs to nobody's request: a waiter that leaves does not stop it, and its failure is not logged as
   "never retrieved" when all have left.
3. A flight shares results and outages, never a refusal (401, 403, 404): that is about the caller who opened it, so
   each of the others flies again for itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from msrcache.oci.errors import RegistryError, TooManyRequests, is_refusal

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def _own(error: RegistryError) -> bool:
    """Whether the error is about the caller who opened the flight (a refusal, a limit), not about the work."""
    return is_refusal(error) or isinstance(error, TooManyRequests)


@dataclass(frozen=True, slots=True)
class Landed(Generic[T]):
    """What a flight brought, and whether this waiter joined somebody else's."""

    result: T
    joined: bool


class Flights(Generic[K, T]):
    """Single flight by key, for answers that are small enough to be handed over whole."""

    def __init__(self) -> None:
        self._under_way: dict[K, asyncio.Task[T]] = {}

    def __repr__(self) -> str:
        return f"<Flights [{len(self._under_way)} under way]>"

    def __contains__(self, key: K) -> bool:
        return key in self._under_way

    async def fly(
        self,
        key: K,
        work: Callable[[], Awaitable[T]],
        *,
        board: Callable[[], Awaitable[object]] | None = None,
    ) -> Landed[T]:
        """The result of ``work``, done here or by whoever is at it already.

        ``board`` is awaited before somebody else's flight is joined: the joiner's own question. Raises what
        ``work`` or ``board`` raised; a refusal given to another caller is never raised here.
        """
        while (task := self._under_way.get(key)) is not None:
            if board is not None:
                await board()
            try:
                return Landed(await asyncio.shield(task), joined=True)
            except RegistryError as error:
                if not _own(error):
                    raise
                # Its callback may not have run yet: asked again at once, this would find the same refusal for ever.
                self._landed(key, task)
        return Landed(await asyncio.shield(self._open(key, work)), joined=False)

    def _open(self, key: K, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        async def run() -> T:
            return await work()

        task = asyncio.create_task(run(), name=f"flight {key}")
        self._under_way[key] = task
        task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def _landed(self, key: K, task: asyncio.Task[T]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled():
            task.exception()  # marks it retrieved: everybody may have left

    async def close(self) -> None:
        """Stop what is under way and wait until it has stopped."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
