"""Many clients of several replicas at once, each told of apart: a process of its own, as bench.client is.

    python -m bench.crowd '{"ports": [5000, 5001], "path": "/v2/…", "size": 1, "clients": 48}'

Client n goes to the port n modulo their number. Whoever is cut is told of with what it had; nobody comes again.
"""

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass

from bench.client import BUFFER, Failed, ask, connect, head


@dataclass(slots=True)
class Seen:
    """What one client saw; seconds from the common start, `pause` between two reads."""

    port: int
    first: float = 0.0
    end: float = 0.0
    pause: float = 0.0
    got: int = 0
    error: str = ""


def pull(seen: Seen, path: str, size: int, begun: float) -> None:
    """One body; raises OSError, Failed."""
    view = memoryview(bytearray(BUFFER))
    with connect(seen.port, tls=False) as sock:
        ask(sock, path)
        status, seen.got = head(sock, view)
        if status != 200:
            raise Failed(f"{status}")
        last = time.perf_counter()
        seen.first = last - begun
        while seen.got < size:
            count = sock.recv_into(view[: size - seen.got])
            now = time.perf_counter()
            if not count:
                raise Failed(f"cut at byte {seen.got}")
            seen.pause, last = max(seen.pause, now - last), now
            seen.got += count
        seen.end = last - begun


def main() -> None:
    """Do what the argument says."""
    told = json.loads(sys.argv[1])
    os.nice(10)
    crowd = [Seen(told["ports"][number % len(told["ports"])]) for number in range(told["clients"])]
    begun = time.perf_counter()

    def one(seen: Seen) -> None:
        try:
            pull(seen, told["path"], told["size"], begun)
        except (OSError, Failed) as error:
            seen.error = repr(error)

    threads = [threading.Thread(target=one, args=(seen,)) for seen in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([asdict(seen) for seen in crowd]))


if __name__ == "__main__":
    main()
