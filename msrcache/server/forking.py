"""Child processes, and the signals of a parent that has no event loop.

A child begins with clean signals and never comes back into its parent's code. The parent must have no thread and no
event loop: a fork copies the one thread that calls it, and the locks of all.
"""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

WAITING: Final = frozenset({signal.SIGTERM, signal.SIGHUP})


def hearing() -> None:
    """The child has handlers of its own: what was sent since the fork arrives now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITING)


@contextmanager
def bytes_of(signals: Collection[signal.Signals]) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of sockets: each signal is a byte to be read from the first, and nothing is done in a handler."""
    wake, wakened = socket.socketpair()
    for end in (wake, wakened):
        end.settimeout(0)
    before = {number: signal.signal(number, lambda *_: None) for number in signals}
    signal.set_wakeup_fd(wakened.fileno(), warn_on_full_buffer=False)
    try:
        yield wake, wakened
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        wake.close()
        wakened.close()


def forked(work: Callable[[], int], *, signals: Collection[signal.Signals]) -> int:
    """The pid of a child that does the work and exits with its result; `signals` are those that we handle.

    SIGTERM and SIGHUP wait until the child calls `hearing`, so that none is lost and none ends what only begins.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # No signal may meet the child while it still has our handlers.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        pid = os.fork()
        if not pid:
            _be(work, signals)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    return pid


def _be(work: Callable[[], int], signals: Collection[signal.Signals]) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        # Ctrl-C reaches the whole group; the parent decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(signals) - WAITING)
        code = work()
    except BaseException:  # noqa: BLE001 - told here, because above us only the parent's own code waits
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
