"""A million blobs are planned within a minute of one core and 500 MiB."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_blobs_are_planned() -> None:
    """Journals merged, all of it listed and written down, links and manifests read; in a process of its own."""
    argv = [sys.executable, "-m", "tests.cache.million"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    print(done.stdout)
    found = json.loads(done.stdout)
    assert found["blobs"] > 1_000_000
    assert found["due"] > 100_000
    assert found["seconds"] < 60
    assert found["MiB"] < 500
