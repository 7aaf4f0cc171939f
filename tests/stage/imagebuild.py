"""Builds the project's container image without any image registry and without a network.

The base is made of Debian packages by mmdebstrap, the dependencies come from a folder of wheels. Both are
kept in the tools' cache, by a hash of what they are made from.
"""

import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.stage.clients import ran
from tests.stage.engines import Docker
from tests.stage.tools import PROJECT, cache_folder, need

SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = "python3-minimal,libpython3.11-stdlib,ca-certificates"
CONTEXT = ("msrcache", "docker", "Dockerfile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


async def base_archive() -> Path:
    """A tar archive of a small Debian with Python, for `docker import`; takes a minute when it is new."""
    argv: list[str | Path] = ["--variant=minbase", f"--include={PACKAGES}"]
    argv += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    target = cache_folder() / f"base-{_hash(SUITE, *map(str, argv))}.tar"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as folder:
            made = Path(folder) / "base.tar"
            await ran(need("mmdebstrap"), *argv, SUITE, made, *_sources(), seconds=600)
            made.rename(target)
    return target


def _sources() -> list[Path]:
    # the machine's own, where it is a Debian: they name the mirror that it can reach
    files = [Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources")]
    return [file for file in files if file.exists()]


def requirements() -> list[str]:
    """What the image installs beside the package itself, and what its build needs."""
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"]
    stores = [line for name in ("s3", "azure", "gcs", "swift", "oss") for line in extras[name]]
    needed: list[str] = pyproject["project"]["dependencies"] + stores + pyproject["build-system"]["requires"]
    return [*needed, "pip"]


async def wheels() -> Path:
    """A folder with a wheel of everything, for the base's Python."""
    pinned = (PROJECT / "constraints.txt").read_text()
    target = cache_folder() / f"wheels-{_hash(PYTHON, pinned, *requirements())}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=target.parent, prefix=".building-"))
        argv = ["-m", "pip", "download", "-q", "--disable-pip-version-check", "-d", str(building)]
        argv += ["--only-binary=:all:", "--python-version", PYTHON, "-c", str(PROJECT / "constraints.txt")]
        try:
            await ran(sys.executable, *argv, *requirements(), seconds=300)
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return target


def _context(folder: Path, wheel_folder: Path) -> None:
    for name in CONTEXT:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    # linked, not copied: the cache may be on another file system, then it is copied after all
    shutil.copytree(wheel_folder, folder / "wheels", copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


async def build_image(docker: Docker, name: str = "msrcache:test") -> str:
    """Builds the Dockerfile on the base made here, cut off from every network; returns the image's name."""
    base, wheel_folder = await base_archive(), await wheels()
    await docker("import", base, "msrcache-base:test", seconds=300)
    with tempfile.TemporaryDirectory() as folder:
        await asyncio.to_thread(_context, Path(folder), wheel_folder)
        argv = [
            "build",
            "--network",
            "none",
            "--build-arg",
            "BASE_IMAGE=msrcache-base:test",
            "-t",
            name,
            folder,
        ]
        await docker(*argv, seconds=600)
    return name
