"""The upstream of the cold figures: blobs and one manifest from a registry's folder, bytes and requests counted.

    python -m bench.upstream PORT FOLDER RATE

A thread a connection and sendfile, so that it costs little beside what is measured. GET /counts tells. RATE: bytes a
second that all bodies together get; 0: no limit.
"""

import hashlib
import json
import os
import re
import socketserver
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote

BLOB = re.compile(r"/v2/.+/blobs/sha256:([0-9a-f]{64})$")
MANIFEST = re.compile(r"/v2/(.+)/manifests/(.+)$")


class Counts:
    """What was asked and sent so far; by `METHOD kind`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: dict[str, int] = {}
        self.sent = 0

    def asked(self, what: str) -> None:
        """One more request."""
        with self.lock:
            self.requests[what] = self.requests.get(what, 0) + 1

    def add(self, count: int) -> None:
        """So many more bytes of blobs."""
        with self.lock:
            self.sent += count


class Rate:
    """What all bodies together may have in a second."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._due = 0.0

    def piece(self) -> int:
        """How much is sent at once: a fiftieth of a second's."""
        return max(4096, self._rate // 50) if self._rate else 1 << 20

    def wait(self, count: int) -> None:
        """Until so much more may go out."""
        if not self._rate:
            return
        with self._lock:
            self._due = max(self._due, time.monotonic()) + count / self._rate
            due = self._due
        time.sleep(max(0.0, due - time.monotonic()))


class Server(socketserver.ThreadingTCPServer):
    """Listens; knows the folder."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int, folder: Path, rate: int) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.rate = Rate(rate)
        self.folder = folder / "docker/registry/v2"
        self.counts = Counts()


class Connection(socketserver.StreamRequestHandler):
    """One keep-alive connection."""

    server: Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer until the client leaves."""
        try:
            while line := self.rfile.readline():
                method, target, _ = line.decode().split(" ", 2)
                headers = {}
                while (field := self.rfile.readline()) not in (b"\r\n", b""):
                    name, _, value = field.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                self.answer(method, unquote(target.partition("?")[0]), headers.get("range"))
        except ConnectionError:
            return

    def answer(self, method: str, path: str, wanted: str | None) -> None:
        """One answer."""
        counts = self.server.counts
        if path == "/counts":
            return self.say(json.dumps({"requests": counts.requests, "sent": counts.sent}).encode(), "GET")
        if found := BLOB.match(path):
            counts.asked(f"{method} blob")
            return self.blob(method, found[1], wanted)
        if found := MANIFEST.match(path):
            counts.asked(f"{method} manifest")
            return self.manifest(method, found[1], found[2])
        counts.asked(f"{method} other")
        return self.say(b"{}", method)

    def manifest(self, method: str, repository: str, reference: str) -> None:
        """By tag or digest."""
        if not reference.startswith("sha256:"):
            link = f"repositories/{repository}/_manifests/tags/{reference}/current/link"
            reference = (self.server.folder / link).read_text()
        data = self._data(reference.removeprefix("sha256:")).read_bytes()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.say(data, method, kind=json.loads(data)["mediaType"], digest=digest)

    def blob(self, method: str, name: str, wanted: str | None) -> None:
        """Whole, or from an offset."""
        with self._data(name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first, last = 0, size - 1
            if wanted and (span := re.match(r"bytes=(\d+)-(\d*)$", wanted)):
                first, last = int(span[1]), int(span[2] or size - 1)
            status = (
                f"206 Partial Content\r\nContent-Range: bytes {first}-{last}/{size}" if wanted else "200 OK"
            )
            self._head(status, last - first + 1, "application/octet-stream", f"sha256:{name}")
            while method == "GET" and first <= last:
                wanted_now = min(self.server.rate.piece(), last + 1 - first)
                count = os.sendfile(self.connection.fileno(), file.fileno(), first, wanted_now)
                self.server.rate.wait(count)
                first += count
                self.server.counts.add(count)

    def say(self, data: bytes, method: str, *, kind: str = "application/json", digest: str = "") -> None:
        """A small answer."""
        self._head("200 OK", len(data), kind, digest)
        if method == "GET":
            self.wfile.write(data)

    def _head(self, status: str, length: int, kind: str, digest: str) -> None:
        told = f'Docker-Content-Digest: {digest}\r\nETag: "{digest}"\r\n' if digest else ""
        head = f"HTTP/1.1 {status}\r\nDocker-Distribution-Api-Version: registry/2.0\r\n{told}"
        self.wfile.write(f"{head}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode())

    def _data(self, name: str) -> Path:
        return self.server.folder / "blobs/sha256" / name[:2] / name / "data"


if __name__ == "__main__":
    os.nice(10)
    Server(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])).serve_forever()
