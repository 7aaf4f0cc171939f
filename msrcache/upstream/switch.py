"""A registry that can be replaced while pulls are under way: what begins later goes to the new one.

Rules:
1. A pull stays with the registry that it began with, to its last byte.
2. One that was replaced is closed when the last of its pulls has ended, or with the switch.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from msrcache.oci.pulls import BlobPull, ManifestPull, Relayed
from msrcache.oci.registry import Answer, Blob, Manifest, Resolution
from msrcache.upstream.balance import Balanced


@dataclass(slots=True, eq=False)
class _Held:
    """A registry and how many pulls it has."""

    registry: Balanced
    pulls: int = 0


class Switch:
    """Implements Registry by whichever is current."""

    def __init__(self, first: Balanced) -> None:
        self._held = _Held(first)
        self._replaced: set[_Held] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Switch {self.current!r} [{len(self._replaced)} replaced still have pulls]>"

    @property
    def current(self) -> Balanced:
        """Where new pulls go."""
        return self._held.registry

    def change(self, registry: Balanced) -> None:
        """New pulls go to this one from now on."""
        old, self._held = self._held, _Held(registry)
        self._replaced.add(old)
        self._look(old)

    async def close(self) -> None:
        """Close the current one and all that were replaced, whatever they are at."""
        left = [self._held, *self._replaced]
        self._replaced.clear()
        for held in left:
            await held.registry.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        """As Registry.resolve."""
        async with self._one() as registry:
            return await registry.resolve(pull)

    async def manifest(self, pull: ManifestPull) -> Manifest:
        """As Registry.manifest."""
        async with self._one() as registry:
            return await registry.manifest(pull)

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        """As Registry.blob."""
        async with self._one() as registry, registry.blob(pull) as blob:
            yield blob

    async def relay(self, pull: Relayed) -> Answer:
        """As Registry.relay."""
        async with self._one() as registry:
            return await registry.relay(pull)

    @asynccontextmanager
    async def _one(self) -> AsyncIterator[Balanced]:
        held = self._held
        held.pulls += 1
        try:
            yield held.registry
        finally:
            held.pulls -= 1
            self._look(held)

    def _look(self, held: _Held) -> None:
        if held in self._replaced and not held.pulls:
            self._replaced.discard(held)
            task = asyncio.create_task(held.registry.close(), name="close a replaced upstream")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
