"""`msrcache status`: from the store, from a replica, as a table, as JSON; and its exit status."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from msrcache.assembly import Application
from msrcache.cache.layout import replica_key
from msrcache.cli import main
from msrcache.config.load import parse
from msrcache.config.model import Config
from msrcache.status import Showing, status
from tests.scenarios.plays import cache, configuration
from tests.stage.process import until
from tests.stage.scripted import scripted

BEAT, LOOK = "50ms", "1s"
"""The replica beats far more often than the onlooker expects, so that a busy machine makes nobody silent."""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """What the command is given: the replicas' own configuration."""
    return parse(configuration(tmp_path, "http://127.0.0.1:1", heartbeat=LOOK), "config.yml", {}).config


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Application]:
    """One replica that has shown itself."""
    environ = {"REGISTRY_HTTP_DEBUG_ADDR": "localhost:0"}
    async with (
        scripted() as upstream,
        cache(tmp_path, upstream, heartbeat=BEAT, environ=environ) as application,
    ):
        record = tmp_path / "store" / replica_key(application.replica)

        async def shown() -> bool:
            return record.exists()

        await until(shown, what="a record")
        yield application


async def command(config: Config | None, *, url: str = "", as_json: bool = False) -> tuple[int, str]:
    """Run it in a thread, because it has a loop of its own; status and output."""
    out = io.StringIO()
    showing = Showing(out=out, as_json=as_json)
    return await asyncio.to_thread(lambda: status(config, url=url, showing=showing)), out.getvalue()


async def test_from_the_store(replica: Application, config: Config) -> None:
    """A table with the replica, 0, and nothing written."""
    code, text = await command(config)
    assert (code, text.splitlines()[1].split()[:2]) == (0, [replica.replica, "ready"])
    code, text = await command(config, as_json=True)
    assert (code, [row["life"] for row in json.loads(text)["replicas"]]) == (0, ["alive"])


async def test_from_a_replica(replica: Application) -> None:
    """The same, without a configuration, and at once."""
    url = f"http://{replica.service.aside_addresses[0]}"
    for given in (url, url + "/", url + "/debug/fleet"):
        code, text = await command(None, url=given)
        assert (code, text.splitlines()[1].split()[:2]) == (0, [replica.replica, "ready"])


async def test_a_silent_replica_is_1(replica: Application, config: Config, tmp_path: Path) -> None:
    """A record that nobody renews is said in words."""
    (tmp_path / "store" / replica_key("dead-1")).write_text('{"v": 1, "beat": 3}')
    code, text = await command(config)
    assert code == 1
    assert "dead-1 is silent" in text


async def test_what_cannot_be_seen_is_2(tmp_path: Path, replica: Application) -> None:
    """A port where nobody listens, one that is not the debug listener, a store that is none."""
    code, text = await command(None, url="http://127.0.0.1:1")
    assert (code, "cannot be seen" in text) == (2, True)
    code, text = await command(None, url=f"http://{replica.service.addresses[0]}")
    assert (code, "http.debug.addr" in text) == (2, True)


async def test_watching_goes_on_until_interrupted(replica: Application, config: Config) -> None:
    """A line of JSON each time, flushed."""

    class Stops(io.StringIO):
        def write(self, text: str, /) -> int:
            super().write(text)
            raise KeyboardInterrupt

    out = Stops()
    with pytest.raises(KeyboardInterrupt):
        await asyncio.to_thread(
            lambda: status(config, url="", showing=Showing(out=out, as_json=True, watch=True))
        )
    assert len(json.loads(out.getvalue())["replicas"]) == 1


def test_an_empty_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1, and what it can mean; a configuration that is missing is 2."""
    path = tmp_path / "config.yml"
    path.write_text(configuration(tmp_path, "http://127.0.0.1:1", heartbeat=BEAT))
    assert main(["status", str(path)]) == 1
    assert "no replica shows itself" in capsys.readouterr().out
    assert main(["status", str(tmp_path / "absent.yml")]) == 2
    assert "absent.yml" in capsys.readouterr().err
