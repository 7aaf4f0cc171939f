"""`msrcache check-storage`: the table, the JSON, the exit status, and nothing left, however it ends."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from msrcache.checkstorage import check_storage
from msrcache.cli import main
from msrcache.config.load import parse
from msrcache.config.model import Config
from msrcache.storage.errors import Denied
from msrcache.storage.memory import Contents, Memory
from tests.contract.sabotage import Honest, SabotagedHarness
from tests.contract.sabotage_reading import MissesCommits
from tests.contract.sabotage_writing import LooksBeforeItCreates
from tests.scenarios.plays import configuration

Opens = Callable[[Callable[[], object]], Config]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A good configuration of a folder."""
    path = tmp_path / "config.yml"
    path.write_text(configuration(tmp_path, "http://127.0.0.1:1"))
    return path


@pytest.fixture
def over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opens:
    """The configuration of a store whose instances are made so."""

    def opens(driver: Callable[[], object]) -> Config:
        monkeypatch.setattr("msrcache.command.open_driver", lambda section: driver())
        monkeypatch.setattr("msrcache.checkstorage.another", lambda here, section: driver())
        return parse(configuration(tmp_path, "http://127.0.0.1:1"), "config.yml", {}).config

    return opens


def test_a_folder_keeps_every_promise(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0, every promise in words with its round trip, every operation allowed, no file left."""
    assert main(["check-storage", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "store: filesystem, between two connections of this machine"
    row = next(
        line for line in lines if line.startswith("what was written is seen at once, by every replica")
    )
    assert row.split()[-3] == "yes"
    assert row.endswith(" ms")
    assert any(line.split()[:2] == ["sweep", "yes"] for line in lines)
    assert lines[-1] == "every promise is kept"
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_the_same_for_programs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON document with the verdict, the promises and the operations."""
    assert main(["check-storage", str(config), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["verdict"], told["left"]) == (0, "every promise is kept", [])
    promises = {promise["name"]: promise for promise in told["promises"]}
    assert promises["exclusive-create"]["verdict"] == "kept"
    assert promises["presign"]["verdict"] == "not promised"
    assert promises["read-after-write"]["roundtrip"] > 0
    assert {one["name"] for one in told["operations"] if one["allowed"]} >= {"put", "delete", "list", "sweep"}


@pytest.mark.parametrize(
    ("saboteur", "status", "words"),
    [
        (LooksBeforeItCreates, 1, "replicas will share fills by home replica"),
        (MissesCommits, 2, "after a commit the object was not there"),
    ],
)
def test_what_is_broken_is_told_with_what_follows(
    over: Opens, saboteur: type[Honest], status: int, words: str
) -> None:
    """1 where the store can be used all the same, 2 where replicas cannot share it."""
    out = io.StringIO()
    assert check_storage(over(SabotagedHarness(saboteur).driver), as_json=False, out=out) == status
    assert words in out.getvalue()
    assert "    what follows: " in out.getvalue()
    assert " NO " in out.getvalue()


def test_a_store_that_claims_no_exclusive_create_is_told_what_follows(over: Opens) -> None:
    """It is no fault, and still has to be known."""
    contents = Contents()

    def driver() -> Memory:
        memory = Memory(contents)
        memory.create_is_exclusive = False
        return memory

    out = io.StringIO()
    assert check_storage(over(driver), as_json=False, out=out) == 0
    assert "replicas will share fills by home replica" in out.getvalue()


def test_a_missing_permission_is_named(over: Opens) -> None:
    """By its operation, with the store's own sentence."""

    class Forbids:
        async def before(self, operation: str, key: str) -> None:
            if operation == "list":
                raise Denied("inmemory", key, None, "allow ListBucket")

        async def after(self, operation: str, key: str) -> None: ...

    contents, out = Contents(), io.StringIO()
    assert check_storage(over(lambda: Memory(contents, faults=Forbids())), as_json=False, out=out) == 1
    row = next(line for line in out.getvalue().splitlines() if line.startswith("list "))
    assert row.split()[1] == "NO"
    assert "allow ListBucket" in row


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("operation", ["put", "create", "commit", "delete"])
def test_an_interrupted_check_leaves_nothing(over: Opens, number: signal.Signals, operation: str) -> None:
    """Ctrl-C and SIGTERM in the middle: what was written is removed before the command ends."""

    class Interrupts:
        def __init__(self) -> None:
            self.sent = False

        async def before(self, called: str, key: str) -> None: ...

        async def after(self, called: str, key: str) -> None:
            if called == operation and not self.sent:
                self.sent = True
                os.kill(os.getpid(), number)

    contents, faults, out = Contents(), Interrupts(), io.StringIO()
    # A background job of a shell ignores SIGINT, and so would we: the promise is about a terminal's.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            check_storage(over(lambda: Memory(contents, faults=faults)), as_json=False, out=out)
    finally:
        signal.signal(signal.SIGINT, before)
    assert faults.sent
    assert contents.objects == {}
    assert out.getvalue() == ""


def test_a_read_only_configuration_cannot_be_checked(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2, and one sentence."""
    text = config.read_text().replace(
        "{filesystem:", "{maintenance: {readonly: {enabled: true}}, filesystem:"
    )
    config.write_text(text)
    assert main(["check-storage", str(config)]) == 2
    assert "nothing may be written" in capsys.readouterr().err


def test_a_wrong_configuration_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2, by the file's own problem or by the driver's."""
    config.write_text(config.read_text().replace("rootdirectory", "rootdir"))
    assert main(["check-storage", str(config)]) == 2
    assert "rootdirectory" in capsys.readouterr().err


def test_the_honest_wrapper_is_well(over: Opens) -> None:
    """It was the sabotage that was told."""
    assert check_storage(over(SabotagedHarness(Honest).driver), as_json=False, out=io.StringIO()) == 0


def test_between_two_machines(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One process listens, the other asks it: the same table; the listening one ends well and leaves nothing."""
    config.write_text(config.read_text().replace("http: {", "http: {secret: s3cr3t, "))
    argv = [sys.executable, "-m", "msrcache", "check-storage", str(config), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        url = f"http://127.0.0.1:{listening.stdout.readline().rsplit(':', 1)[1].strip()}"
        try:
            assert main(["check-storage", str(config), "--peer", url]) == 0
        finally:
            listening.terminate()
        assert listening.wait(30) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"store: filesystem, between this machine and {url}"
    assert lines[-1] == "every promise is kept"
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


@pytest.mark.parametrize("more", [["--peer", "http://127.0.0.1:1"], ["--listen", "127.0.0.1:0"]])
def test_two_machines_need_a_secret(
    config: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """2, and one sentence: without it a stranger could ask."""
    assert main(["check-storage", str(config), *more]) == 2
    assert "http.secret" in capsys.readouterr().err


def test_a_peer_that_is_not_there(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2, one sentence, and nothing was written."""
    config.write_text(config.read_text().replace("http: {", "http: {secret: s3cr3t, "))
    assert main(["check-storage", str(config), "--peer", "http://127.0.0.1:1"]) == 2
    assert "http://127.0.0.1:1" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
