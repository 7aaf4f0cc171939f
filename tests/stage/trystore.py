"""The stores that `make run STORE=…` tries the cache on: an emulator of each service, started as the tests start it.

    python -m tests.stage.trystore STORE FOLDER     # one alone, as the profiles of docker-compose.yml start it

What is in them is gone when they end. An `Emulated` is all that the cache and a person need to know of one; alone, it
leaves the configuration of a cache on it in the folder, as the sign that it is ready.
Not here: the cache in front of it (`demo`).
"""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.stage.azureservice import azurite
from tests.stage.gcsservices import fakegcs
from tests.stage.ossservice import ossservice
from tests.stage.s3services import versitygw
from tests.stage.swiftservices import swift

PLACE = "registry-cache"
"""The bucket or container, as in the samples of config/."""


@dataclass(frozen=True, slots=True)
class Emulated:
    """A service that answers, with an empty bucket or container in it."""

    label: str
    """What it is, in plain words."""
    settings: dict[str, object]
    """What stands below `storage: <driver>:`."""


@contextlib.asynccontextmanager
async def _s3(folder: Path) -> AsyncIterator[Emulated]:
    async with versitygw(folder) as service:
        service.make_bucket(PLACE)
        yield Emulated("versitygw, an emulator of Amazon S3, on this machine", service.settings(PLACE))


@contextlib.asynccontextmanager
async def _azure(folder: Path) -> AsyncIterator[Emulated]:
    async with azurite(folder) as service:
        service.make_container(PLACE)
        yield Emulated("Azurite, an emulator of Azure Blob Storage, on this machine", service.settings(PLACE))


@contextlib.asynccontextmanager
async def _gcs(folder: Path) -> AsyncIterator[Emulated]:
    async with fakegcs(folder) as service:
        await service.make_bucket(PLACE)
        label = "fake-gcs-server, an emulator of Google Cloud Storage, on this machine"
        yield Emulated(label, service.settings(PLACE))


@contextlib.asynccontextmanager
async def _swift(folder: Path) -> AsyncIterator[Emulated]:
    async with swift(folder) as service:
        await service.make_container(PLACE)
        label = "OpenStack Swift itself, small, with its own authentication, on this machine"
        yield Emulated(label, service.settings(PLACE))


@contextlib.asynccontextmanager
async def _oss(folder: Path) -> AsyncIterator[Emulated]:
    del folder  # it keeps nothing
    async with ossservice() as service:
        service.make_bucket(PLACE)
        label = "our own stand-in for Alibaba Cloud OSS (our reading of it, not OSS), in memory"
        yield Emulated(label, service.settings(PLACE))


EMULATORS: dict[str, Callable[[Path], AbstractAsyncContextManager[Emulated]]] = {
    "s3": _s3,
    "azure": _azure,
    "gcs": _gcs,
    "swift": _swift,
    "oss": _oss,
}


def configuration(driver: str, settings: dict[str, object], folder: Path) -> str:
    """Of the cache on an emulator. Blobs flow through it: not every client follows to a loopback address."""
    told = {
        "version": "0.1",
        "storage": {driver: settings, "redirect": {"disable": True}},
        "cache": {"spool": {"path": str(folder / "spool")}},
    }
    return json.dumps(told, indent=2)


async def alone(store: str, folder: Path) -> None:
    """An empty one until it is interrupted, beside a configuration file that is whole once it answers."""
    config = folder / "config.yml"
    config.unlink(missing_ok=True)
    shutil.rmtree(folder / store, ignore_errors=True)  # of one that was killed
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with EMULATORS[store](folder / store) as emulated:
        part = folder / "config.yml.part"
        part.write_text(configuration(store, emulated.settings, folder))
        part.rename(config)
        print(f"{store.upper()}: {emulated.label}; gone when this ends", flush=True)
        await stopping.wait()
        config.unlink()


if __name__ == "__main__":
    asyncio.run(alone(sys.argv[1], Path(sys.argv[2])))
