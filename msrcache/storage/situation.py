"""What an operator should know of the folder that a store stands in: the mount, and what its options cost.

The options of the mount are read here; those of the file server's export (rw, root_squash, no_wdelay) stand on the
server, and only what shows of them can be told: whether root's files belong to somebody else.
"""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msrcache.storage.mounts import Mount, mount_of, remarks

TOLD: Final = (
    "vers",
    "proto",
    "hard",
    "soft",
    "softerr",
    "timeo",
    "lookupcache",
    "nocto",
    "noac",
    "actimeo",
    "local_lock",
)
"""The options worth telling, in this order."""

EXPORT: Final = (
    "the options of the server's export cannot be read from here: let it be rw,root_squash,no_wdelay (`exportfs -v` on"
    " the server); with wdelay each of our small writes waits for others"
)


def situation(root: Path) -> Sequence[str]:
    """Sentences about the mount, the worst first; none for a local folder. Blocks. Raises OSError."""
    mount = mount_of(root)
    return told(mount, owner=_owner_of_ours(root) if mount is not None and mount.nfs else None)


def told(mount: Mount | None, *, owner: int | None) -> Sequence[str]:
    """The sentences (pure). `owner` is whose the files are that this process, being root, writes; None: not known."""
    if mount is None or not mount.nfs:
        return ()
    return [*remarks(mount), _described(mount), *_squashed(owner), EXPORT]


def _described(mount: Mount) -> str:
    options = [f"{name}={mount.options[name]}".rstrip("=") for name in TOLD if name in mount.options]
    access = "ro" if mount.read_only else "rw"
    return f"{mount.source} is mounted at {mount.point} as {mount.kind} ({', '.join([access, *options])})"


def _squashed(owner: int | None) -> Sequence[str]:
    if owner is None:
        return ()
    if owner:
        return (
            f"root_squash is on: what this root writes belongs to uid {owner}, which must own the folder",
        )
    return (
        "root_squash is off: whoever is root on any client can change every file; export it with root_squash",
    )


def _owner_of_ours(root: Path) -> int | None:
    """Whose a file is that root writes here; None where this process is not root, or cannot write."""
    if os.geteuid() != 0:
        return None
    path = root / f".msrcache-owner-{secrets.token_hex(8)}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        return os.fstat(fd).st_uid
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
