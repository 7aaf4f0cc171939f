"""Fills that can be followed, without a cache: a file that grows as the test says, behind a real peer port."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msrcache.cache.tail import Tail
from msrcache.oci.descriptor import Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.peers import Holder, NotFollowed, Sign
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Blob, Chunk, FileSpan, Outcome
from msrcache.server.peer import PeerPort
from msrcache.server.settings import PeerSettings
from msrcache.sockets.mutual import MutualTls
from msrcache.telemetry.clock import Clock, SystemClock
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.peers import Peers

NONCE = "nonce-of-the-holder"
SECRET = b"equal on all replicas"
KIND = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(slots=True)
class Growing:
    """A fill: its file, and how far it has come."""

    data: bytes
    tail: Tail

    def grow(self, size: int) -> None:
        """So many bytes are there."""
        self.tail.advance(size)

    def complete(self) -> None:
        """All is there, and right."""
        self.tail.advance(len(self.data))
        self.tail.verify()

    async def body(self, span: Span) -> AsyncIterator[Chunk]:
        """Its bytes as they come, by file."""
        offset = span.start
        while offset < span.stop:
            stop = await self.tail.available(offset, span)
            yield FileSpan(self.tail.fd, offset, stop)
            offset = stop


@dataclass(slots=True)
class Fills:
    """A Followable over growing files; `asked` has every question."""

    folder: Path
    nonce: str = NONCE
    fills: dict[Digest, Growing] = field(default_factory=dict)
    asked: list[tuple[Digest, Holder, int]] = field(default_factory=list)
    failure: Exception | None = None

    def fill(self, data: bytes) -> tuple[Digest, Growing]:
        """A fill of these bytes that has none of them yet."""
        digest = Digest.of(data)
        path = self.folder / digest.hex
        path.write_bytes(data)
        growing = Growing(data, Tail(os.open(path, os.O_RDONLY), len(data)))
        self.fills[digest] = growing
        return digest, growing

    @asynccontextmanager
    async def follow(self, digest: Digest, holder: Holder, start: int) -> AsyncIterator[Blob]:
        """As Followable.follow."""
        self.asked.append((digest, holder, start))
        if self.failure is not None:
            raise self.failure
        if holder.nonce != self.nonce:
            raise NotFollowed(Sign.REPLACED, "not of this process")
        if digest not in self.fills:
            raise NotFollowed(Sign.NOFILL, "no such fill")
        growing = self.fills[digest]
        span = Span(start, len(growing.data))
        yield Blob(Descriptor(KIND, digest, len(growing.data)), span, Outcome.JOINED, growing.body(span))

    def close(self) -> None:
        """Let the files go."""
        for growing in self.fills.values():
            os.close(growing.tail.fd)


@dataclass(slots=True)
class Fleet:
    """A holder's port, and a follower; each with metrics of its own."""

    port: PeerPort
    fills: Fills
    peers: Peers
    theirs: Metrics
    ours: Metrics

    @property
    def holder(self) -> Holder:
        """The holder's lease as its record tells it."""
        return Holder("replica-1", NONCE, self.port.address)

    async def taken(self, digest: Digest, start: int = 0) -> bytes:
        """All that following brings from there on."""
        async with self.peers.follow(digest, self.holder, start) as blob:
            return await poured(blob)

    def count(self, name: str, *, ours: bool = False, **labels: str) -> float:
        """A sample of the metrics, 0 where it was never counted."""
        metrics = self.ours if ours else self.theirs
        return metrics.registry.get_sample_value(f"msrcache_{name}", labels) or 0.0


async def poured(blob: Blob) -> bytes:
    """The body of a blob, whole."""
    found = bytearray()
    assert isinstance(blob.body, AsyncIterator)
    async for chunk in blob.body:
        assert not isinstance(chunk, FileSpan)
        found += chunk
    return bytes(found)


@asynccontextmanager
async def fleet(
    folder: Path,
    *,
    settings: PeerSettings | None = None,
    secret: bytes = SECRET,
    tls: MutualTls | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Fleet]:
    """A port on a free loopback port and a follower with that secret; everything is closed on leaving."""
    fills, theirs, ours = Fills(folder), Metrics(), Metrics()
    port = PeerPort(
        settings or PeerSettings(), secret=SECRET, metrics=theirs, clock=clock or SystemClock(), tls=tls
    )
    await port.open()
    port.serve(fills)
    context = None if tls is None else lambda: tls.client
    peers = Peers(secret, metrics=ours, clock=SystemClock(), tls=context)
    try:
        yield Fleet(port, fills, peers, theirs, ours)
    finally:
        await peers.close()
        await port.close()
        fills.close()
