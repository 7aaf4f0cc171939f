"""Which mount a folder stands in, and what its options mean for a store that several machines share.

Read from /proc/self/mountinfo, which asks no file server: a mount that hangs can be described.

NFS, in short (nfs(5)): the client remembers which names exist and which do not, and asks again only when what it
knows of the folder is too old (up to 60 s by default). `lookupcache=positive` remembers no absence.
Not here: what a driver does about it (`lookups`).
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOUNTINFO: Final = Path("/proc/self/mountinfo")

_NFS: Final = frozenset({"nfs", "nfs4"})
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_SHORT: Final = 50
"""timeo in tenths of a second below which a soft mount gives up while a busy server still works."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. Options of the mount and of the file system are in one mapping; flags map to ""."""

    point: str
    device: str
    kind: str
    source: str
    options: Mapping[str, str]

    @property
    def nfs(self) -> bool:
        """Whether a file server is behind it."""
        return self.kind in _NFS

    @property
    def remembers_absence(self) -> bool:
        """Whether a name that another machine made may stay absent here for a while."""
        return self.nfs and self.options.get("lookupcache", "all") not in {"pos", "positive", "none"}

    @property
    def remembers_presence(self) -> bool:
        """Whether a name that another machine removed or replaced may stay as it was here for a while."""
        return self.nfs and self.options.get("lookupcache") != "none"

    @property
    def opens_anew(self) -> bool:
        """Whether opening asks the server (close-to-open); `nocto` gives that up."""
        return self.nfs and "nocto" not in self.options

    @property
    def shares_locks(self) -> bool:
        """Whether a lock taken here is seen by other machines."""
        return self.nfs and self.options.get("local_lock", "none") not in {"all", "flock"}

    @property
    def soft(self) -> bool:
        """Whether calls fail when the server does not answer; else they wait for it."""
        return self.nfs and bool({"soft", "softerr"} & self.options.keys())

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        return "ro" in self.options


def parse(text: str) -> list[Mount]:
    """The mounts of a mountinfo file (proc(5)), in its order; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, types = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or len(types) < 3:
            continue
        options = dict(_options(fields[5])) | dict(_options(types[2]))
        if "ro" in fields[5].split(","):  # a read-only mount of a writable file system
            options.pop("rw", None)
            options["ro"] = ""
        found.append(Mount(_plain(fields[4]), fields[2], types[0], _plain(types[1]), options))
    return found


def covering(mounts: Iterable[Mount], path: str, *, device: str | None = None) -> Mount | None:
    """The mount that an absolute path without symbolic links stands in.

    The longest mount point wins, and of several mounts on one point the last. `device` (major:minor, as stat
    has it) tells a mount that another one has hidden; where none has that device, it is not looked at.
    """
    above = [mount for mount in mounts if _is_below(path, mount.point)]
    exact = [mount for mount in above if mount.device == device]
    best: Mount | None = None
    for mount in exact or above:
        if best is None or len(mount.point) >= len(best.point):
            best = mount
    return best


def mount_of(folder: Path) -> Mount | None:
    """The mount that a folder stands in, or would stand in; None where the kernel does not tell.

    Blocks: symbolic links are followed, so a file server may be asked.
    """
    try:
        mounts = parse(MOUNTINFO.read_text(errors="surrogateescape"))
    except OSError:
        return None
    place = Path(os.path.realpath(folder))
    for path in (place, *place.parents):
        try:
            device = path.stat().st_dev
        except OSError:
            continue
        return covering(mounts, str(path), device=f"{os.major(device)}:{os.minor(device)}")
    return covering(mounts, str(place))


def mount_named(folder: Path) -> Mount | None:
    """As mount_of by the path's text alone: asks no file system, follows no symbolic link, and so never hangs."""
    try:
        return covering(parse(MOUNTINFO.read_text(errors="surrogateescape")), str(folder.absolute()))
    except OSError:
        return None


def remarks(mount: Mount) -> list[str]:
    """What an operator should know about the mount of a shared store, one sentence each; the worst first."""
    if not mount.nfs:
        return []
    said = []
    if mount.read_only:
        said.append("the mount is read-only (ro): nothing can be stored, what is there is served")
    if not mount.shares_locks:
        said.append(
            "locks are local (nolock or local_lock): what dead writers left is removed by age alone; mount without it"
        )
    if not mount.opens_anew:
        said.append("the mount has nocto: what other replicas replaced is seen late; mount without it")
    if mount.remembers_absence:
        said.append(
            "the mount remembers that names were absent: every miss costs one more question to the file server;"
            " mount with lookupcache=positive"
        )
    if mount.soft and _number(mount.options.get("timeo", "")) < _SHORT:
        said.append(
            "the mount is soft with a short timeo: a busy file server becomes failed calls; mount with timeo=100"
            " or more"
        )
    return said


def _options(text: str) -> Iterable[tuple[str, str]]:
    for option in text.split(","):
        name, _, value = option.partition("=")
        if name:
            yield name, value


def _plain(text: str) -> str:
    """Without the octal escapes for blanks, tabs, line ends and backslashes."""
    return _ESCAPED.sub(lambda found: chr(int(found.group(1), 8)), text)


def _is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else _SHORT
