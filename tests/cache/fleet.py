"""Replicas side by side without a network: leases whose turns a test writes, and peers that are reached by a call."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from msrcache.cache.lease import Arrival, Fetch, Turn
from msrcache.oci.digest import Digest
from msrcache.oci.peers import Followable, Holder, NotFollowed, Sign
from msrcache.oci.registry import Blob, Chunk, Elsewhere, FileSpan
from tests.cache.kitchen import Cache

HOLDER = Holder("replica-a", "nonce-a", "127.0.0.1:1")


@dataclass(slots=True)
class Script:
    """An arrival whose turns are given; the last one stays. `told` has what it was told, in order."""

    turns: deque[Turn]
    told: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    silent: asyncio.Event = field(default_factory=asyncio.Event)
    gate: Callable[[Turn], asyncio.Event | None] = lambda _: None

    async def turn(self) -> Turn:
        """The next of them; waits at its gate, if it has one."""
        turn = self.turns[0] if len(self.turns) == 1 else self.turns.popleft()
        if (gate := self.gate(turn)) is not None:
            self.asked.set()
            await gate.wait()
        await asyncio.sleep(0)
        return turn

    def failed(self, error: NotFollowed) -> None:
        """As Arrival."""
        self.told.append(f"failed: {error.sign}")

    async def dead(self) -> None:
        """As Arrival; when the test says so."""
        await self.silent.wait()

    def stored(self) -> None:
        """As Arrival."""
        self.told.append("stored")


@dataclass(slots=True)
class ScriptedLeases:
    """Leases of one replica: each arrival gets the same script; `nonces` are held."""

    script: Script
    nonces: set[str] = field(default_factory=set)
    sizes: list[int | None] = field(default_factory=list)

    @asynccontextmanager
    async def arrive(self, digest: Digest, *, size: int | None) -> AsyncIterator[Arrival]:
        """As Leases."""
        self.sizes.append(size)
        try:
            yield self.script
        finally:
            self.script.told.append("left")

    def holds(self, digest: Digest, nonce: str) -> bool:
        """As Leases."""
        return nonce in self.nonces


def leases(*turns: Turn, nonces: Iterable[str] = ()) -> ScriptedLeases:
    """Leases that give these turns."""
    return ScriptedLeases(Script(deque(turns)), set(nonces))


def holding() -> ScriptedLeases:
    """Leases of the replica that fetches, and is followed."""
    return leases(Fetch(), nonces=[HOLDER.nonce])


@dataclass(slots=True)
class Wire:
    """Another replica's fills as HTTP gives them: bytes, cut where a test says so; `starts` has what was asked for."""

    there: Cache
    cut_at: int | None = None
    refuses: NotFollowed | None = None
    size: int | None = None
    starts: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def follow(self, digest: Digest, holder: Holder, start: int) -> AsyncIterator[Blob]:
        """As Followable."""
        self.starts.append(start)
        if self.refuses is not None:
            raise self.refuses
        fills: Followable = self.there.pulls.own_fills
        async with fills.follow(digest, holder, start) as blob:
            size = self.size or blob.descriptor.size
            yield replace(blob, descriptor=replace(blob.descriptor, size=size), body=self._bytes(blob))

    async def _bytes(self, blob: Blob) -> AsyncIterator[Chunk]:
        assert not isinstance(blob.body, Elsewhere)
        at = blob.span.start
        async for chunk in blob.body:
            assert isinstance(chunk, FileSpan)
            async for piece in self.there.spool.read(chunk):
                if self.cut_at is not None and at + len(piece) > self.cut_at:
                    yield piece[: self.cut_at - at]
                    raise NotFollowed(Sign.BROKEN, "cut")
                at += len(piece)
                yield piece
