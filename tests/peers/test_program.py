"""The program from outside: what a user types first, before there is a configuration."""

import sys
from pathlib import Path

import pytest

from msrcache import __version__
from msrcache.cli import COMMANDS
from tests.stage.clients import ran, run

PROGRAM = (sys.executable, "-m", "msrcache")
SCRIPT = (Path(sys.executable).with_name("msrcache"),)


@pytest.mark.parametrize("program", [PROGRAM, SCRIPT], ids=["module", "script"])
async def test_help_and_version(program: tuple[str | Path, ...]) -> None:
    """Both ways to start it name every command and the version, and end with 0."""
    said = await ran(*program, "--help")
    assert [command for command in COMMANDS if command not in said.out] == []
    assert said.err == ""
    said = await ran(*program, "--version")
    assert (said.out, said.err) == (f"msrcache {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
async def test_each_command_explains_itself(command: str) -> None:
    """`msrcache COMMAND --help` ends with 0."""
    assert f"msrcache {command}" in (await ran(*PROGRAM, command, "--help")).out


async def test_a_wrong_option_starts_nothing() -> None:
    """2, one usage line and the option's name; no traceback."""
    said = await run(*PROGRAM, "serve", "--no-such-option")
    assert said.code == 2
    assert "--no-such-option" in said.err
    assert "Traceback" not in said.err
