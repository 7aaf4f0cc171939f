"""`msrcache evict`: an image or a blob out of the store, with its links."""

import json
from pathlib import Path

import pytest

from msrcache.cache.layout import layer_link, revision_link, tag_index_link, tag_link
from msrcache.cli import main
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository, Tag
from tests.test_gc import configured, held

APP, OTHER = Repository.parse("team/app"), Repository.parse("team/other")


def image(path: Path) -> tuple[Digest, Digest, Digest]:
    """An image team/app:1 of one layer, which team/other has too; and a blob that is not its."""
    layer, apart = held(path, b"layer"), held(path, b"apart")
    entry = {"mediaType": "a/b", "digest": str(layer), "size": 5}
    manifest = held(path, json.dumps({"schemaVersion": 2, "layers": [entry]}).encode())
    for key, digest in (
        (layer_link(APP, layer), layer),
        (layer_link(OTHER, layer), layer),
        (layer_link(OTHER, apart), apart),
        (revision_link(APP, manifest), manifest),
        (tag_index_link(APP, Tag("1"), manifest), manifest),
        (tag_link(APP, Tag("1")), manifest),
    ):
        held(path, str(digest).encode(), key=key)
    return layer, manifest, apart


def stored(path: Path) -> list[str]:
    """The keys that are there."""
    root = path / "store"
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


def test_an_image_goes_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its manifest, its layers, all links of them in any repository, its tag; nothing else."""
    layer, manifest, apart = image(tmp_path)
    config = configured(tmp_path)
    assert main(["evict", "cache.example.com:5000/team/app:1", "--config", config]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in said[:-1]] == [str(layer), str(manifest)]
    assert said[-1].startswith("2 deleted, ")
    assert said[-1].endswith(" and 5 links")
    assert {key.split("/")[-2] for key in stored(tmp_path)} == {apart.hex}
    assert main(["evict", "team/app:1", "--config", config]) == 1
    assert capsys.readouterr().out == "nothing of it is stored\n"


def test_a_digest_is_one_blob(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON for programs."""
    layer, manifest, _ = image(tmp_path)
    assert main(["evict", str(layer), "--json", "--config", configured(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"deleted": [{"digest": str(layer), "size": 5}], "links": 2}
    assert any(manifest.hex in key for key in stored(tmp_path))


def test_without_leave_nothing_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """storage.delete.enabled is the operator's word, here too."""
    image(tmp_path)
    before = stored(tmp_path)
    config = configured(tmp_path, delete="false", ttl="0s")
    assert main(["evict", "team/app:1", "--config", config]) == 2
    assert "storage.delete.enabled" in capsys.readouterr().err
    assert stored(tmp_path) == before


@pytest.mark.parametrize("wanted", ["sha256:12", "UPPER/case:1", "a b"])
def test_what_is_no_name_is_refused(wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the parser, before anything is opened."""
    with pytest.raises(SystemExit) as ended:
        main(["evict", wanted])
    assert ended.value.code == 2
    assert "REFERENCE|DIGEST" in capsys.readouterr().err
