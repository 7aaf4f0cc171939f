"""The metrics of all workers, gathered by their supervisor over their lines and added up.

One round at a time: whoever asks while one is under way is answered by it. A worker that says nothing in time (stopped,
or busy) counts with what it said last; what one that has ended had said stays in the sums, so that no counter falls.
"""

import socket
import time
from dataclasses import dataclass
from typing import Any, Final

from msrcache.server.seat import say
from msrcache.telemetry.merging import Snapshot, lasting, merged, parsed, rendered, snapshot
from msrcache.telemetry.metrics import Metrics

WITHIN: Final = 1.5
"""Seconds that workers have for telling their metrics."""


@dataclass(slots=True)
class Round:
    """Who asked, whose metrics are missing, and until when they are waited for."""

    asking: list[int]
    missing: set[int]
    until: float


class Gathering:
    """Workers are known by their pids. `metrics` are the supervisor's own, and part of the sum."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._lines: dict[int, socket.socket] = {}
        self._told: dict[int, Snapshot] = {}
        self._departed: Snapshot = {}
        self._round: Round | None = None

    @property
    def until(self) -> float | None:
        """When to look again (monotonic seconds), where a round is under way."""
        return self._round.until if self._round is not None else None

    def joined(self, pid: int, line: socket.socket) -> None:
        """This worker can be asked."""
        self._lines[pid] = line

    def left(self, pid: int) -> None:
        """It has ended: what it had counted stays."""
        self._lines.pop(pid, None)
        self._departed = merged((self._departed, lasting(self._told.pop(pid, {}))))
        self._arrived(pid)

    def ask(self, pid: int) -> None:
        """This worker was asked for the metrics of all."""
        if self._round is not None:
            self._round.asking.append(pid)
            return
        missing = {one for one, line in self._lines.items() if say(line, "snapshot?")}
        self._round = Round([pid], missing, time.monotonic() + WITHIN)
        self.look()

    def told(self, pid: int, what: Any) -> None:
        """It says how its metrics stand."""
        self._told[pid] = parsed(what)
        self._arrived(pid)

    def look(self) -> None:
        """End the round, if all have answered or the time is up."""
        done = self._round
        if done is None or (done.missing and done.until > time.monotonic()):
            return
        self._round = None
        every = (snapshot(self.metrics.registry), self._departed, *self._told.values())
        text = rendered(merged(every)).decode()
        for pid in done.asking:
            if pid in self._lines:
                say(self._lines[pid], "metrics", text)

    def _arrived(self, pid: int) -> None:
        if self._round is not None:
            self._round.missing.discard(pid)
            self.look()
