"""`msrcache adopt --dry-run`: what a store holds that another program filled."""

import json
from pathlib import Path

import pytest

from msrcache.adopt import SCHEDULE
from msrcache.cache.layout import REPOSITORIES, layer_link
from msrcache.cli import main
from msrcache.oci.digest import Digest
from tests.test_evict import APP, image, stored
from tests.test_gc import configured, held


def test_it_counts_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Repositories, tags, manifests, blobs, and what is odd about them; nothing is changed."""
    image(tmp_path)
    held(tmp_path, b"of no repository")
    held(tmp_path, b"", key=layer_link(APP, Digest.of(b"gone")))
    held(tmp_path, b"half", key=f"{REPOSITORIES}team/app/_uploads/1/data")
    held(tmp_path, b"{}", key=SCHEDULE)
    before = stored(tmp_path)
    config = configured(tmp_path, delete="false", ttl="0s")
    assert main(["adopt", "--dry-run", "--json", config]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.pop("bytes") > 20
    assert answer == {
        "repositories": 2,
        "tags": 1,
        "manifests": 1,
        "blobs": 4,
        "unlinked": 1,
        "dangling": 1,
        "empty": 1,
        "uploads": 1,
        "ours": 0,
        "schedule": True,
    }
    assert main(["adopt", "--dry-run", config]) == 0
    said = capsys.readouterr().out
    assert "scheduler-state.json is there, and left alone" in said
    assert stored(tmp_path) == before


def test_an_empty_store_is_perhaps_the_wrong_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1, and a question."""
    assert main(["adopt", "--dry-run", configured(tmp_path)]) == 1
    assert "is this the root of the old registry?" in capsys.readouterr().out


def test_only_the_dry_run_is_there() -> None:
    """Nothing has to be done to adopt a store."""
    with pytest.raises(SystemExit):
        main(["adopt"])
