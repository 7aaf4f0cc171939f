"""`msrcache verify`: what an operator is told, and what is repaired."""

import json
from pathlib import Path

import pytest

from msrcache.cache.layout import blob_key, quarantine_key
from msrcache.cli import main
from msrcache.oci.digest import Digest
from tests.test_gc import configured, held


def _spoilt(path: Path) -> tuple[Digest, Digest]:
    right, wrong = held(path, b"right"), Digest.of(b"wrong")
    held(path, b"spoilt", key=blob_key(wrong))
    return right, wrong


def test_it_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By digest and in words, 1; a store that is right is one line and 0."""
    right, wrong = _spoilt(tmp_path)
    config = configured(tmp_path, delete="false", ttl="0s")
    assert main(["verify", config, "--rate", "0"]) == 1
    row, last = capsys.readouterr().out.splitlines()
    assert row == f"{wrong} holds other bytes, those of {Digest.of(b'spoilt')}"
    assert last == "2 hashed, 11 bytes; 1 are not as they should be"
    (tmp_path / "store" / blob_key(wrong)).unlink()
    assert main(["verify", config, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"hashed": 1, "bytes": 5, "wrong": [], "interrupted": False, "after": str(right)}


def test_it_repairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The wrong one goes and is written down; with the operator's leave to delete only."""
    right, wrong = _spoilt(tmp_path)
    assert main(["verify", "--repair", configured(tmp_path, delete="false", ttl="0s")]) == 2
    assert "storage.delete.enabled" in capsys.readouterr().err
    assert main(["verify", "--repair", configured(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[0].endswith("; removed")
    root = tmp_path / "store"
    assert [(root / blob_key(one)).exists() for one in (right, wrong)] == [True, False]
    assert (root / quarantine_key(wrong)).exists()
    assert main(["verify", configured(tmp_path)]) == 0


def test_it_goes_on_behind_a_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an interrupted one names; what is no digest is refused."""
    last = max((held(tmp_path, bytes([number])) for number in range(5)), key=str)
    assert main(["verify", configured(tmp_path), "--after", str(last)]) == 0
    assert capsys.readouterr().out.startswith("0 hashed")
    with pytest.raises(SystemExit):
        main(["verify", "--after", "latest"])


def test_interrupted_it_says_where_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is 130, and no traceback."""
    held(tmp_path, b"one")

    def interrupted(what: str, done: int, of: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("msrcache.verify.told_on", lambda _: interrupted)
    assert main(["verify", configured(tmp_path)]) == 130
    assert f"go on with --after {Digest.of(b'one')}" in capsys.readouterr().out
