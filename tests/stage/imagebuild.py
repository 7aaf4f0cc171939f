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
from collections.abc import Sequence
from pathlib import Path

from tests.stage.clients import ran
from tests.stage.engines import Docker
from tests.stage.tools import PROJECT, cache_folder, need

SUITE, PYTHON, BASE = "bookworm", "3.11", "msrcache-base:test"
PACKAGES = "python3-minimal,libpython3.11-stdlib,ca-certificates"
CONTEXT = ("msrcache", "docker", "Dockerfile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
EMULATORS_CONTEXT = (
    *CONTEXT,
    "docker-compose.yml",
    ".dockerignore",
    "scripts",
    "tests/__init__.py",
    "tests/stage",
)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


async def base_archive(*more: str) -> Path:
    """A tar archive of a small Debian with Python and more packages, for `docker import`; takes a minute when new."""
    argv: list[str | Path] = ["--variant=minbase", f"--include={','.join((PACKAGES, *more))}"]
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


async def wheels(wanted: Sequence[str]) -> Path:
    """A folder with a wheel of everything that is wanted, for the base's Python."""
    pinned = (PROJECT / "constraints.txt").read_text()
    target = cache_folder() / f"wheels-{_hash(PYTHON, pinned, *wanted)}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=target.parent, prefix=".building-"))
        argv = ["-m", "pip", "download", "-q", "--disable-pip-version-check", "-d", str(building)]
        argv += ["--only-binary=:all:", "--python-version", PYTHON, "-c", str(PROJECT / "constraints.txt")]
        try:
            await ran(sys.executable, *argv, *wanted, seconds=300)
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return target


def _context(folder: Path, names: Sequence[str], wheel_folders: Sequence[Path]) -> None:
    for name in names:
        source, target = PROJECT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    # linked, not copied: the cache may be on another file system, then it is copied after all
    for wheel_folder in wheel_folders:
        shutil.copytree(wheel_folder, folder / "wheels", copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


async def import_base(docker: Docker, *more: str) -> str:
    """The base, with more packages in it, known to the daemon by the name that is returned."""
    await docker("import", await base_archive(*more), BASE, seconds=300)
    return BASE


async def build_image(docker: Docker, name: str = "msrcache:test") -> str:
    """Builds the Dockerfile on the base made here, cut off from every network; returns the image's name."""
    wheel_folder, base = await wheels(requirements()), await import_base(docker)
    with tempfile.TemporaryDirectory() as folder:
        await asyncio.to_thread(_context, Path(folder), CONTEXT, [wheel_folder])
        argv = ["build", "--network", "none", "--build-arg", f"BASE_IMAGE={base}", "-t", name, folder]
        await docker(*argv, seconds=600)
    return name


async def emulator_context(folder: Path, *programs: str) -> None:
    """What docker-compose builds from without a network: sources, wheels, programs as scripts/test-deps left them."""
    folders = [await wheels(requirements()), await wheels(["pytest"])]
    await asyncio.to_thread(_context, folder, EMULATORS_CONTEXT, folders)
    for program in programs:
        built = need(program).parent
        await asyncio.to_thread(shutil.copytree, built, folder / "tools" / built.name)
