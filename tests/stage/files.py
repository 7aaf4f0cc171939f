"""A blob in an open file, as a store lends it, for tests of the server; with faults where they are wanted."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msrcache.oci.ranges import Span
from msrcache.oci.registry import Chunk, FileSpan


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file and what is in it."""

    fd: int
    data: bytes

    async def whole(self, span: Span) -> AsyncIterator[Chunk]:
        """The span as one FileSpan."""
        yield FileSpan(self.fd, span.start, span.stop)

    async def mixed(self, span: Span) -> AsyncIterator[Chunk]:
        """The span in turns of bytes and FileSpans of odd sizes."""
        start = span.start
        for turn, size in enumerate((1, 70_000, 3, 2_000_000, 300_001, 5, 1 << 40)):
            stop = min(start + size, span.stop)
            if start < stop:
                yield self.data[start:stop] if turn % 2 else FileSpan(self.fd, start, stop)
            start = stop


@contextmanager
def open_file(path: Path, data: bytes) -> Iterator[OpenFile]:
    """A file with this content, open for reading."""
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        yield OpenFile(fd, data)
    finally:
        os.close(fd)
