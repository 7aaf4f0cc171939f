"""The systemd unit: accepted by systemd itself, hardened, and as patient as the cache is when it drains."""

import subprocess
import sys
from pathlib import Path

import pytest

from msrcache.config.model import DEFAULT_SPOOL, Config
from msrcache.config.storage import DEFAULT_ROOT
from msrcache.config.units import parse_duration
from tests.stage.tools import PROJECT, need

UNIT = PROJECT / "config/systemd/msrcache.service"


def settings() -> dict[str, list[str]]:
    """Each setting with all its values."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_it_is_stopped_as_slowly_as_the_cache_drains() -> None:
    """The sum that docs/operations.md asks for; SIGTERM to the supervisor alone, SIGKILL to all that is left."""
    config, unit = Config(), settings()
    least = config.cache.drain.delay + config.http.drain_timeout + 20
    assert parse_duration(f"{unit['TimeoutStopSec'][0]}s") >= least
    assert unit["KillMode"] == ["mixed"]
    assert unit["OOMPolicy"] == ["continue"]


def test_its_folders_are_the_defaults() -> None:
    """What the cache writes without being told where is what the unit lets it write."""
    state = [Path("/var/lib") / name for name in settings()["StateDirectory"][0].split()]
    assert any(DEFAULT_SPOOL.is_relative_to(folder) for folder in state)
    assert any(Path(DEFAULT_ROOT).is_relative_to(folder) for folder in state)
    assert settings()["ProtectSystem"] == ["strict"]


def test_descriptors_are_enough() -> None:
    """As docs/operations.md says."""
    assert settings()["LimitNOFILE"] == ["65536"]


@pytest.mark.real
def test_systemd_accepts_it_and_finds_it_hardened(tmp_path: Path) -> None:
    """Not a word from `verify`; an exposure below 2.0 of 10."""
    analyze = need("systemd-analyze")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/msrcache/bin/msrcache", sys.executable))
    for command in (["verify"], ["security", "--offline=yes", "--threshold=20", "--no-pager"]):
        said = subprocess.run(
            [analyze, *command, unit], capture_output=True, text=True, timeout=60, check=False
        )
        assert said.returncode == 0, said.stdout + said.stderr
        assert said.stderr == ""
