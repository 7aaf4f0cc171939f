"""Fixtures that every test may ask for. What they are made of is in tests/stage."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from botocore.loaders import JSONFileLoader
from hypothesis import HealthCheck, settings

from tests.stage.azureservice import RunningAzure, azurite
from tests.stage.engines import Containerd, Docker, containerd_daemon, docker_daemon
from tests.stage.registries import Kind, RunningRegistry, registry
from tests.stage.swiftservices import RunningSwift, swift
from tests.stage.tokens import TokenServer, token_server

# Hypothesis without its time limits: on a busy machine they are timed assertions.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """What a test configures of the log ends with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def _models_once() -> Iterator[None]:
    """What the SDK of S3 reads from its files is read once, not for each of some hundred drivers."""
    load, read = JSONFileLoader.load_file, dict[str, Any]()

    def load_file(self: JSONFileLoader, path: str) -> Any:
        if path not in read:
            read[path] = load(self, path)
        return read[path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", load_file)
        yield


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[TokenServer]:
    """A token server in this process."""
    async with token_server(tmp_path / "tokens") as server:
        yield server


@pytest.fixture(params=list(Kind), ids=lambda kind: f"registry-{kind.name.lower()}")
def any_registry(request: pytest.FixtureRequest) -> Kind:
    """Both registries in turn."""
    kind: Kind = request.param
    return kind


@pytest.fixture
async def open_registry(tmp_path: Path) -> AsyncIterator[RunningRegistry]:
    """Debian's docker-registry without any login."""
    async with registry(Kind.V2, tmp_path / "registry") as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def docker() -> AsyncIterator[Docker]:
    """One Docker daemon for all tests: forget what you pull."""
    async with docker_daemon() as daemon:
        yield daemon


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def swift_service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningSwift]:
    """One OpenStack Swift for all tests, which takes seconds to start: use a container of your own."""
    async with swift(tmp_path_factory.mktemp("swift")) as service:
        yield service


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def containerd() -> AsyncIterator[Containerd]:
    """One containerd for all tests: forget what you pull."""
    async with containerd_daemon() as daemon:
        yield daemon


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def azure_service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningAzure]:
    """One Azurite for all tests, each with a container of its own."""
    async with azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running
