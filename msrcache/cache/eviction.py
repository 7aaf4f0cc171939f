"""What leaves the hot tier so that a blob fits into it: the longest unused, no more than is needed. Pure."""

from collections.abc import Hashable, Iterable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def evicted(kept: Iterable[tuple[K, int]], incoming: int, *, used: int, limit: int) -> list[K] | None:
    """The keys that leave, longest unused first; None where the blob cannot fit whatever leaves.

    `kept` are keys with their sizes, longest unused first; `used` bytes are taken, by them and by what is on its way
    in, which stays.
    """
    over = used + incoming - limit
    leaving: list[K] = []
    for key, size in kept:
        if over <= 0:
            return leaving
        leaving.append(key)
        over -= size
    return leaving if over <= 0 else None
