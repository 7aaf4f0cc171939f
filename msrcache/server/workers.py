"""The supervisor of several workers: it starts them, tells them when to leave, starts anew what ended, adds up metrics.

It serves nobody and has no event loop: a select over the workers' lines and its own signals. Each worker is forked
from it and binds the addresses itself (SO_REUSEPORT), so the kernel gives connections to the living only.

States of a worker: starting -> ready -> ended. Of the whole: beginning (not all were ready yet) -> serving -> leaving.
Rules:
1. Beginning: a worker that ends is the end of all, with its sentence: what is wrong is wrong with the configuration.
2. Serving: a worker that ends is started anew: at once, then after 1, 2, 4 … 30 s while none lasts a minute.
3. SIGTERM or SIGINT: all drain, each for itself; nothing is started any more. A second one: all end at once, those that
   cannot are killed. SIGHUP is passed on; later workers start with what was read then.
4. A worker that hangs (watching) is killed, and so started anew.
5. A worker whose line ends has lost its supervisor, and drains. The supervisor reaps whatever ends, as PID 1 must.
Not here: what they say (seat), whose metrics make which sum (gathering), what a worker does (serve).
"""

import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from msrcache.server.forking import bytes_of, forked
from msrcache.server.gathering import Gathering
from msrcache.server.seat import Seat, hear, say
from msrcache.server.watching import Watch
from msrcache.telemetry.logs import get_logger

LONGEST: Final = 30.0
STEADY: Final = 60.0
"""Seconds after which a worker counts as one that lasts."""
ENDED_WITHIN: Final = 10.0
"""Seconds from the second SIGTERM to SIGKILL."""
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

log = get_logger(__name__)


class WorkersFailed(Exception):
    """Not all workers could begin: one sentence."""


@dataclass(slots=True, eq=False)
class Worker:
    """One process; `refusal`: the sentence that it left with."""

    number: int
    pid: int
    line: socket.socket
    began: float
    ready: bool = False
    refusal: str = ""


