"""Imports go one way. The contracts stand in pyproject.toml; here they are kept, and shown to bite."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter over a folder with a package and a pyproject.toml."""
    program = Path(sys.executable).with_name("lint-imports")
    argv = [str(program), "--no-cache", "--config", "pyproject.toml"]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)


def test_the_layers_hold() -> None:
    """Every contract is kept by the package as it is."""
    result = lint(PROJECT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_contract_bites(tmp_path: Path) -> None:
    """One forbidden import per contract, in a package of the same shape, and each is found."""
    (tmp_path / "pyproject.toml").write_text((PROJECT / "pyproject.toml").read_text())
    package = tmp_path / "msrcache"
    for name in ("oci", "config", "telemetry", "sockets", "storage", "upstream", "cache", "access", "server"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "cache" / "pull.py").write_text("import msrcache.upstream\n")
    (package / "access" / "gate.py").write_text("")  # the protocol that the server may know
    (package / "access" / "asking.py").write_text("")
    (package / "server" / "app.py").write_text("import msrcache.storage, msrcache.access.gate\n")
    (package / "server" / "admin.py").write_text("import msrcache.access.asking\n")
    (package / "oci" / "digest.py").write_text("import aiohttp\n")
    (package / "storage" / "s3client.py").write_text("import botocore\n")  # where it may be
    (package / "storage" / "gcs.py").write_text("import botocore\n")  # and where not
    result = lint(tmp_path)
    assert result.returncode == 1
    assert "msrcache.cache.pull -> msrcache.upstream" in result.stdout
    assert "msrcache.server.app -> msrcache.storage" in result.stdout
    assert "msrcache.server.admin -> msrcache.access.asking" in result.stdout
    assert "msrcache.server.app -> msrcache.access.gate" not in result.stdout
    assert "msrcache.oci.digest -> aiohttp" in result.stdout
    assert "msrcache.storage.gcs -> botocore" in result.stdout
    assert "msrcache.storage.s3client ->" not in result.stdout
