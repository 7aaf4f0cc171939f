"""A replica writes down what it serves where something expires, and only there."""

from pathlib import Path

import pytest

from msrcache.cache.journal import read_journal
from msrcache.cache.layout import USES
from msrcache.config.load import load
from msrcache.config.model import Config
from msrcache.expiring import Expiring
from msrcache.oci.digest import Digest
from tests.cache.aging import aging

ONE, OTHER = Digest.of(b"1"), Digest.of(b"2")


def _config(path: Path, *, delete: bool = True, readonly: bool = False) -> Config:
    file = path / "config.yml"
    file.write_text(
        f"""
version: 0.1
storage:
  filesystem: {{rootdirectory: {path}}}
  delete: {{enabled: {delete}}}
  maintenance: {{readonly: {{enabled: {readonly}}}}}
proxy: {{remoteurl: "http://127.0.0.1:1", ttl: 1h}}
"""
    )
    return load(file, {}).config


async def test_leaving_writes_down_what_was_used(tmp_path: Path) -> None:
    """At once when draining begins, and what came after that at the end."""
    async with aging() as stage:
        expiring = Expiring(_config(tmp_path), replica="here-00000001", metrics=stage.metrics)
        await expiring.flush()
        async with expiring.running(stage.store):
            expiring.uses.note(ONE)
            await expiring.flush()
            expiring.uses.note(OTHER)
        objects = stage.memory.contents.objects
        assert [read_journal(objects[key].data) for key in stage.keys(USES)] == [[ONE], [OTHER]]


@pytest.mark.parametrize("settings", [{"delete": False}, {"readonly": True}])
async def test_where_nothing_expires_nothing_is_written(tmp_path: Path, settings: dict[str, bool]) -> None:
    """Journals that nobody would merge would grow for ever."""
    async with aging() as stage:
        config = _config(tmp_path, **settings)
        expiring = Expiring(config, replica="here-00000001", metrics=stage.metrics)
        async with expiring.running(stage.store):
            expiring.uses.note(ONE)
            await expiring.flush()
        assert stage.keys() == []
