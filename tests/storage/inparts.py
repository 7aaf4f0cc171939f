"""A service that takes objects in parts, played in this process, for the tests of what drives it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msrcache.oci.ranges import Span
from msrcache.storage.driver import ObjectInfo, SpoolFile
from msrcache.storage.parts import PartsWriter, Plan, Uploads
from msrcache.storage.spooled import PIECE, Part

SIZE = 3 * PIECE + 5
"""Of a part: no whole number of pieces."""


async def pass_on(call: str) -> None:
    """What a test that wants nothing does at a call."""
    del call


@dataclass
class Service:
    """A service that remembers what it was asked; `at` is awaited within each call and may raise."""

    at: Callable[[str], object] = pass_on
    calls: list[str] = field(default_factory=list)
    uploads: set[int] = field(default_factory=set)
    parts: dict[int, bytes] = field(default_factory=dict)
    stored: bytes | None = None
    under_way: int = 0
    most: int = 0

    async def ask(self, call: str) -> None:
        self.calls.append(call)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.at(call)  # type: ignore[misc]
        finally:
            self.under_way -= 1

    async def put(self, whole: Part) -> ObjectInfo:
        await self.ask("put")
        self.stored = b"".join([bytes(piece) async for piece in whole])
        return ObjectInfo(whole.size, 0.0)

    async def begin(self) -> None:
        await self.ask("begin")
        self.uploads.add(1)

    async def send(self, number: int, part: Part) -> int:
        assert self.uploads, "no part before its upload is begun"
        await self.ask(f"send {number}")
        self.parts[number] = b"".join([bytes(piece) async for piece in part])
        return number

    async def complete(self, sent: Sequence[int]) -> ObjectInfo:
        await self.ask("complete")
        assert list(sent) == sorted(self.parts)
        self.stored = b"".join(self.parts[number] for number in sent)
        self.uploads.clear()
        return ObjectInfo(len(self.stored), 0.0)

    async def abort(self) -> None:
        await self.ask("abort")
        self.uploads.clear()


def writer(uploads: Uploads, service: Service, *, parallel: int = 4) -> PartsWriter[int]:
    """A writer of one object."""
    return uploads.writer("a/key", service, Plan(size=SIZE, parallel=parallel))


async def write(
    uploads: Uploads, service: Service, file: SpoolFile, *, steps: int = 1, parallel: int = 4
) -> ObjectInfo:
    """A whole file, in so many steps."""
    size = os.fstat(file.fd).st_size
    async with writer(uploads, service, parallel=parallel) as target:
        for step in range(steps):
            await target.write(file, Span(size * step // steps, size * (step + 1) // steps))
        return await target.commit()
