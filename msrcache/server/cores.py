"""How many processes `cache.workers: auto` means: the cores that this process may use. Reads /proc and /sys."""

import math
import os
from pathlib import Path
from typing import Final

MOST: Final = 8
"""One core sends 2 GB/s and more: what is behind it is full long before so many are."""


def cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores of the affinity mask, at most as many as the container's quota pays for; 1 to MOST."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, math.ceil(_quota(root)), MOST))


def _quota(root: Path) -> float:
    """Cores' worth of time that the container may use; MOST where there is no such bound."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((root / name).read_text() for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else MOST
        except (OSError, ValueError, ZeroDivisionError):
            continue  # not this kind of cgroup, or "max"
    return MOST
