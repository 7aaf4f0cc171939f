"""`msrcache gc`: what an operator is told of what has expired."""

import io
import json
import os
import time
from pathlib import Path

import pytest

from msrcache.cache.layout import blob_key, condemned_key, layer_link
from msrcache.cli import main
from msrcache.command import told_on
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository

CONFIG = """
version: 0.1
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: {delete}}}
proxy: {{remoteurl: "http://127.0.0.1:1", ttl: {ttl}}}
cache: {{expiry: {{budget: {budget}}}}}
"""


def configured(path: Path, *, delete: str = "true", ttl: str = "1h", budget: str = "0") -> str:
    """The path of a configuration over a folder."""
    file = path / "config.yml"
    file.write_text(CONFIG.format(root=path / "store", delete=delete, ttl=ttl, budget=budget))
    return str(file)


def held(path: Path, data: bytes, *, key: str = "", ago: float = 0.0) -> Digest:
    """A blob in the folder, by its digest; stored so many seconds ago."""
    digest = Digest.of(data)
    file = path / "store" / (key or blob_key(digest))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    os.utime(file, (time.time() - ago,) * 2)
    return digest


def used(path: Path, *digests: Digest, ago: float) -> None:
    """Records that these were used so many seconds ago."""
    for digest in digests:
        line = json.dumps([str(digest), time.time() - ago, 0.0, 1])
        held(path, f'{{"v": 1}}\n{line}\n'.encode(), key=f"msrcache/uses/merged/{digest.hex[:2]}")


def test_an_adopted_store_has_nothing_due(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten days old, no journals: the first look deletes nothing and says so; nothing is left behind by it."""
    for number in range(3):
        held(tmp_path, bytes([number]) * 1000, ago=10 * 86400)
    before = {path for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert main(["gc", "--dry-run", configured(tmp_path, budget="1")]) == 0
    said = capsys.readouterr()
    assert said.out == "0 of 3 blobs and manifests are due, 0 of 3,000 bytes; 0 are condemned\n"
    assert {path for path in (tmp_path / "store").rglob("*") if path.is_file()} == before


def test_what_is_due_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Why, when it was last used, its bytes, whether it is condemned already, its digest."""
    one, other = held(tmp_path, b"one", ago=8000), held(tmp_path, b"other", ago=8000)
    used(tmp_path, one, other, ago=7200)
    held(tmp_path, b'{"v": 1}\n', key=condemned_key(other))
    assert main(["gc", "--dry-run", configured(tmp_path)]) == 0
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["why", "last", "used", "bytes", "state", "digest"]
    assert {row.split()[-1]: row.split()[:1] + row.split()[2:-1] for row in rows} == {
        str(one): ["blobttl", "3"],
        str(other): ["blobttl", "5", "condemned"],
    }
    assert last == "2 of 2 blobs and manifests are due, 8 of 8 bytes; 1 are condemned"


def test_programs_get_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same, without what is said to people."""
    one = held(tmp_path, b"one", ago=8000)
    used(tmp_path, one, ago=7200)
    assert main(["gc", "--dry-run", "--json", configured(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["blobs"], answer["bytes"], answer["condemned"]) == (1, 3, 0)
    assert [(row["digest"], row["why"], row["size"]) for row in answer["due"]] == [(str(one), "blobttl", 3)]


def test_it_condemns_and_deletes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first run condemns, one after the wait deletes, with its links; and each says what it did.

    Docker Registry's own schedule of deletions is left alone.
    """
    config = configured(tmp_path)
    one = held(tmp_path, b"one", ago=8000)
    held(tmp_path, str(one).encode(), key=layer_link(Repository.parse("team/a"), one))
    held(tmp_path, b"{}", key="scheduler-state.json")
    used(tmp_path, one, ago=7200)
    assert main(["gc", config]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "1 of 1 blobs and manifests are due, of 3 bytes in all"
    assert said[2].startswith("condemned now: 1; deleted by a look after 2")
    mark = tmp_path / "store" / condemned_key(one)
    os.utime(mark, (time.time() - 7000,) * 2)
    assert main(["gc", "--json", config]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["deleted"], answer["deletedBytes"], answer["condemned"]) == (1, 3, 0)
    left = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert sorted(path.name for path in left) == [one.hex[:2], "scheduler-state.json"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"delete": "false"}, "storage.delete.enabled"),
        ({"ttl": "0s"}, "blobttl or cache.expiry.budget"),
        ({"delete": "false", "budget": "1GiB"}, "cache.expiry.budget"),
    ],
)
def test_without_terms_it_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, str], said: str
) -> None:
    """One sentence and 2, no traceback."""
    assert main(["gc", "--dry-run", configured(tmp_path, **settings)]) == 2
    assert said in capsys.readouterr().err


def test_a_store_under_maintenance_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence and 2; nothing is condemned."""
    held(tmp_path, b"one", ago=8000)
    config = Path(configured(tmp_path))
    readonly = "storage:\n  maintenance: {readonly: {enabled: true}}"
    config.write_text(config.read_text().replace("storage:", readonly))
    before = {path for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert main(["gc", str(config)]) == 2
    assert "storage.maintenance.readonly" in capsys.readouterr().err
    assert {path for path in (tmp_path / "store").rglob("*") if path.is_file()} == before


def test_a_record_of_a_later_version_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is due then, and the sentence says which object it is."""
    digest = held(tmp_path, b"one")
    held(tmp_path, b'{"v": 2}\n', key=f"msrcache/uses/merged/{digest.hex[:2]}")
    assert main(["gc", "--dry-run", configured(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"msrcache/uses/merged/{digest.hex[:2]}" in said
    assert "nothing expires" in said


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_whoever_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that is written over on a terminal, and not more often than can be read; elsewhere nothing."""
    terminal, file = _Terminal(), io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    for stream in (terminal, file):
        tell = told_on(stream)
        tell("blobs listed", 1, 256)
        tell("blobs listed", 2, 256)
    assert terminal.getvalue() == "\r\x1b[Kblobs listed: 1 of 256"
    assert file.getvalue() == ""
