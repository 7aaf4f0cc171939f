"""How many processes `cache.workers: auto` means: the cores that this process may use. Reads /proc and /sys."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MOST: Final = 8
"""One core sends 2 GB/s and more: what is behind it is full long before so many are."""


def cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """The cores of the affinity mask, at most as many as a quota of a container or a unit pays for; 1 to MOST."""
    allowed = len(os.sched_getaffinity(0))
    bounds = [_quota(folder, *names) for folder, names in _places(root, own)]
    return max(1, min(allowed, math.ceil(min(bounds)), MOST))


def _places(root: Path, own: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Where a quota may stand: in our own control group and in all above it; in the old hierarchy, at its root."""
    yield root, ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    yield root, ("cpu.max",)
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("0::/") and ".." not in line:
            group = root / line.removeprefix("0::/")
            while group != root:
                yield group, ("cpu.max",)
                group = group.parent


def _quota(folder: Path, *names: str) -> float:
    """Cores' worth of time that may be used; MOST where there is no such bound."""
    try:
        quota, period = " ".join((folder / name).read_text() for name in names).split()
        return int(quota) / int(period) if int(quota) > 0 else MOST
    except (OSError, ValueError, ZeroDivisionError):
        return MOST  # not this kind of control group, or "max"
