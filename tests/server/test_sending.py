"""server.sending: the ways that bytes take to a client, each with its refusals."""

import asyncio
import errno
import os
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from msrcache.oci.ranges import Span
from msrcache.oci.registry import Chunk, FileSpan
from msrcache.server import sending
from msrcache.server.sending import Reader
from msrcache.server.settings import ServerSettings
from tests.server.test_deliver import LARGE, url
from tests.server.test_tls import section, trusting
from tests.stage.certificates import authority
from tests.stage.files import open_file
from tests.stage.serving import Served, serving


def refusing(code: int, calls: list[int]) -> Callable[..., int]:
    """A system call that is refused."""

    def call(*_: object) -> int:
        calls.append(threading.get_ident())
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
async def test_without_sendfile(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A file system that refuses sendfile is read and written; it is asked once for a body."""
    calls: list[int] = []
    monkeypatch.setattr(os, "sendfile", refusing(code, calls))
    with open_file(tmp_path / "blob", LARGE) as file:
        client = await served.connect()
        digest = served.registry.hold(LARGE, file.mixed)
        assert (await client.ask(url(digest))).body == LARGE
        assert (await client.ask("/v2/")).status == 200
    assert len(calls) == 1


@pytest.mark.parametrize("sendfile", [True, False])
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.EAGAIN])
async def test_where_the_page_cache_says_nothing(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, *, sendfile: bool
) -> None:
    """RWF_NOWAIT refused, or cold: threads read, never the loop, with sendfile and without."""
    readers: list[int] = []
    preadv, pread = os.preadv, os.pread

    def cold(fd: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise OSError(code, os.strerror(code))
        readers.append(threading.get_ident())
        return preadv(fd, buffers, offset)

    def read(fd: int, size: int, offset: int) -> bytes:
        readers.append(threading.get_ident())
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "preadv", cold)
    monkeypatch.setattr(os, "pread", read)
    if not sendfile:
        monkeypatch.setattr(os, "sendfile", refusing(errno.EINVAL, []))
    with open_file(tmp_path / "blob", LARGE) as file:
        digest = served.registry.hold(LARGE, file.whole)
        assert (await (await served.connect()).ask(url(digest))).body == LARGE
    assert readers
    assert threading.get_ident() not in readers


async def test_a_cold_file(served: Served, tmp_path: Path) -> None:
    """A file that has left the page cache arrives whole."""
    with open_file(tmp_path / "blob", LARGE) as file:
        os.fsync(file.fd)
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        digest = served.registry.hold(LARGE, file.whole)
        assert (await (await served.connect()).ask(url(digest))).body == LARGE


@pytest.mark.parametrize("kind", ["whole", "mixed"])
async def test_under_tls(tmp_path: Path, kind: str) -> None:
    """The same bytes through TLS, twice on one connection, and to a client that reads slowly."""
    issuer = authority(tmp_path / "ca")
    with open_file(tmp_path / "blob", LARGE) as file:
        async with serving(ServerSettings(tls=section(issuer.issue("server")))) as served:
            digest = served.registry.hold(LARGE, file.whole if kind == "whole" else file.mixed)
            client = await served.connect(trusting(issuer), limit=64 * 1024)
            for _ in range(2):
                assert (await client.ask(url(digest))).body == LARGE
            await client.send(f"GET {url(digest)} HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.heading()
            found = bytearray()
            while len(found) < len(LARGE):
                found += await client.reader.read(10_001)
                await asyncio.sleep(0)
            assert found == LARGE


async def test_what_breaks_under_tls_does_not_end_well(tmp_path: Path) -> None:
    """A cut under TLS comes without the close_notify that would end a body politely, and short."""
    issuer = authority(tmp_path / "ca")

    async def body(span: Span) -> AsyncIterator[Chunk]:
        yield LARGE[: span.size // 2]
        raise OSError(errno.EIO, "disk")

    async with serving(ServerSettings(tls=section(issuer.issue("server")))) as served:
        client = await served.connect(trusting(issuer))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ssl.SSLError)):
            await client.ask(url(served.registry.hold(LARGE, body)))
        assert served.count("delivery_cut_total", reason="source") == 1


async def test_a_socket_error_is_the_clients(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPIPE and ECONNRESET from sendfile are no disk errors: nothing is resumed, the client is counted as gone."""
    monkeypatch.setattr(os, "sendfile", refusing(errno.ECONNRESET, []))
    with open_file(tmp_path / "blob", LARGE) as file:
        client = await served.connect()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.ask(url(served.registry.hold(LARGE, file.whole)))
    assert served.count("delivery_cut_total", reason="client") == 1


async def test_the_reader_ends_at_the_end(tmp_path: Path) -> None:
    """Reading ahead of a file that is shorter than thought ends without an error; bytes come as far as they go."""
    reader = Reader(threads=1)
    try:
        with open_file(tmp_path / "blob", b"0123456789") as file:
            await reader.warm(file.fd, 0, 1 << 22)
            assert await reader.read(file.fd, 8, 100) == b"89"
            with pytest.raises(OSError, match="Bad file"):
                await reader.warm(-1, 0, 10)
    finally:
        reader.close()


class HungServer:
    """Makes reads of one file hang until `go`, as a file server does that cannot tell what is in the page cache."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
        self.go, self.hanging = threading.Event(), threading.Semaphore(0)
        preadv = os.preadv

        def read(of: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
            if flags & os.RWF_NOWAIT:
                code = errno.EOPNOTSUPP if of == fd else errno.EAGAIN
                raise OSError(code, os.strerror(code))
            if of == fd and not self.go.is_set():
                self.hanging.release()
                self.go.wait()
            return preadv(of, buffers, offset)

        monkeypatch.setattr(os, "preadv", read)


async def test_a_file_server_that_hangs_keeps_its_own_threads(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cold files of a local disk are read while more readers than threads hang; those go on when it answers."""
    other = LARGE[::-1]
    with open_file(tmp_path / "remote", LARGE) as remote, open_file(tmp_path / "local", other) as local:
        hung = HungServer(monkeypatch, remote.fd)
        digest = served.registry.hold(LARGE, remote.whole)
        clients = [await served.connect() for _ in range(12)]
        asking = [asyncio.create_task(client.ask(url(digest))) for client in clients]
        for _ in range(8):
            await asyncio.to_thread(hung.hanging.acquire)
        digest = served.registry.hold(other, local.whole)
        assert (await (await served.connect()).ask(url(digest))).body == other
        assert not any(task.done() for task in asking)
        hung.go.set()
        assert [(await task).body == LARGE for task in asking] == [True] * 12


async def test_what_hangs_too_long_is_cut(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is not left waiting for ever: its connection breaks, and it may ask elsewhere."""
    monkeypatch.setattr(sending, "PATIENCE", 0.0)
    with open_file(tmp_path / "remote", LARGE) as remote:
        hung = HungServer(monkeypatch, remote.fd)
        client = await served.connect()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.ask(url(served.registry.hold(LARGE, remote.whole)))
        hung.go.set()
    assert served.count("delivery_cut_total", reason="disk") == 1


async def test_a_growing_file_is_followed(served: Served, tmp_path: Path) -> None:
    """Many small spans of a file that still grows make one body: a fill's tail looks so."""
    path = tmp_path / "spool"
    path.write_bytes(b"")
    fd = os.open(path, os.O_RDWR)

    async def tail(span: Span) -> AsyncIterator[Chunk]:
        for start in range(0, span.size, 77_777):
            os.pwrite(fd, LARGE[start : start + 77_777], start)
            yield FileSpan(fd, start, min(start + 77_777, span.size))

    try:
        digest = served.registry.hold(LARGE, tail)
        assert (await (await served.connect()).ask(url(digest))).body == LARGE
    finally:
        os.close(fd)
