"""A network of its own for the nodes of a test: a namespace with a bridge, and a tap for each node.

Nothing outside is touched; the host is 10.99.0.1 in there. The test's own process takes part by sockets that are
made inside: a socket stays in the network that it was made in.
Not here: the nodes (`machine`).
"""

import asyncio
import ctypes
import itertools
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from tests.stage.tools import need

CIDR: Final = "10.99.0.0/24"
HOST: Final = "10.99.0.1"

_CLONE_NEWNET: Final = 0x40000000


class Network:
    """A network namespace by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._taps = itertools.count(2)
        # A thread that has entered the namespace cannot be lent to anybody else.
        self._inside = ThreadPoolExecutor(1, thread_name_prefix="network", initializer=self._enter)

    def tap(self) -> tuple[str, str]:
        """A new tap on the bridge, and the address that its node is to have."""
        number = next(self._taps)
        ip("netns", "exec", self.name, "ip", "tuntap", "add", "dev", f"tap{number}", "mode", "tap")
        ip("-n", self.name, "link", "set", f"tap{number}", "master", "bridge")
        ip("-n", self.name, "link", "set", f"tap{number}", "up")
        return f"tap{number}", f"10.99.0.{number}"

    def tcp(self) -> socket.socket:
        """A TCP socket inside."""
        return self._inside.submit(socket.socket, socket.AF_INET, socket.SOCK_STREAM).result()

    def listener(self) -> socket.socket:
        """A listening socket on the host's address inside, on a free port."""
        sock = self.tcp()
        sock.bind((HOST, 0))
        sock.listen(128)
        return sock

    async def connect(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a node. Raises OSError."""
        sock = self.tcp()
        sock.settimeout(0)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            return await asyncio.open_connection(sock=sock, limit=1 << 26)
        except BaseException:
            sock.close()
            raise

    async def accepts(self, address: str, port: int) -> bool:
        """Whether something listens there."""
        try:
            async with asyncio.timeout(2):
                _, writer = await self.connect(address, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    def close(self) -> None:
        """Let go of the thread inside."""
        self._inside.shutdown()

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            if libc.setns(fd, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(fd)


@contextmanager
def network() -> Iterator[Network]:
    """A new network; gone on leaving, when its nodes have ended."""
    name = f"msrcache-{secrets.token_hex(4)}"
    ip("netns", "add", name)
    made = Network(name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "add", "bridge", "type", "bridge")
        ip("-n", name, "addr", "add", f"{HOST}/24", "dev", "bridge")
        ip("-n", name, "link", "set", "bridge", "up")
        yield made
    finally:
        made.close()
        ip("netns", "del", name)


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run([need("ip"), *arguments], check=True)
