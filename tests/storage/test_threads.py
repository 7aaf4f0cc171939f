"""Threads that may hang: bounded, in order, and no obstacle to the process's end."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest

from msrcache.storage.threads import Threads


def soon(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds: a result is there before its thread has gone on."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_work_is_done_at_most_so_much_at_once() -> None:
    """Threads are started when they are needed, never more than allowed, and are used again."""
    threads = Threads("t", 2)
    go, names = threading.Event(), set[str]()
    both = threading.Barrier(3, timeout=20)

    def work() -> None:
        names.add(threading.current_thread().name)
        both.wait()
        go.wait(20)

    first = [threads.submit(work) for _ in range(2)]
    both.wait()
    later = [threads.submit(lambda: names.add(threading.current_thread().name)) for _ in range(20)]
    assert threads.waiting == 20
    go.set()
    for job in (*first, *later):
        job.result(20)
    assert names == {"t_1", "t_2"}
    threads.end()


def test_one_thread_is_enough_for_one_call_after_the_other() -> None:
    """No second thread is started while the first is idle."""
    threads = Threads("t", 8)
    for number in range(20):
        assert threads.submit(lambda number=number: number).result(20) == number  # type: ignore[misc]
        soon(lambda: threads._idle == 1)
    assert repr(threads) == "<Threads t 1 of 8, 0 calls wait>"
    threads.end()


def test_work_is_done_in_order() -> None:
    """First come, first served."""
    threads, order = Threads("t", 1), list[int]()
    jobs = [threads.submit(lambda number=number: order.append(number)) for number in range(100)]  # type: ignore[misc]
    for job in jobs:
        job.result(20)
    assert order == list(range(100))
    threads.end()


def test_errors_reach_whoever_waits() -> None:
    """And the thread goes on."""
    threads = Threads("t", 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(20)
    assert threads.submit(lambda: 7).result(20) == 7
    threads.end()


def test_cancelled_work_is_not_done() -> None:
    """It keeps its place in line until its turn, and is then passed over."""
    threads, go, started = Threads("t", 1), threading.Event(), threading.Event()

    def hang() -> bool:
        started.set()
        return go.wait(20)

    hung = threads.submit(hang)
    assert started.wait(20)
    job = threads.submit(lambda: pytest.fail("it ran"))
    assert job.cancel()
    assert threads.waiting == 1
    go.set()
    assert hung.result(20)
    with pytest.raises(CancelledError):
        job.result(20)
    assert threads.submit(lambda: 7).result(20) == 7
    assert threads.waiting == 0
    threads.end()


def test_work_may_come_after_the_end() -> None:
    """In a thread as before; threads without work leave."""
    threads = Threads("t", 2)
    threads.submit(lambda: None).result(20)
    threads.end()
    late = threads.submit(threading.current_thread).result(20)
    assert late is not threading.current_thread()
    late.join(20)
    assert not late.is_alive()
    soon(lambda: repr(threads) == "<Threads t 0 of 2, 0 calls wait>")  # the first may have been at work still


def test_a_hanging_call_does_not_keep_the_process() -> None:
    """A process whose thread hangs for ever ends when it is done."""
    program = (
        "import threading\n"
        "from msrcache.storage.threads import Threads\n"
        "started = threading.Event()\n"
        "Threads('t', 1).submit(lambda: (started.set(), threading.Event().wait()))\n"
        "started.wait()\n"
        "print('done')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    assert ended.stdout == b"done\n"
