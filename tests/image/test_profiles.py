"""The profiles of docker-compose.yml: one per emulator."""

from pathlib import Path

import pytest
import yaml

from tests.stage.clients import ran
from tests.stage.tools import PROJECT, need
from tests.stage.trystore import EMULATORS

pytestmark = pytest.mark.real


async def services(store: str, file: Path, env: dict[str, str]) -> dict[str, dict[str, object]]:
    """What a profile starts by its cache's name, as docker-compose understands the file."""
    said = await ran(need("docker-compose"), "-f", file, "--profile", store, "config", env=env)
    found: dict[str, dict[str, object]] = yaml.safe_load(said.out)["services"]
    return {name: found[name] for name in (store, f"on-{store}")}


@pytest.mark.parametrize("store", EMULATORS)
async def test_each_store_has_a_profile(store: str) -> None:
    """The emulator is built here from BASE_IMAGE, on loopback only, and the cache starts when it is ready."""
    env = {"UPSTREAM": "https://msr.example.com", "BASE_IMAGE": "base.example.com/python:3"}
    found = await services(store, PROJECT / "docker-compose.yml", env)
    emulator, cache = found[store], found[f"on-{store}"]
    assert emulator["profiles"] == cache["profiles"] == [store]
    assert emulator["build"] == {
        "context": str(PROJECT),
        "dockerfile": "docker/emulator.Dockerfile",
        "args": {"BASE_IMAGE": "base.example.com/python:3", "STORE": store},
    }
    assert emulator["ports"] == ["127.0.0.1:5000:5000/tcp"]
    assert cache["depends_on"] == {store: {"condition": "service_healthy"}}
    assert cache["volumes"] == emulator["volumes"] == [f"{store}:/shared:rw"]


async def test_every_profile_is_a_store_that_make_run_knows() -> None:
    """And what is started without a profile is the cache on its volume, alone."""
    file = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    assert {name for service in file["services"].values() for name in service.get("profiles", ())} == set(
        EMULATORS
    )
    assert [name for name, service in file["services"].items() if "profiles" not in service] == ["cache"]


async def test_the_stand_in_says_what_it_is() -> None:
    """Nobody takes `oss` for the service of Alibaba Cloud, or for an emulator that others trust."""
    found = await services("oss", PROJECT / "docker-compose.yml", {"UPSTREAM": "https://msr.example.com"})
    labels = found["oss"]["labels"]
    assert isinstance(labels, dict)
    assert labels["msrcache.store"].startswith("OUR OWN STAND-IN for Alibaba Cloud OSS")
