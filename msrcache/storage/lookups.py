"""Whether the kernel's word on a name may be believed: a file server's client answers from memory.

On NFS the client remembers which names exist and which do not. What another replica made, removed or replaced a
moment ago may be hidden for as long as the folder's attributes are believed (3 to 60 s by default). Opening a folder
asks the server for its state, whatever is remembered (close-to-open), and where it has changed, the names in it are
looked up anew. That is one question of the cheapest kind, and it writes nothing. Measured on Linux 6.1, 150 names
looked for before and right after another machine made them: 150 wrong without it, none with it; 0.9 ms a miss,
where an exclusive create and unlink took 2.3 ms and reading the folder 1.3 ms.

Rules:
1. A stat believes neither presence nor absence: it asks anew first (except where the mount remembers nothing).
2. An open asks for the file that the name had here, and gets it as long as anybody has it open: of what was
   replaced a moment ago, the old one (measured: 30 of 30 where its replacer had it open). So a small file, which
   may be replaced by other bytes, is compared with its name asked anew: one question more. A large one is named by
   its digest: whichever it is has the right bytes. Of an open's miss only the absence is doubted.
3. What the mount remembers is read from its options, again every RECHECK seconds; `nfs: true` remembers everything.
4. A folder that is gone, or that was made anew by others, says nothing of what is in it: its parent is asked.
5. ESTALE, a handle that the server has forgotten, means that the name was removed or replaced meanwhile: it is
   looked up anew, TRIES times at most, because another replica may replace it again and again.
6. A client that replaces a file which it has open renames the old one to .nfs… first: for that moment the name is
   absent on the server (measured: 42 of 916 looks). So a miss beside such a file is looked at again, with growing
   pauses.
"""

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from msrcache.storage.mounts import Mount, mount_of

T = TypeVar("T")

RECHECK: Final = 60.0
"""Seconds for which the mount's options are believed: a mount may come, and be mounted anew otherwise."""

TRIES: Final = 8
"""How often a name is looked up that others replace meanwhile."""

PAUSE: Final = 0.005
"""Seconds before the second look at a name that may be being replaced; doubled each time, 0.6 s in all."""

SILLY: Final = re.compile(r"\.nfs[0-9a-f]{24}")
"""What an NFS client calls a file that was removed or replaced while it is open there; it goes when it is closed."""

GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
"""What says that a name is not there, or not what it was."""


class Lookups:
    """Names below one root. Blocks: for the disk's threads."""

    def __init__(self, root: Path, *, nfs: bool | None = None) -> None:
        """`nfs`: told so or told not; None finds out."""
        self._root = root
        self._told = nfs
        self._mount: Mount | None = None
        self._read_at = -RECHECK

    def __repr__(self) -> str:
        mount = self._mount.kind if self._mount is not None else "unknown"
        return f"<Lookups {self._root} {mount} nfs={self._told}>"

    @property
    def mount(self) -> Mount | None:
        """The mount that the root stands in."""
        now = time.monotonic()
        if now - self._read_at >= RECHECK:
            self._mount, self._read_at = mount_of(self._root), now
        return self._mount

    @property
    def remembers_presence(self) -> bool:
        """Whether a name that is there may be gone, or another object by now."""
        if self._told is not None:
            return self._told
        return self.mount is not None and self.mount.remembers_presence

    @property
    def remembers_absence(self) -> bool:
        """Whether a name that is not there may be there by now."""
        if self._told is not None:
            return self._told
        return self.mount is not None and self.mount.remembers_absence

    def at(self, path: Path, use: Callable[[Path], T], *, presence: bool = False) -> T:
        """`use(path)`, once more where it misses and the miss was only remembered. Raises OSError.

        `presence`: that the name is there is not believed either.
        """
        asked = presence and self.remembers_presence
        if asked:
            self.ask_anew(path)
        for number in range(TRIES - 1):
            try:
                return use(path)
            except OSError as error:
                if error.errno not in GONE:
                    raise
                if error.errno != errno.ESTALE and (asked or not self.remembers_absence):
                    if not self._being_replaced(path):
                        raise
                    time.sleep(PAUSE * 2**number)
            self.ask_anew(path)
            asked = True
        return use(path)

    def _being_replaced(self, path: Path) -> bool:
        """Whether the name may be absent for a moment only."""
        remote = self._told if self._told is not None else self.mount is not None and self.mount.nfs
        if not remote:
            return False
        try:
            names = [entry.name for entry in path.parent.iterdir()]
        except OSError:
            return False
        return path.name in names or any(SILLY.fullmatch(name) for name in names)

    def ask_anew(self, path: Path) -> None:
        """After this, what the kernel says of the name is no older than this call. Raises OSError."""
        for folder in path.parents:
            try:
                os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            except PermissionError:
                return  # above the store: what may not be read is not remembered for long either
            except OSError as error:
                if error.errno not in GONE:
                    raise
            else:
                return
