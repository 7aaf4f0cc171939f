"""Lines to a stream that may be slow, without ever making the event loop wait for it.

States: open (lines are kept in memory and a thread writes them, batched), closing (the thread writes what is
left), closed. Rules: `write` never waits and never raises; above `limit` bytes kept, new lines are dropped
and counted, old ones stay in order; a line is whole or absent; a stream that fails loses its batch, counted,
and is tried again with the next one.
"""

import select
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

_WHOLE = select.PIPE_BUF  # bytes that a pipe takes in one piece
_BATCH_SECONDS = 0.05  # one wake-up of the thread for all lines of this time


class Stream(Protocol):
    """What the lines go to: sys.stdout.buffer, an open binary file."""

    def write(self, data: bytes, /) -> object:
        """Write all of data; may wait."""
        ...

    def flush(self) -> object:
        """Hand what was written to the operating system; may wait."""
        ...


class LineWriter:
    """Takes lines from any thread; `dropped` is called with the number of lines that were lost.

    `shared`: other processes write to the same pipe, and a batch must not be torn apart within a line.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        limit: int = 8 << 20,
        dropped: Callable[[int], object] | None = None,
        shared: bool = False,
    ) -> None:
        self._stream = stream
        self._shared = shared
        self._limit = limit
        self._dropped = dropped
        self._lines: list[str] = []
        self._kept = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = 0

    def __repr__(self) -> str:
        return f"<LineWriter [{len(self._lines)} lines kept, {self.lost} lost]>"

    def write(self, line: str) -> None:
        """Queue `line`, which ends with its newline. Lines written after close() are lost, and counted."""
        with self._lock:
            fits = self._kept + len(line) <= self._limit and not self._closing.is_set()
            if fits:
                self._lines.append(line)
                self._kept += len(line)
                if len(self._lines) == 1:
                    self._start()
        if not fits:
            self._lose(1)

    def flush(self) -> None:
        """Nothing: the thread flushes each batch (here because logging asks streams to)."""

    def close(self, patience: float = 5.0) -> None:
        """Write what is kept and stop; a stuck reader is waited for `patience` seconds, no longer."""
        self._closing.set()
        self._wake.set()
        thread = self._thread
        if thread is not None:
            thread.join(patience)
            self._lose(len(self._take()))

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
            self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing.wait(_BATCH_SECONDS)
            lines = self._take()
            if lines:
                self._put(lines)
            if closing:
                return

    def _take(self) -> list[str]:
        with self._lock:
            lines, self._lines = self._lines, []
            self._kept = 0
        return lines

    def _put(self, lines: list[str]) -> None:
        try:
            for piece in _pieces(lines) if self._shared else ("".join(lines),):
                self._stream.write(piece.encode("utf-8", "backslashreplace"))
                self._stream.flush()
        except (
            OSError,
            ValueError,
        ):  # a reader that went away, a disk that is full, a stream that was closed
            self._lose(len(lines))

    def _lose(self, count: int) -> None:
        if count:
            self.lost += count
            if self._dropped is not None:
                self._dropped(count)


def _pieces(lines: Sequence[str]) -> Iterator[str]:
    """Whole lines, as many as a pipe takes at once; one longer than that stands alone."""
    piece: list[str] = []
    size = 0
    for line in lines:
        count = len(line.encode("utf-8", "backslashreplace"))
        if piece and size + count > _WHOLE:
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += count
    yield "".join(piece)
