"""Nodes: user-mode Linux kernels that boot from the host's own files (`node.sh` is their init).

A node needs no image and no virtualisation; it sees the host's files read-only. It is ended by its process id, and
always with its whole group: processes of a node whose kernel alone is killed are let go, and go on as the host's.
Not here: what a client node does on command (`agent`, and `remote` for the test's side).
"""

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.stage.nodes.network import CIDR, Network
from tests.stage.process import Process, start, until
from tests.stage.tools import absent, need, need_root

INIT: Final = Path(__file__).with_name("node.sh")
MODULES: Final = Path("/usr/lib/uml/modules")
MEMORY: Final = Path("/dev/shm")
NFS_PORT: Final = 2049
DISK: Final = 512 << 20


@dataclass(slots=True)
class Node:
    """A running node. `pause` and `kill` are a hang and a power failure."""

    name: str
    address: str
    network: Network
    process: Process

    def pause(self) -> None:
        """Stop its whole kernel: it answers nothing and forgets nothing."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """As when its power fails: what it had not written to its disk is gone."""
        self.process.kill()


def need_nodes() -> None:
    """Skips or fails the test where nodes cannot be had."""
    need_root()
    for program in ("linux.uml", "ip", "modprobe", "exportfs", "mount.nfs4", "mkfs.ext4"):
        need(program)
    if not MODULES.is_dir():
        absent("the kernel's modules are not at /usr/lib/uml/modules: run scripts/test-deps")
    if not Path("/dev/net/tun").exists():
        absent("there is no /dev/net/tun")


def boot(network: Network, folder: Path, name: str, *, role: str, **words: str) -> Node:
    """A node that boots; `words` are environment of its init. Not yet ready."""
    tap, address = words.pop("tap", ""), words.pop("address", "")
    if not tap:
        tap, address = network.tap()
    # The same for a node that boots again: nobody has to forget its old address first.
    mac = f"02:00:0a:63:00:{int(address.rpartition('.')[2]):02x}"
    memory = MEMORY if os.access(MEMORY, os.W_OK) else folder
    given = {
        "ROLE": role,
        "NODE": name,
        "ADDRESS": address,
        "NETWORK": CIDR,
        "MODULES": str(MODULES),
        **words,
    }
    process = start(
        name,
        [
            *(need("ip"), "netns", "exec", network.name, need("linux.uml")),
            *("mem=256M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"),
            *("con=null", "con0=null,fd:1", "ssl=null", f"uml_dir={folder}", f"umid={name}"),
            *(f"vec0:transport=tap,ifname={tap},depth=64,gro=1,mac={mac}", f"init={INIT}"),
            *(f"{key}={value}" for key, value in given.items()),
        ],
        log=folder / f"{name}.log",
        env={"TMPDIR": str(memory)},
    )
    return Node(name, address, network, process)


class Server:
    """A file server on a node, with a disk that outlives it."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._network = network
        self._folder = folder
        self._tap, self.address = network.tap()
        self._disk = folder / "disk"
        self._node: Node | None = None

    @property
    def node(self) -> Node:
        """The node that it runs on."""
        assert self._node is not None
        return self._node

    async def start(self) -> None:
        """Boot it, for the first time or again, and wait until it serves."""
        if not self._disk.exists():
            with self._disk.open("wb") as disk:
                disk.truncate(DISK)
            subprocess.run([need("mkfs.ext4"), "-q", "-F", self._disk], check=True)
        words = {"ubda": str(self._disk), "tap": self._tap, "address": self.address}
        self._node = boot(self._network, self._folder, "server", role="server", **words)
        await until(self._serves, what="the file server to serve", seconds=60)

    def kill(self) -> None:
        """As when its power fails; nothing where it never ran."""
        if self._node is not None:
            self._node.kill()

    async def _serves(self) -> bool:
        assert not self.node.process.ended, self.node.process.said()
        return await self._network.accepts(self.address, NFS_PORT)
