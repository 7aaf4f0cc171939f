"""Content expires under load, and no pull fails."""

from pathlib import Path

import pytest

from tests.scenarios.expiring import play


@pytest.mark.timeout(400)
async def test_nothing_fails_while_content_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted, rescued and refilled beside pulls of the same blobs: all bytes are right."""
    async with play(tmp_path, monkeypatch) as running:
        await running.run_until(deletions=40, rescues=15, refills=10, within=300)
        assert running.failures == [], running.told()


@pytest.mark.slow
@pytest.mark.timeout(1000)
async def test_a_thousand_deletions_fail_no_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least a thousand deletions, a hundred rescues and a hundred refills; the figures are printed."""
    async with play(tmp_path, monkeypatch, seed=2) as running:
        await running.run_until(deletions=1000, rescues=100, refills=100, within=900)
        print(running.told())
        assert running.failures == [], running.told()