class Supervisor:
    """Runs `count` workers; `work` is what one does in its process, and returns its exit code."""

    def __init__(self, count: int, work: Callable[[Seat], int], *, reread: Callable[[], None]) -> None:
        self._count = count
        self._work = work
        self._reread = reread
        self._workers: dict[int, Worker] = {}
        self._due: dict[int, float] = {}
        self._failures = dict.fromkeys(range(1, count + 1), 0)
        self._selector = selectors.DefaultSelector()
        self._wake: tuple[socket.socket, ...] = ()
        self._gathering = Gathering()
        self._watch = Watch()
        self._serving = False
        self._leaving = 0
        self._kill_at = 0.0
        self._why = ""
        self._refusal = ""
        self._code = 0

    def run(self) -> int:
        """Until all workers have ended after a signal: 0, or 1 where one did not end well. Raises WorkersFailed."""
        gc.freeze()  # what is shared stays shared: no worker's collector writes into it
        with self._selector, bytes_of(SIGNALS) as self._wake:
            self._selector.register(self._wake[0], selectors.EVENT_READ, self._signalled)
            for number in range(1, self._count + 1):
                self._start(number)
            while self._workers or self._due:
                for key, _ in self._selector.select(self._patience()):
                    key.data()
                self._reap()  # not among the others: it closes lines that they may have yet to read
                self._in_time()
        if self._refusal:
            raise WorkersFailed(self._refusal)
        return self._code

    def _signalled(self) -> None:
        for number in self._wake[0].recv(4096):
            if number == signal.SIGHUP:
                self._reread()
                self._pass_on(signal.SIGHUP)
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._leave()

    def _leave(self) -> None:
        self._leaving += 1
        self._due.clear()
        if self._leaving == 1:
            log.info("the workers leave", workers=len(self._workers))
            self._pass_on(signal.SIGTERM)
            return
        self._kill_at = self._kill_at or time.monotonic() + ENDED_WITHIN
        for worker in self._workers.values():
            say(worker.line, "hurry")

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            os.kill(worker.pid, number)

    # Times.

    def _patience(self) -> float:
        waits = [*self._due.values(), self._watch.until]
        waits += [until for until in (self._kill_at, self._gathering.until) if until]
        return max(0.0, min(waits) - time.monotonic())

    def _in_time(self) -> None:
        now = time.monotonic()
        for number in [number for number, when in self._due.items() if when <= now]:
            del self._due[number]
            self._start(number)
        self._gathering.look()
        for pid in self._watch.hanging():
            log.error("worker hangs, it is killed", worker=self._workers[pid].number, pid=pid)
            os.kill(pid, signal.SIGKILL)
        if self._kill_at and self._kill_at <= now:
            self._kill_at = now + ENDED_WITHIN
            self._pass_on(signal.SIGKILL)

    # Starting and ending.

    def _start(self, number: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.settimeout(0)
        closing = [ours, *self._wake, *(one.line for one in self._workers.values())]

        def be() -> int:
            for sock in closing:
                sock.close()
            self._selector.close()
            return self._work(Seat(theirs, number, self._count))

        pid = forked(be, signals=SIGNALS)
        theirs.close()
        worker = Worker(number, pid, ours, time.monotonic())
        self._workers[pid] = worker
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(worker))

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                worker = self._workers.pop(pid, None)
                if worker is not None:  # else an orphan that PID 1 was left with
                    self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: Worker, code: int) -> None:
        while self._hear(worker):
            pass  # its last words
        self._forget(worker.line)
        worker.line.close()
        self._gathering.left(worker.pid)
        self._watch.left(worker.pid)
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit status {code}"
        if self._leaving:
            if code not in (0, -signal.SIGTERM):
                self._code = 1
                log.error("worker did not end well", worker=worker.number, end=how)
        elif not self._serving:
            self._refusal = worker.refusal or f"worker {worker.number} ended with {how} before it served"
            self._leave()
            self._leave()
        else:
            self._replace(worker, how)

    def _replace(self, worker: Worker, how: str) -> None:
        number, lasted = worker.number, time.monotonic() - worker.began
        failures = 0 if lasted >= STEADY else self._failures[number]
        self._failures[number] = failures + 1
        delay = min(LONGEST, 2.0 ** (failures - 1)) if failures else 0.0
        self._due[number] = time.monotonic() + delay
        self._why = f": worker {number} ended with {worker.refusal or how}"
        self._gathering.metrics.worker_restarts_total.inc()
        log.error("worker ended, it is started anew", worker=number, end=worker.refusal or how, after=delay)
        self._tell_crew()

    # What workers say.

    def _hear(self, worker: Worker) -> bool:
        """Take one message; False where there was none."""
        try:
            message = hear(worker.line)
        except BlockingIOError:
            return False
        if message is None:  # it ends: SIGCHLD comes
            self._forget(worker.line)
            return False
        kind, told = message
        self._heard(worker, kind, told)
        return True

    def _forget(self, line: socket.socket) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(line)

    def _heard(self, worker: Worker, kind: str, told: Any) -> None:
        if kind == "ready":
            worker.ready = True
            self._gathering.joined(worker.pid, worker.line)
            self._watch.joined(worker.pid, worker.line)
            self._serving = self._serving or self._ready == self._count
            self._tell_crew()
        elif kind == "cannot":
            worker.refusal = str(told)
        elif kind == "metrics?":
            self._gathering.ask(worker.pid)
        elif kind == "snapshot":
            self._gathering.told(worker.pid, told)
        elif kind == "alive":
            self._watch.answered(worker.pid)

    @property
    def _ready(self) -> int:
        return sum(one.ready for one in self._workers.values())

    def _tell_crew(self) -> None:
        for worker in self._workers.values():
            say(worker.line, "crew", {"ready": self._ready, "why": self._why})
