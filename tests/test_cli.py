"""The commands: what they print and how they end."""

from pathlib import Path

import pytest

from msrcache import __version__
from msrcache.cli import main
from tests.scenarios.plays import configuration


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A good configuration."""
    path = tmp_path / "config.yml"
    path.write_text(configuration(tmp_path, "http://127.0.0.1:1"))
    return path


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints it and ends with 0."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_check_config_likes_a_good_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict on standard output, 0 or 1."""
    assert main(["check-config", str(config)]) in {0, 1}
    assert capsys.readouterr().out


def test_check_config_refuses_a_bad_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2, and the key is named."""
    config.write_text(config.read_text() + "  nosuchkey: 1\n")
    assert main(["check-config", str(config)]) == 2
    assert "nosuchkey" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["serve"], []], ids=["serve", "path-alone"])
def test_a_path_alone_means_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Both read the file; one that is missing is named, and the code is 2."""
    assert main([*arguments, str(tmp_path / "absent.yml")]) == 2
    assert "absent.yml" in capsys.readouterr().err


def test_nothing_at_all_means_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path then comes from REGISTRY_CONFIGURATION_PATH."""
    monkeypatch.setenv("REGISTRY_CONFIGURATION_PATH", str(tmp_path / "named.yml"))
    assert main([]) == 2
    assert "named.yml" in capsys.readouterr().err


def test_inspect_of_what_was_never_pulled(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1, and a sentence."""
    assert main(["inspect", "team/app:1", "--config", str(config)]) == 1
    assert "team/app:1" in capsys.readouterr().err


def test_inspect_of_no_reference(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2, and a sentence; no traceback."""
    assert main(["inspect", "UPPER//case", "--config", str(config)]) == 2
    assert capsys.readouterr().err
