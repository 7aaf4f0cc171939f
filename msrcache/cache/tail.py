"""The tail of a fill: a spool file that readers follow while it grows.

States: growing -> verified | spilled | broken.

Rules:
1. ``written`` only grows; every byte below it is in the file, so a reader may take it with sendfile.
2. Before verification no reader is given the last byte of its span: a corrupt body can never look complete to
   anyone. With ``early`` a span that ends before the blob's end is not held back (its bytes are unverified).
3. ``verified``: the whole blob has the right size and digest; every span may be read to its end.
4. ``spilled``: no more bytes come into the file, but what is there is right as far as anybody knows (the spool is
   full, the opener's credential ended, nobody read): a reader takes what is written, then goes on by itself.
5. ``broken``: the bytes are wrong or the upstream is gone: every reader is cut.
"""

import asyncio

from msrcache.oci.digest import Hasher
from msrcache.oci.ranges import Span


class Spilled(Exception):
    """The file ends at ``written``; ``hasher`` has read exactly that much and is to be copied, not used."""

    def __init__(self, written: int, hasher: Hasher, cause: BaseException) -> None:
        super().__init__(f"the fill ended at byte {written}: {cause}")
        self.written = written
        self.hasher = hasher
        self.cause = cause


class Tail:
    """How far a growing file may be read, and waiting for more of it."""

    def __init__(self, fd: int, size: int, *, early: bool = False) -> None:
        self.fd = fd
        self.size = size
        self.written = 0
        self.verified = False
        self.readers = 0
        self._early = early
        self._end: BaseException | None = None
        self._change = asyncio.Event()

    def __repr__(self) -> str:
        state = "verified" if self.verified else type(self._end).__name__ if self._end else "growing"
        return f"<Tail {state} {self.written}/{self.size} [{self.readers} readers]>"

    def advance(self, written: int) -> None:
        """All bytes below ``written`` are in the file."""
        self.written = written
        self._wake()

    def verify(self) -> None:
        """The file holds the whole blob, and its digest is right."""
        self.verified = True
        self._wake()

    def end(self, cause: BaseException) -> None:
        """No more bytes come. A Spilled lets readers go on by themselves, anything else cuts them."""
        if self._end is None and not self.verified:
            self._end = cause
            self._wake()

    def readable(self, span: Span) -> int:
        """Up to where a reader of this span may read now (pure; may lie before its start)."""
        if self.verified or (self._early and span.stop < self.size):
            return min(self.written, span.stop)
        return min(self.written, span.stop - 1)

    async def available(self, offset: int, span: Span) -> int:
        """A stop beyond ``offset`` up to which the span may be read; waits for it.

        Raises Spilled once all that is readable was read, or the error that broke the fill.
        """
        while (stop := self.readable(span)) <= offset:
            self._raise_end()
            await self._change.wait()
        if not isinstance(self._end, Spilled):
            self._raise_end()
        return stop

    async def settled(self) -> None:
        """Returns once the blob is verified; raises what ended it otherwise."""
        while not self.verified:
            self._raise_end()
            await self._change.wait()

    def _raise_end(self) -> None:
        if self._end is not None:
            # One error is raised to many readers: without this each would lengthen its traceback.
            raise self._end.with_traceback(None)

    def _wake(self) -> None:
        # One event a change: a thousand readers cost one set() and their own wake-ups, no lock.
        self._change.set()
        self._change = asyncio.Event()
