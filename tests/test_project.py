"""Promises of the project's own files: what a person is told exists, and nothing depends on one machine."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from msrcache.config.load import parse
from msrcache.config.model import Config
from msrcache.telemetry.metrics import TABLE

PROJECT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
DRIVERS = ["s3", "azure", "gcs", "swift", "oss"]


def tracked() -> list[Path]:
    """Every file under version control, or all sources where there is no git."""
    said = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=False).stdout
    found = [PROJECT / name for name in said.decode().split("\0") if name] or list(
        PROJECT.glob("msrcache/**/*.py")
    )
    return [path for path in found if path.is_file()]


def test_constraints_pin_every_dependency() -> None:
    """Exact versions, no index address, no path of a machine; every direct dependency is among them."""
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!]+", line)] == []
    pinned = {normal(line.split("==")[0]) for line in lines}
    wanted = list(PYPROJECT["project"]["dependencies"])
    for extra in PYPROJECT["project"]["optional-dependencies"].values():
        wanted += extra
    names = {normal(re.split(r"[\[>=<]", line)[0]) for line in wanted} - {"msrcache"}
    assert names - pinned == set()


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_all_means_all() -> None:
    """The extra `all` names every store's extra."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert extras["all"] == [f"msrcache[{','.join(DRIVERS)}]"]
    assert set(DRIVERS) <= set(extras)


def test_version_is_said_once() -> None:
    """The package and its metadata agree, and the changelog knows the version."""
    version = PYPROJECT["project"]["version"]
    assert f'__version__ = "{version}"' in (PROJECT / "msrcache/__init__.py").read_text()
    assert f"## [{version}]" in (PROJECT / "CHANGELOG.md").read_text()


def test_the_image_exposes_what_is_listened_on() -> None:
    """By default, and nothing else: clients' port and, with http.secret, the other replicas'."""
    config = Config()
    listeners = (config.http.addr, config.http.debug.addr, config.cache.metrics.addr, config.cache.peer.addr)
    ports = " ".join(sorted(addr.rpartition(":")[2] for addr in listeners if addr))
    assert f"\nEXPOSE {ports}\n" in (PROJECT / "Dockerfile").read_text()


@pytest.mark.parametrize("command", ["make run", "make test", "make check"])
def test_what_people_are_told_to_run_exists(command: str) -> None:
    """README and CONTRIBUTING name the commands, and the Makefile has them."""
    said = (PROJECT / "README.md").read_text() + (PROJECT / "CONTRIBUTING.md").read_text()
    assert command in said
    assert re.search(rf"^{command.split()[1]}:", (PROJECT / "Makefile").read_text(), re.MULTILINE)


PAGES = sorted(path.relative_to(PROJECT) for path in (*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page is a file of the project."""
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", (PROJECT / page).read_text())
    assert [link for link in links if not (PROJECT / page.parent / link).exists()] == []


def test_the_readmes_configuration_is_right() -> None:
    """The example is taken as it stands, without an error or a warning, and names what it is said to."""
    (text,) = re.findall(r"```yaml\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    loaded = parse(text, "README.md", {}, strict=True)
    assert [str(problem) for problem in loaded.problems] == []
    assert [entry.url for entry in loaded.config.upstreams] == ["https://msr.example.com"]
    assert len([line for line in text.splitlines() if line]) == 5


@pytest.mark.parametrize(
    "page", ["README.md", "docs/operations.md", "docs/architecture.md", "docs/high-availability.md"]
)
def test_pages_name_keys_and_metrics_that_exist(page: str) -> None:
    """What a person is told to set or to look at is there: keys in docs/configuration.md, metrics in the table."""
    text = (PROJECT / page).read_text()
    documented = set(
        re.findall(r"^\| `([^`]+)` \|", (PROJECT / "docs/configuration.md").read_text(), re.MULTILINE)
    )
    sections = "cache|http|storage|log|health|proxy|middleware|auth"
    keys = set(re.findall(rf"`((?:{sections})\.[a-z.\[\]]+[a-z\]])(?:: [^`]*)?`", text))
    assert {
        key for key in keys if key not in documented and not key.startswith("storage.filesystem.")
    } == set()
    metrics = set(re.findall(r"`(msrcache_[a-z_]+)", text))
    assert metrics - {row.full_name for row in TABLE} == set()


def test_scripts_are_sound() -> None:
    """The shell scripts parse and can be executed."""
    for name in ("scripts/test-deps", ".ci/run", "docker/start.sh"):
        path = PROJECT / name
        shell = path.read_text().splitlines()[0].removeprefix("#!").removeprefix("/usr/bin/env ")
        assert subprocess.run([shell, "-n", path], check=False).returncode == 0, name
        assert path.stat().st_mode & 0o111, f"{name} is not executable"


def test_nothing_names_one_machine() -> None:
    """No absolute path of somebody's machine and no package index stands in any file."""
    places = re.compile(
        r"/(?:home|Users)/[a-z]+/|/ro{2}t/|pypi\.(?:org|python)|index-url\s*=?\s*https?:|/pyenv/"
    )
    guilty = {}
    for path in tracked():
        if path.suffix not in {".png", ".svg"} and (found := places.search(path.read_text(errors="ignore"))):
            guilty[str(path.relative_to(PROJECT))] = found.group()
    assert guilty.keys() <= {"tests/test_project.py"}, guilty
