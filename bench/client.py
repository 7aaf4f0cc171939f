"""The load: a process of its own that costs little, told by one JSON argument and answering in JSON.

    python -m bench.client '{"port": 5000, "path": "/v2/…", "size": 1, "clients": 1, "times": 1, "tls": false}'

Bodies are read into one fixed buffer a thread and thrown away. With "slow" seconds, all the clients are
single-threaded and take 4 KiB each in turn, for so long. A wrong status or a short body is a failure.
"""

import json
import os
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress

BUFFER = 1 << 20


class Failed(Exception):
    """An answer was not what it should be."""


def connect(port: int, *, tls: bool, window: int = 0) -> socket.socket:
    """A connection; certificates are not checked. A window bounds what the kernel takes for a slow client."""
    sock = socket.socket()
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    sock.connect(("127.0.0.1", port))
    if not tls:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock)


def ask(sock: socket.socket, path: str) -> None:
    """Send a GET."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n".encode())


def head(sock: socket.socket, view: memoryview) -> tuple[int, int]:
    """Read the head; returns status and how much of the body came along."""
    have = 0
    while True:
        count = sock.recv_into(view[have:])
        if not count:
            raise Failed("the answer ended in its head")
        have += count
        block, found, _ = bytes(view[: min(have, 65536)]).partition(b"\r\n\r\n")
        if found:
            return int(block.split(b" ", 2)[1]), have - len(block) - 4


def fetch(sock: socket.socket, path: str, size: int, view: memoryview) -> float:
    """One whole answer; returns the seconds to the body's first byte."""
    begun = time.perf_counter()
    ask(sock, path)
    status, got = head(sock, view)
    if status != 200:
        raise Failed(f"{path}: {status}")
    first = time.perf_counter() - begun if got else 0.0
    while got < size:
        count = sock.recv_into(view[: size - got])
        if not count:
            raise Failed(f"{path}: {got} bytes of {size}")
        first = first or time.perf_counter() - begun
        got += count
    return first


def fast(port: int, path: str, size: int, clients: int, times: int, *, tls: bool) -> dict[str, object]:
    """All clients at once, each so many times over one connection."""
    firsts: list[float] = []
    errors: list[str] = []
    ready = threading.Barrier(clients + 1)

    def one(own: str) -> None:
        view = memoryview(bytearray(BUFFER))
        try:
            with connect(port, tls=tls) as sock:
                ready.wait()
                firsts.extend(fetch(sock, own, size, view) for _ in range(times))
        except (OSError, Failed) as error:
            errors.append(repr(error))
            ready.abort()

    paths = path.split() if " " in path else [path] * clients
    threads = [threading.Thread(target=one, args=(own,)) for own in paths]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        ready.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    return {"seconds": time.perf_counter() - begun, "first": sorted(firsts), "errors": errors}


def slow(port: int, path: str, clients: int, seconds: float, *, tls: bool) -> dict[str, object]:
    """Many clients that take 4 KiB in turn."""
    view = memoryview(bytearray(65536))
    socks = []
    for _ in range(clients):
        sock = connect(port, tls=tls, window=16384)
        ask(sock, path)
        socks.append(sock)
    taken = 0
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        for sock in socks:
            taken += sock.recv_into(view[:4096])
        time.sleep(0.2)
    return {"taken": taken, "errors": [] if taken else ["nothing came"]}


def main() -> None:
    """Do what the argument says."""
    told = json.loads(sys.argv[1])
    os.nice(10)  # what is measured goes first: where cores are few, the load would else be what makes it late
    if "slow" in told:
        found = slow(told["port"], told["path"], told["clients"], told["slow"], tls=told["tls"])
    else:
        found = fast(
            told["port"], told["path"], told["size"], told["clients"], told["times"], tls=told["tls"]
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
