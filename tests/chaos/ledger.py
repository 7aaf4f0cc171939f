"""What bodies a service's HTTP answers brought to the other side of a wire: looked at as they pass, never touched.

For pulls over HTTP/1.1 (requests without bodies) of a service that tells the length of its bodies; where it does not,
the rest of the connection counts. Not a parser for anything else.
"""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

END: Final = b"\r\n\r\n"
LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
ENDLESS: Final = 1 << 62


@dataclass(slots=True)
class Body:
    """One answer: what was asked, when, the status, and how many bytes of the body were handed over."""

    method: str
    path: str
    asked: float
    status: int = 0
    count: int = 0


class Watch:
    """Follows one connection."""

    def __init__(self, keep: Callable[[Body], None], clock: Callable[[], float]) -> None:
        """`keep` is given each answer that had a body, once it has ended."""
        self._keep = keep
        self._clock = clock
        self._asked: deque[Body] = deque()
        self._request = self._answer = b""
        self._body: Body | None = None
        self._left = 0

    def asking(self, data: bytes) -> None:
        """Passed on to the service."""
        self._request += data
        while END in self._request:
            head, _, self._request = self._request.partition(END)
            method, path, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            self._asked.append(Body(method, path, self._clock()))

    def answering(self, data: bytes | memoryview) -> None:
        """Handed over by the wire to who has asked."""
        rest = memoryview(data)
        while rest:
            if self._body is None:
                rest = self._head(rest)
            else:
                part = min(len(rest), self._left)
                self._body.count += part
                self._left -= part
                rest = rest[part:]
                if not self._left:
                    self.ended()

    def ended(self, unsent: int = 0) -> None:
        """The body, or the connection, ends here; so many bytes were handed over and have not left."""
        body, self._body = self._body, None
        if body is not None:
            body.count = max(0, body.count - unsent)
            self._keep(body)

    def _head(self, data: memoryview) -> memoryview:
        """Take the head of an answer, as far as it is there; what comes behind it."""
        before = len(self._answer)
        self._answer += data
        head, end, _ = self._answer.partition(END)
        if not end:
            return data[len(data) :]
        self._answer = b""
        status = int(head.split(b" ", 2)[1])
        if status >= 200:  # else an interim answer
            body = self._asked.popleft() if self._asked else Body("?", "?", self._clock())
            body.status = status
            found = LENGTH.search(head)
            self._left = int(found[1]) if found else ENDLESS
            if body.method != "HEAD" and status not in (204, 304) and self._left:
                self._body = body
        return data[len(head) + len(END) - before :]
