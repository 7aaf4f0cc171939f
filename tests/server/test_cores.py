"""server.cores: what `auto` means."""

import os
from pathlib import Path

import pytest

from msrcache.server.cores import MOST, cores


@pytest.mark.parametrize(
    ("files", "least"),
    [
        ({"cpu.max": "max 100000\n"}, MOST),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "rubbish\n"}, MOST),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, MOST),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "0\n"}, MOST),
        ({}, MOST),
    ],
)
def test_a_containers_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], least: int
) -> None:
    """Both kinds of control groups; never more than the affinity mask or 8, never less than 1."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for allowed in (1, 2, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, count=allowed: set(range(count)))
        assert cores(tmp_path, tmp_path / "absent") == min(allowed, least)


def test_the_narrowest_quota_above_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit's own control group, and the slices around it."""
    unit = tmp_path / "root/system.slice/msrcache.service"
    unit.mkdir(parents=True)
    (unit / "cpu.max").write_text("600000 100000\n")
    (unit.parent / "cpu.max").write_text("200000 100000\n")
    own = tmp_path / "cgroup"
    own.write_text("0::/system.slice/msrcache.service\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert cores(tmp_path / "root", own) == 2
    (unit.parent / "cpu.max").write_text("max 100000\n")
    assert cores(tmp_path / "root", own) == 6
    own.write_text("0::/../elsewhere\n")
    assert cores(tmp_path / "root", own) == MOST
