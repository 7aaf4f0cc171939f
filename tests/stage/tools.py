"""Finds the real programs that tests run; what is absent skips the test with its reason.

Under MSRCACHE_REQUIRED=1 (continuous integration) an absent program fails the test instead.
`scripts/test-deps` brings them all.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

PROJECT = Path(__file__).resolve().parents[2]
_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # where Debian keeps daemons; not on every user's PATH


def cache_folder() -> Path:
    """Where built programs and images are kept between runs."""
    if chosen := os.environ.get("MSRCACHE_TEST_TOOLS"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "msrcache-test-tools"


def required() -> bool:
    """Whether an absent program is a failure."""
    return os.environ.get("MSRCACHE_REQUIRED") == "1"


def absent(reason: str) -> NoReturn:
    """Skips the running test visibly, or fails it where everything is required."""
    if required():
        pytest.fail(f"required, but {reason}")
    pytest.skip(reason)


def find(name: str) -> Path | None:
    """The program's path: the version we build, else the system's; None where there is neither."""
    lists = (PROJECT / "scripts" / name for name in ("go-tools.txt", "go-tools-slow.txt"))
    for line in (line for path in lists for line in path.read_text().splitlines()):
        built, version, _ = line.split()
        if built == name:
            path = cache_folder() / f"{name}-{version}" / name
            return path if path.exists() else None
    for line in (PROJECT / "scripts/npm-tools.txt").read_text().splitlines():
        program, version, package = line.split()
        if program == name:
            path = cache_folder() / f"{package}-{version}" / "node_modules/.bin" / name
            return path if path.exists() else None
    for line in (PROJECT / "scripts/pip-tools.txt").read_text().splitlines():
        program, version, package, inside = line.split()
        if program == name:
            path = cache_folder() / f"{package}-{version}" / inside
            return path if path.exists() else None
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM}")
    return Path(found) if found else None


def need(name: str) -> Path:
    """The program's path; skips or fails the test where it is absent."""
    path = find(name)
    if path is None:
        absent(f"{name} is not installed: run scripts/test-deps --all")
    return path


def need_root() -> None:
    """For container engines: they mount file systems."""
    if os.geteuid() != 0:
        absent("a container engine of our own needs root")
