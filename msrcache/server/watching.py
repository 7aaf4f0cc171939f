"""Whether workers still turn: each is asked now and then, and one that says nothing many times in a row hangs.

Counted in questions, not in seconds: a supervisor that was stopped itself, with the whole machine or container, takes
nobody for hanging. The kernel would go on giving a hanging worker its part of the connections.
"""

import socket
import time
from typing import Final

from msrcache.server.seat import say

EVERY: Final = 15.0
"""Seconds between two questions."""
PATIENCE: Final = 4
"""Questions without an answer."""


class Watch:
    """Workers are known by their pids."""

    def __init__(self) -> None:
        self._lines: dict[int, socket.socket] = {}
        self._unanswered: dict[int, int] = {}
        self.until = time.monotonic() + EVERY
        """When to look again."""

    def joined(self, pid: int, line: socket.socket) -> None:
        """This worker can be asked."""
        self._lines[pid], self._unanswered[pid] = line, 0

    def left(self, pid: int) -> None:
        """It has ended."""
        self._lines.pop(pid, None)
        self._unanswered.pop(pid, None)

    def answered(self, pid: int) -> None:
        """It turns."""
        self._unanswered[pid] = 0

    def hanging(self) -> list[int]:
        """Those that hang; when it is time, everybody is asked again."""
        if time.monotonic() < self.until:
            return []
        self.until = time.monotonic() + EVERY
        for pid, line in self._lines.items():
            self._unanswered[pid] += 1
            say(line, "alive?")
        return [pid for pid, count in self._unanswered.items() if count > PATIENCE]
