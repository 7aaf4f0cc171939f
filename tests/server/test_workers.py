"""server.workers: when workers are started anew. With real processes: tests/test_workers.py."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

from msrcache.server.workers import LONGEST, STEADY, Supervisor, Worker


def _died(supervisor: Supervisor, *, after: float) -> float:
    """Seconds until worker 1 is started anew, which has lived for `after`."""
    now = time.monotonic()
    line, other = socket.socketpair()
    supervisor._replace(Worker(1, 1, line, now - after), "signal 9")
    line.close()
    other.close()
    return supervisor._due[1] - now


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """One that has started nothing yet, and for which no time passes."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    made = Supervisor(2, lambda _: 0, reread=lambda: None)
    yield made
    made._selector.close()


def test_back_off(supervisor: Supervisor) -> None:
    """At once, then slower and slower; one that lasted a minute begins anew."""
    delays = [_died(supervisor, after=1) for _ in range(8)]
    assert delays == [0, 1, 2, 4, 8, 16, LONGEST, LONGEST]
    assert _died(supervisor, after=STEADY + 1) == 0
    assert _died(supervisor, after=1) == 1
    assert supervisor._gathering.metrics.worker_restarts_total._value.get() == 10


@pytest.mark.parametrize(
    ("work", "words"),
    [
        ("lambda seat: 7", "ended with exit status 7 before it served"),
        ("lambda seat: seat.cannot('no such file') or 2", "no such file"),
        ("lambda seat: os.kill(os.getpid(), 9)", "ended with signal 9 (SIGKILL) before it served"),
        ("lambda seat: 1 / 0", "ended with exit status 1 before it served"),
    ],
)
def test_who_ends_before_all_served_ends_it(work: str, words: str) -> None:
    """Its sentence, or how it ended; no other is left running."""
    program = (
        "import os\n"
        "from msrcache.server.workers import Supervisor, WorkersFailed\n"
        "try:\n"
        f"    Supervisor(2, {work}, reread=lambda: None).run()\n"
        "except WorkersFailed as error:\n"
        "    print('said', error)\n"
        "try:\n"
        "    os.waitpid(-1, os.WNOHANG)\n"
        "except ChildProcessError:\n"
        "    print('nobody')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    said, nobody = [line for line in ended.stdout.splitlines() if not line.startswith("20")][-2:]
    assert said.startswith("said ")
    assert said.endswith(words)
    assert nobody == "nobody"


def test_who_hangs_is_killed_and_started_anew() -> None:
    """A worker that stops itself when it has said that it serves; the next one leaves the ordinary way."""
    program = (
        "import os, signal, time\n"
        "from msrcache.server import watching\n"
        "from msrcache.server.workers import Supervisor\n"
        "watching.EVERY = 0.5\n"
        "def work(seat):\n"
        "    seat.ready()\n"
        "    if os.path.exists('been'):\n"
        "        os.kill(os.getppid(), signal.SIGTERM)\n"
        "        return 0\n"
        "    open('been', 'w').close()\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "print('code', Supervisor(1, work, reread=lambda: None).run())\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.stdout.splitlines()[-1] == "code 0", ended.stdout + ended.stderr
    assert "worker hangs, it is killed" in ended.stdout
