"""The composition: what starts, what starts degraded, what cannot start."""

from pathlib import Path

import pytest

from msrcache.assembly import Application, inspected
from msrcache.config.load import parse
from msrcache.inquiry import CannotStart
from msrcache.oci.names import ImageReference
from msrcache.storage import mounts
from tests.scenarios.plays import cache, configuration, port_of, pull
from tests.stage.scripted import scripted


async def test_all_is_open_inside_and_closed_after(tmp_path: Path) -> None:
    """It listens while the context is open, and no longer."""
    async with scripted() as upstream:
        async with cache(tmp_path, upstream) as application:
            port = port_of(application)
            assert (await pull(application, "/v2/")).status == 200
            assert application.degraded() == {}
        with pytest.raises(OSError, match=r"127\.0\.0\.1"):
            await pull(port, "/v2/")


async def test_without_an_upstream_nothing_starts(tmp_path: Path) -> None:
    """CannotStart says how to name one."""
    text = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}}}}}\n"
    with pytest.raises(CannotStart, match=r"proxy\.remoteurl"):
        async with Application(parse(text, "config.yml", {}).config).running():
            pytest.fail("it started")


async def test_a_password_file_that_is_missing(tmp_path: Path) -> None:
    """CannotStart names the file."""
    entry = f"http://127.0.0.1:1\n      username: u\n      passwordfile: {tmp_path / 'absent'}"
    with pytest.raises(CannotStart, match="absent"):
        async with Application(parse(configuration(tmp_path, entry), "c", {}).config).running():
            pytest.fail("it started")


async def test_a_spool_that_cannot_be_made_is_degraded(tmp_path: Path) -> None:
    """A file where the spool's folder should be: the cache starts, and pulls are passed through."""
    (tmp_path / "file").write_text("")
    more = f"  spool: {{path: {tmp_path / 'file' / 'spool'}}}\n"
    async with scripted() as upstream, cache(tmp_path, upstream, more=more) as application:
        path = upstream.publish_blob(b"content")
        assert "spool" in application.degraded()
        got = await pull(application, path)
        assert (got.body, got.headers["x-cache"]) == (b"content", "pass")


async def test_a_spool_on_a_file_server_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever forgets to put it on local disk is told at each start, by the mount; a local one is not remarked on."""
    mountinfo = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "MOUNTINFO", mountinfo)
    for kind, warned in (("nfs4", 1), ("ext4", 0)):
        mountinfo.write_text(f"45 27 0:41 / {tmp_path} rw - {kind} filer.example.com:/cache rw,hard\n")
        async with scripted() as upstream, cache(tmp_path, upstream):
            pass
        said = capsys.readouterr()
        assert (said.out + said.err).count("the spool is on a file server") == warned


async def test_inspecting_an_empty_store(tmp_path: Path) -> None:
    """Nothing was pulled: nothing is listed, and nothing is written."""
    config = parse(configuration(tmp_path, "http://127.0.0.1:1"), "config.yml", {}).config
    assert await inspected(config, ImageReference.parse("team/app:1")) == []
